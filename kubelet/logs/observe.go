package logs

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// observe lists the logs. They are at NAMESPACE_NAME_UID/CONTAINER/ATTEMPT.log.
func (r Rotator) observe() ([]log, error) {
	files, err := filepath.Glob(filepath.Join(r.Dir, "*", "*", "*.log*"))
	if err != nil {
		return nil, fmt.Errorf("listing the logs of Pods: %w", err)
	}
	found := map[string]log{} // by path
	for _, file := range files {
		info, err := os.Lstat(file)
		if err != nil || !info.Mode().IsRegular() { // removed meanwhile, or a directory
			continue
		}
		attempt, rest, _ := strings.Cut(filepath.Base(file), ".log")
		path := filepath.Join(filepath.Dir(file), attempt+".log")
		l, known := found[path]
		if !known {
			l = log{path: path, size: -1}
		}
		if rest == "" {
			l.size = info.Size()
		} else {
			l.rotated = append(l.rotated, file)
		}
		found[path] = l
	}
	return slices.Collect(maps.Values(found)), nil
}

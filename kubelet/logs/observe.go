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
	dirs, err := filepath.Glob(filepath.Join(r.Dir, "*", "*"))
	if err != nil {
		return nil, fmt.Errorf("listing the logs of Pods: %w", err)
	}
	var logs []log
	for _, dir := range dirs {
		logs = append(logs, ofContainer(dir)...)
	}
	return logs, nil
}

// ofContainer lists the logs of all attempts of a container.
func ofContainer(dir string) []log {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // removed meanwhile, or no directory
	}
	found := map[string]log{} // by attempt
	for _, e := range entries {
		attempt, rest, ok := strings.Cut(e.Name(), ".log")
		info, err := e.Info()
		if !ok || err != nil || !info.Mode().IsRegular() {
			continue
		}
		l, known := found[attempt]
		if !known {
			l = log{path: filepath.Join(dir, attempt+".log"), size: -1}
		}
		if rest == "" {
			l.size = info.Size()
		} else {
			l.rotated = append(l.rotated, filepath.Join(dir, e.Name()))
		}
		found[attempt] = l
	}
	return slices.Collect(maps.Values(found))
}

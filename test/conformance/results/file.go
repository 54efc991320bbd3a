package results

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// conformance is the key of the first part of RESULTS.md, which has no Part.
const conformance = ""

// split returns the parts of RESULTS.md by suite, empty if they are not there.
func split(path string) (map[string]string, error) {
	body, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the recorded results: %w", err)
	}
	parts := map[string]string{}
	current, all := conformance, Parts()
	for line := range strings.Lines(string(body)) {
		if i := slices.IndexFunc(all, func(p Part) bool { return p.heading == strings.TrimSpace(line) }); i >= 0 {
			current = all[i].Suite
		}
		parts[current] += line
	}
	return parts, nil
}

// replace writes one part of RESULTS.md anew.
func replace(path, name, text string) error {
	parts, err := split(path)
	if err != nil {
		return err
	}
	parts[name] = text
	order := []string{conformance}
	for _, p := range Parts() {
		order = append(order, p.Suite)
	}
	var texts []string
	for _, name := range order {
		if text := strings.TrimSpace(parts[name]); text != "" {
			texts = append(texts, text)
		}
	}
	if err := os.WriteFile(path, []byte(strings.Join(texts, "\n\n")+"\n"), 0o644); err != nil {
		return fmt.Errorf("recording the results: %w", err)
	}
	return nil
}

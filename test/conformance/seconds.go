package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"

	"flyball.dev/test/conformance/suite"
)

// times is a file with how long tests took here, and long one, in the repository, with those that take long anywhere.
func (o options) times() string { return filepath.Join(o.out, "seconds.json") }
func (o options) long() string  { return o.beside("long.json") }

// longSeconds is when a test is long.
const longSeconds = 20

// readSeconds returns how long tests took in earlier runs, by name. What an earlier file says counts.
func readSeconds(paths ...string) map[string]float64 {
	all := map[string]float64{}
	for _, path := range slices.Backward(paths) {
		// Losing it loses nothing but order.
		if body, err := os.ReadFile(path); err == nil {
			_ = json.Unmarshal(body, &all)
		}
	}
	return all
}

// keepSeconds is for the next run's order and time left.
func keepSeconds(path string, seconds map[string]float64, outcomes []suite.Outcome) error {
	for _, o := range outcomes {
		seconds[o.Name] = o.Seconds
	}
	return writeJSON(path, seconds)
}

// keepLong writes how long those tests took that take long. What the file says of other tests stays.
func keepLong(path string, outcomes []suite.Outcome) error {
	seconds := readSeconds(path)
	for _, o := range outcomes {
		delete(seconds, o.Name)
		if o.Seconds >= longSeconds {
			seconds[o.Name] = math.Round(o.Seconds)
		}
	}
	return writeJSON(path, seconds)
}

func writeJSON(path string, value any) error {
	body, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.WriteFile(path, append(body, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing how long tests took: %w", err)
	}
	return nil
}

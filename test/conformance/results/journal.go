package results

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"flyball.dev/test/conformance/suite"
)

// Run says what a run is of. Only a run of the same can go on where another was interrupted.
type Run struct {
	Version string `json:"version"`
	Suite   string `json:"suite"`
	Focus   string `json:"focus"`
	Skip    string `json:"skip"`
	Cluster string `json:"cluster"`
	Product string `json:"product"` // the build of Flyball, empty for another cluster
	Tests   int    `json:"tests"`
}

// Journal is a file with the Run in its first line and an Outcome in each other. It is removed when a run is complete.
type Journal struct {
	file *os.File
	// Outcomes are all that the file has.
	Outcomes []suite.Outcome
}

// Open opens the journal of a run. What an earlier run of something else left is dropped, and so is what one of the same
// left if fresh is set.
func Open(path string, run Run, fresh bool) (*Journal, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("opening the journal: %w", err)
	}
	j := &Journal{}
	if !fresh {
		outcomes, err := read(path, run)
		if err != nil {
			return nil, fmt.Errorf("reading the journal %s: %w", path, err)
		}
		j.Outcomes = outcomes
	}
	// Written anew: the last line may be cut off.
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("opening the journal: %w", err)
	}
	j.file = f
	err = j.write(run)
	for _, o := range j.Outcomes {
		err = errors.Join(err, j.write(o))
	}
	return j, err
}

func read(path string, run Run) ([]suite.Outcome, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	var of Run
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &of) != nil || of != run {
		return nil, nil
	}
	var outcomes []suite.Outcome
	for lines.Scan() {
		var o suite.Outcome
		if json.Unmarshal(lines.Bytes(), &o) != nil {
			break // cut off in the middle
		}
		outcomes = append(outcomes, o)
	}
	return outcomes, lines.Err()
}

// Add appends an outcome.
func (j *Journal) Add(o suite.Outcome) error {
	j.Outcomes = append(j.Outcomes, o)
	return j.write(o)
}

func (j *Journal) write(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	if _, err := j.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	return nil
}

// Close closes the file; done removes it, so that the next run starts afresh.
func (j *Journal) Close(done bool) error {
	err := j.file.Close()
	if done {
		err = errors.Join(err, os.Remove(j.file.Name()))
	}
	if err != nil {
		return fmt.Errorf("closing the journal: %w", err)
	}
	return nil
}

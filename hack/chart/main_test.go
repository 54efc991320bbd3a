package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestCurrent: what lies in config is what would be written.
func TestCurrent(t *testing.T) {
	out := t.TempDir()
	if err := run("../../config", out); err != nil {
		t.Fatal(err)
	}
	written := 0
	err := filepath.WalkDir(out, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		written++
		relative, err := filepath.Rel(out, path)
		if err != nil {
			return err
		}
		want, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		got, err := os.ReadFile(filepath.Join("../../config", relative))
		if err != nil {
			return err
		}
		if string(want) != string(got) {
			t.Errorf("config/%s is stale: run make generate", relative)
		}
		return nil
	})
	if err != nil || written != 5 {
		t.Errorf("%d files, %v", written, err)
	}
}

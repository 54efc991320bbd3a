//go:build linux

package launch

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"flyball.dev/host/logging"
)

func TestChildError(t *testing.T) {
	tests := map[string]struct{ wrote, want string }{
		"Error":  {"some noise\nError: starting etcd: no space\n", "starting etcd: no space"},
		"Lines":  {"Error: checking:\nport\ndisk\n", "checking:\nport\ndisk"},
		"Panic":  {"panic: oh\n\ngoroutine 1\n", "panic: oh\n\ngoroutine 1"},
		"Silent": {"", "flyball ended without a word; see the log beside "},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "flyball.err")
			if err := os.WriteFile(file, []byte(tc.wrote), 0o600); err != nil {
				t.Fatal(err)
			}
			if tc.wrote == "" {
				tc.want += file
			}
			if got := childError(file); got != tc.want {
				t.Errorf("childError() = %q, want %q", got, tc.want)
			}
		})
	}
}

// TestOpenLog: what is logged when the disk is full needs a file for which space is reserved.
func TestOpenLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	w, err := openLog(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := os.Stat(logging.Path(dir)); err != nil {
		t.Errorf("before the first line: %v", err)
	}
}

func TestChildFlags(t *testing.T) {
	got := childFlags([]string{"--detach", "--server", "s", "--token", "t", "-v", "2", "--token=t", "--detach=true", "--node-name=n"})
	if want := []string{"--server", "s", "-v", "2", "--node-name=n"}; !slices.Equal(got, want) {
		t.Errorf("the child gets %q, want %q", got, want)
	}
}

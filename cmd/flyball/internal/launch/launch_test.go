package launch

import (
	"os"
	"path/filepath"
	"testing"

	"flyball.dev/apis/config"
	"flyball.dev/apis/config/v1alpha1"
	"flyball.dev/cmd/flyball/internal/parts"
	"flyball.dev/host/board"
	"flyball.dev/host/logging"
)

func TestSettled(t *testing.T) {
	kubelet := func(state board.State) board.Part { return board.Part{Name: parts.Kubelet, State: state} }
	tests := map[string]struct {
		reason string
		parts  []board.Part
		want   bool
		failed string
	}{
		"AllUp":       {"Nothing is left to wait for.", []board.Part{{Name: "dns", State: board.Up}, kubelet(board.Up)}, true, ""},
		"NodeStarts":  {"The node is what is waited for.", []board.Part{{Name: "dns", State: board.Up}, kubelet(board.Starting)}, false, "kubelet is starting: "},
		"NodeRetries": {"The node agent is started again after an error.", []board.Part{kubelet(board.Down)}, false, "kubelet is down: "},
		"OtherWaits":  {"A Pod needs its Services too.", []board.Part{{Name: "dns", State: board.Waiting}, kubelet(board.Up)}, false, "dns is waiting: "},
		"OtherFailed": {"What has failed may go on failing for ever.", []board.Part{{Name: "dns", State: board.Down, LastError: "no port"}, kubelet(board.Up)}, true, "dns is down: no port"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := Settled(tc.parts); got != tc.want {
				t.Errorf("%s\nSettled() = %t", tc.reason, got)
			}
			var failed string
			if err := Failed(tc.parts); err != nil {
				failed = err.Error()
			}
			if failed != tc.failed {
				t.Errorf("%s\nFailed() = %q, want %q", tc.reason, failed, tc.failed)
			}
		})
	}
}

func TestReadLastWords(t *testing.T) {
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
			if got := readLastWords(file); got != tc.want {
				t.Errorf("readLastWords() = %q, want %q", got, tc.want)
			}
		})
	}
}

// TestOpenLog: what is logged when the disk is full needs a file for which space is reserved.
func TestOpenLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	w, err := openLog(Options{Set: parts.Set{Config: &config.Config{FlyballConfiguration: v1alpha1.FlyballConfiguration{DataDir: dir}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := os.Stat(logging.Path(dir)); err != nil {
		t.Errorf("before the first line: %v", err)
	}
}

package logs

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"pgregory.net/rapid"

	"flyball.dev/kubelet/cri"
)

func TestPlan(t *testing.T) {
	cases := map[string]struct {
		reason string
		log    log
		want   *rotation // nil: not due
	}{
		"Small":  {reason: "it may still grow", log: log{size: 9}},
		"Fresh":  {reason: "no container has written yet", log: log{size: -1}},
		"Full":   {reason: "the first time nothing is compressed: shippers may still read", log: log{size: 10}, want: &rotation{rename: true, reopen: true}},
		"Second": {reason: "the log rotated before is compressed now", log: log{size: 10, rotated: []string{"l.1"}}, want: &rotation{compress: []string{"l.1"}, rename: true, reopen: true}},
		"Many": {
			reason: "the oldest is removed", log: log{size: 10, rotated: []string{"l.4", "l.3.gz", "l.2.gz", "l.1.gz"}},
			want: &rotation{remove: []string{"l.1.gz"}, compress: []string{"l.4"}, rename: true, reopen: true},
		},
		"Crashed": {
			reason: "an unfinished compression is done again, the files of a finished one are removed", log: log{size: 10, rotated: []string{"l.1", "l.1.gz", "l.2", "l.2.tmp"}},
			want: &rotation{remove: []string{"l.1", "l.2.tmp"}, compress: []string{"l.2"}, rename: true, reopen: true},
		},
		"Headless": {reason: "we crashed before the runtime was called", log: log{size: -1, rotated: []string{"l.1"}}, want: &rotation{reopen: true}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var got *rotation
			if p := (Policy{MaxSize: 10, MaxFiles: 5}); due(tc.log, p) {
				r := plan(tc.log, p)
				got = &r
			}
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(rotation{})); diff != "" {
				t.Errorf("%s\nplan() -want +got:\n%s", tc.reason, diff)
			}
		})
	}
}

// writer is a runtime with one container, which holds its log open.
type writer struct {
	runtimeapi.RuntimeServiceClient

	path    string
	file    *os.File
	refuses bool
	stopped bool
	calls   int
}

func (w *writer) ListContainers(_ context.Context, _ *runtimeapi.ListContainersRequest, _ ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error) {
	w.calls++
	if w.stopped {
		return &runtimeapi.ListContainersResponse{}, nil
	}
	return &runtimeapi.ListContainersResponse{Containers: []*runtimeapi.Container{{
		Id: "c1", Metadata: &runtimeapi.ContainerMetadata{Name: "main", Attempt: 2},
		Labels: map[string]string{cri.LabelPodUID: "u1", cri.LabelContainerName: "main"},
	}}}, nil
}

func (w *writer) ReopenContainerLog(_ context.Context, in *runtimeapi.ReopenContainerLogRequest, _ ...grpc.CallOption) (*runtimeapi.ReopenContainerLogResponse, error) {
	if w.refuses || in.ContainerId != "c1" {
		return nil, errors.New("no")
	}
	return &runtimeapi.ReopenContainerLogResponse{}, w.open()
}

func (w *writer) open() (err error) {
	if w.file != nil {
		_ = w.file.Close()
	}
	w.file, err = os.OpenFile(w.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	return err
}

func newWriter(t testing.TB, dir string) *writer {
	t.Helper()
	w := &writer{path: filepath.Join(dir, "default_web_u1", "main", "2.log")}
	if err := errors.Join(os.MkdirAll(filepath.Dir(w.path), 0o755), w.open()); err != nil {
		t.Fatal(err)
	}
	return w
}

// content maps the files of the container to what is in them.
func (w *writer) content(t testing.TB) map[string]string {
	t.Helper()
	found := map[string]string{}
	entries, err := os.ReadDir(filepath.Dir(w.path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		f, err := os.Open(filepath.Join(filepath.Dir(w.path), e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		var r io.Reader = f
		if strings.HasSuffix(e.Name(), compressed) {
			if r, err = gzip.NewReader(f); err != nil {
				t.Fatal(err)
			}
		}
		text, err := io.ReadAll(r)
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		found[e.Name()] = string(text)
	}
	return found
}

func TestRotate(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir)
	defer func() { _ = w.file.Close() }()
	r := Rotator{Dir: dir, Runtime: w, Policy: Policy{MaxSize: 4, MaxFiles: 3}}
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	step := func(reason, text string, want map[string]string) {
		t.Helper()
		if _, err := w.file.WriteString(text); err != nil {
			t.Fatal(err)
		}
		err := r.Reconcile(t.Context(), now)
		if (err != nil) != w.refuses {
			t.Errorf("%s: %v", reason, err)
		}
		if diff := cmp.Diff(want, w.content(t)); diff != "" {
			t.Errorf("%s: files -want +got:\n%s", reason, diff)
		}
		now = now.Add(time.Second)
	}
	step("nothing to do", "one", map[string]string{"2.log": "one"})
	if w.calls > 0 {
		t.Error("the runtime was called although no log was due")
	}
	w.refuses = true
	step("the runtime refuses", "1", map[string]string{"2.log": "one1"})
	w.refuses = false
	step("renamed", "", map[string]string{"2.log": "", "2.log.20300101-000002": "one1"})
	step("compressed", "two2", map[string]string{"2.log": "", "2.log.20300101-000002.gz": "one1", "2.log.20300101-000003": "two2"})
	step("removed", "three", map[string]string{"2.log": "", "2.log.20300101-000003.gz": "two2", "2.log.20300101-000004": "three"})
	if err := os.Remove(w.path); err != nil { // as a crash before the reopening leaves it
		t.Fatal(err)
	}
	step("reopened", "", map[string]string{"2.log": "", "2.log.20300101-000003.gz": "two2", "2.log.20300101-000004": "three"})
	w.stopped = true
	step("a container that has ended", "the last words", map[string]string{"2.log": "the last words", "2.log.20300101-000003.gz": "two2", "2.log.20300101-000004": "three"})
}

// owner owns the one container, or none.
type owner struct {
	t    *testing.T
	ours bool
}

func (o owner) Ours(pod types.UID, l map[string]string) bool {
	if pod != "u1" || l[cri.LabelContainerName] != "main" {
		o.t.Errorf("asked for the owner of a container of Pod %q with the labels %v", pod, l)
	}
	return o.ours
}

// TestSharedRuntime: others rotate the logs of their containers in the same runtime.
func TestSharedRuntime(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir)
	defer func() { _ = w.file.Close() }()
	if _, err := w.file.WriteString("long enough"); err != nil {
		t.Fatal(err)
	}
	for _, ours := range []bool{false, true} {
		r := Rotator{Dir: dir, Runtime: w, Owner: owner{t, ours}, Policy: Policy{MaxSize: 4, MaxFiles: 3}}
		if err := r.Reconcile(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
		files, err := os.ReadDir(filepath.Dir(w.path))
		if err != nil {
			t.Fatal(err)
		}
		if rotated := len(files) > 1; rotated != ours {
			t.Errorf("rotated: %t, want %t", rotated, ours)
		}
	}
}

// Whatever is written and whenever the runtime refuses: no more files than allowed
// are kept, and what they hold is the unbroken end of what was written.
func TestRotateProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "") //nolint:usetesting // one per check, not per test
		if err != nil {
			rt.Fatal(err)
		}
		w := newWriter(t, dir)
		defer func() { _ = w.file.Close() }()
		r := Rotator{Dir: dir, Runtime: w, Policy: Policy{MaxSize: 4, MaxFiles: rapid.IntRange(2, 5).Draw(rt, "files")}}
		now, written := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), ""
		for _, text := range rapid.SliceOfN(rapid.StringMatching(`[a-z]{0,6}`), 1, 12).Draw(rt, "texts") {
			if _, err := w.file.WriteString(text); err != nil {
				rt.Fatal(err)
			}
			written += text
			w.refuses = rapid.Bool().Draw(rt, "refuses")
			_ = r.Reconcile(t.Context(), now)
			now = now.Add(time.Second)
			files, kept := w.content(t), ""
			for _, name := range slices.Sorted(maps.Keys(files)) {
				if name != "2.log" {
					kept += files[name]
				}
			}
			kept += files["2.log"]
			if len(files) > r.Policy.MaxFiles {
				rt.Fatalf("%d files are kept of %d", len(files), r.Policy.MaxFiles)
			}
			if !strings.HasSuffix(written, kept) {
				rt.Fatalf("kept %q of %q", kept, written)
			}
		}
	})
}

//go:build linux

package space

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
)

// small mounts a file system that is full but for a little.
func small(t *testing.T, free int64) (dir, filler string) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=200m"); err != nil {
		t.Skipf("mounting a small file system: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	filler = filepath.Join(dir, "filler")
	fill(t, filler, 200<<20-free)
	return dir, filler
}

func fill(t *testing.T, path string, size int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
		t.Fatal(err)
	}
}

func TestFreeOf(t *testing.T) {
	stat := unix.Statfs_t{Bsize: 4096, Bavail: 0, Bfree: 1000, Files: 9000, Ffree: 500}
	for name, tc := range map[string]struct {
		reason string
		magic  int64
		root   bool
		want   uint64
	}{
		"Ext4":      {"a share is kept for root", unix.EXT4_SUPER_MAGIC, true, 4096 * 1000},
		"Ext4Other": {"and for nobody else", unix.EXT4_SUPER_MAGIC, false, 0},
		"Btrfs":     {"what is free is for metadata, and every write ends with ENOSPC", unix.BTRFS_SUPER_MAGIC, true, 0},
		"XFS":       {"it keeps nothing for root", unix.XFS_SUPER_MAGIC, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			stat.Type = tc.magic
			want := Free{Bytes: tc.want, Inodes: 500, Total: 9000}
			if diff := cmp.Diff(want, freeOf(stat, tc.root)); diff != "" {
				t.Errorf("%s\nfreeOf(): -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}

// TestGuard fills a file system and empties it again.
func TestGuard(t *testing.T) {
	dir, filler := small(t, 150<<20)
	database := filepath.Join(dir, "db")
	if err := os.WriteFile(database, bytes.Repeat([]byte("x"), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	changes := make(chan error, 10)
	g := &Guard{Dir: dir, Reserves: map[string]int64{database: 4 << 20}, Changed: func(err error) { changes <- err }}
	stored, who := 0, "somebody"
	handler := g.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { stored++ }))
	do := func(verb, resource string) (code int, body metav1.Status) {
		info := &apirequest.RequestInfo{IsResourceRequest: true, Verb: verb, Resource: resource}
		ctx := apirequest.WithUser(apirequest.WithRequestInfo(t.Context(), info), &user.DefaultInfo{Name: who})
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/", nil))
		_ = json.Unmarshal(w.Body.Bytes(), &body)
		return w.Code, body
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { g.Run(ctx); close(ended) }()

	awaitReserve(t, database, 5<<20)
	if code, _ := do("create", "configmaps"); code != http.StatusOK || stored != 1 {
		t.Errorf("with space a write is answered %d", code)
	}
	fill(t, filler, 170<<20)
	err := <-changes
	if _, ok := errors.AsType[*Error](err); !ok {
		t.Errorf("it says %v", err)
	}
	code, status := do("create", "configmaps")
	if code != http.StatusInsufficientStorage || stored != 1 || status.Message != err.Error() || status.Status != metav1.StatusFailure {
		t.Errorf("without space a write is answered %d %+v", code, status)
	}
	if code, _ := do("delete", "pods"); code != http.StatusOK {
		t.Errorf("while there is a little, a Pod is deleted with %d", code)
	}
	who = "system:serviceaccount:kube-system:pvc-protection-controller"
	if code, _ := do("update", "persistentvolumeclaims"); code != http.StatusOK {
		t.Errorf("while there is a little, a finalizer is removed with %d", code)
	}
	who = "somebody"
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := <-changes; err != nil {
		t.Errorf("with space again it says %v", err)
	}
	if code, _ := do("create", "configmaps"); code != http.StatusOK {
		t.Errorf("with space again a write is answered %d", code)
	}

	fill(t, filler, 170<<20)
	<-changes
	stop()
	<-ended
	if code, _ := do("create", "configmaps"); code != http.StatusInsufficientStorage {
		t.Errorf("when the process stops without space, a write is answered %d", code)
	}
}

// TestGuardLeavesReserve has too little space for a reserve and enough to write.
func TestGuardLeavesReserve(t *testing.T) {
	const more = 8 << 20
	for name, tc := range map[string]struct {
		reason string
		free   int64
		want   bool
	}{
		"Little": {"the reserve would begin the refusal", scarce + more, false},
		"Enough": {"", scarce + 3*more, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := small(t, tc.free)
			database := filepath.Join(dir, "db")
			if err := os.WriteFile(database, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			g := &Guard{Dir: dir, Reserves: map[string]int64{database: more}}
			var state State
			for range 3 {
				state = g.reconcile(state, time.Now())
			}
			var stat unix.Stat_t
			if err := unix.Stat(database, &stat); err != nil {
				t.Fatal(err)
			}
			if got := stat.Blocks > 0; got != tc.want || state.Level != All {
				t.Errorf("%s\nreserved: %t, want %t, at level %d", tc.reason, got, tc.want, state.Level)
			}
		})
	}
}

func awaitReserve(t *testing.T, path string, bytes int64) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var stat unix.Stat_t
		if err := unix.Stat(path, &stat); err != nil {
			t.Fatal(err)
		}
		if stat.Size != 1<<20 {
			t.Fatalf("the reserve changed the size to %d", stat.Size)
		}
		if stat.Blocks*512 >= bytes {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are allocated, want %d", stat.Blocks*512, bytes)
		}
	}
}

// TestReserve writes into the reserve on a file system that is full.
func TestReserve(t *testing.T) {
	dir, filler := small(t, 100<<20)
	path := filepath.Join(dir, "db")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const reserve = 4 << 20
	if err := Reserve(path, reserve); err != nil {
		t.Fatal(err)
	}
	free, err := Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, filler, 100<<20+int64(free.Bytes))
	if _, err := f.WriteAt(make([]byte, reserve), 0); err != nil {
		t.Errorf("writing into the reserve: %v", err)
	}
	if err := Reserve(path, 64*reserve); !IsNoSpace(err) {
		t.Errorf("reserving more than there is: %v", err)
	}
	if err := Probe(dir, reserve); !IsNoSpace(err) {
		t.Errorf("probing for more than there is: %v", err)
	}
	if err := Reserve(filepath.Join(dir, "none"), reserve); err != nil {
		t.Errorf("reserving for a file that is not there: %v", err)
	}
}

func TestShortage(t *testing.T) {
	const dir = "/data"
	plenty := Free{Bytes: 1 << 30}
	little := Free{Bytes: 1 << 20}
	quota := fmt.Errorf("allocating: %w", unix.EDQUOT)
	full := fmt.Errorf("allocating: %w", unix.ENOSPC)
	for name, tc := range map[string]struct {
		reason string
		free   Free
		probe  error
		want   error
	}{
		"Enough":    {"", plenty, nil, nil},
		"Little":    {"the figures say it best", little, full, &Error{Dir: dir, Free: little}},
		"Quota":     {"the figures are misleading", plenty, quota, &Error{Dir: dir, Free: plenty, Err: quota}},
		"Reserved":  {"a file system can keep more for itself than it says", plenty, full, &Error{Dir: dir, Free: plenty, Err: full}},
		"ReadOnly":  {"freeing space does not help", plenty, unix.EROFS, nil},
		"Forbidden": {"", plenty, unix.EACCES, nil},
		"Broken":    {"", plenty, unix.EIO, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := shortage(dir, tc.free, func() error { return tc.probe })
			if diff := cmp.Diff(tc.want, got, cmp.Comparer(sameMessage)); diff != "" {
				t.Errorf("%s\nshortage(): -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func sameMessage(a, b error) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

// TestAwaitReadOnly does not wait where no space is missing.
func TestAwaitReadOnly(t *testing.T) {
	dir, _ := small(t, 190<<20)
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := Await(t.Context(), dir, func(err error) { t.Errorf("it reported %v", err) }); err != nil {
		t.Errorf("Await() = %v", err)
	}
}

// TestAwait waits for space.
func TestAwait(t *testing.T) {
	dir, filler := small(t, 1<<20)
	var reported []error
	err := Await(t.Context(), filepath.Join(dir, "not", "made", "yet"), func(err error) {
		reported = append(reported, err)
		if err := os.Remove(filler); err != nil {
			t.Error(err)
		}
	})
	if err != nil || len(reported) != 1 {
		t.Errorf("Await() = %v after it reported %v", err, reported)
	}
}

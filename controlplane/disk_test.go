//go:build linux

package controlplane

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"flyball.dev/controlplane/space"
)

// mountSmall mounts a small file system.
func mountSmall(t *testing.T, dir, options string) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("mounting a small file system: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// smallDisk is a directory with a file system of its own, and what fills that up to the last byte.
func smallDisk(t *testing.T) (dir string, fill func() (empty func())) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts whole control planes")
	}
	dir = t.TempDir()
	mountSmall(t, dir, "size=600m")
	return dir, func() func() {
		t.Helper()
		f, err := os.Create(filepath.Join(dir, "filler"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for size := int64(0); ; {
			free, err := space.Stat(dir)
			if err != nil {
				t.Fatal(err)
			}
			if free.Bytes == 0 {
				break
			}
			if err := unix.Fallocate(int(f.Fd()), 0, size, int64(free.Bytes)); err != nil && !space.IsNoSpace(err) {
				t.Fatal(err)
			}
			size += int64(free.Bytes)
		}
		return func() {
			if err := os.Remove(f.Name()); err != nil {
				t.Error(err)
			}
		}
	}
}

func configMap(name, data string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"data": data}}
}

// acknowledged compares what is stored with what was acknowledged.
func acknowledged(t *testing.T, admin kubernetes.Interface, names []string) {
	t.Helper()
	list, err := admin.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	stored := map[string]bool{}
	for _, cm := range list.Items {
		stored[cm.Name] = true
	}
	for _, name := range names {
		if !stored[name] {
			t.Errorf("%s was acknowledged and is gone", name)
		}
	}
}

// TestDiskFills fills the disk under a running control plane: it goes on reading, refuses writes
// with the reason, writes again when there is space, and keeps what it acknowledged.
func TestDiskFills(t *testing.T) {
	dir, fill := smallDisk(t)
	port := freePort(t)
	t.Setenv(childEnv+"_PORT", strconv.Itoa(port))
	p := startProcess(t, dir, port)
	p.awaitUp(t)
	admin := connect(t, testConfig(dir).AdminKubeconfig)
	maps := admin.CoreV1().ConfigMaps("default")
	var names []string
	for i := range 20 {
		cm, err := maps.Create(t.Context(), configMap(fmt.Sprintf("before-%d", i), ""), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, cm.Name)
	}
	database := testConfig(dir).database()
	eventually(t, "a reserve for the database", func() bool {
		var stat unix.Stat_t
		return unix.Stat(database, &stat) == nil && stat.Blocks*512 >= stat.Size+databaseReserve
	})

	empty := fill()
	p.await(t, PartDisk, StateDown, "no space left on the file system of "+testConfig(dir).etcdDir()+": ", "0 MiB free, 128 MiB needed")
	_, err := maps.Create(t.Context(), configMap("refused", ""), metav1.CreateOptions{})
	if status, ok := err.(apierrors.APIStatus); !ok || status.Status().Code != http.StatusInsufficientStorage || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("without space a write ends with %v", err)
	}
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil || !strings.Contains(string(log), "no space left on the file system") {
		t.Errorf("the log does not say it: %v\n%s", err, log)
	}
	acknowledged(t, admin, names)

	empty()
	// A node must not be taken for dead because its renewals were refused, so Leases come first.
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "first"}}
	eventually(t, "a Lease to be written", func() bool {
		_, err := admin.CoordinationV1().Leases("default").Create(t.Context(), lease, metav1.CreateOptions{})
		return err == nil
	})
	if _, err := maps.Create(t.Context(), configMap("early", ""), metav1.CreateOptions{}); err == nil {
		t.Error("others may write before every node agent has renewed its Lease")
	}
	p.await(t, PartDisk, StateUp)
	cm, err := maps.Create(t.Context(), configMap("after", ""), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	names = append(names, cm.Name)
	if strings.Contains(p.output(), "restart") {
		t.Error("the process has restarted")
	}

	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	startProcess(t, dir, port).awaitUp(t)
	acknowledged(t, admin, names)
}

// TestDiskFullStop stops on a full disk while clients repeat what is refused: none of that reaches
// etcd, whose error would restart the process.
func TestDiskFullStop(t *testing.T) {
	dir, fill := smallDisk(t)
	p := startProcess(t, dir, freePort(t))
	p.awaitUp(t)
	admin := connect(t, testConfig(dir).AdminKubeconfig)
	fill()
	p.await(t, PartDisk, StateDown, "0 MiB free")

	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for c := range 8 {
		clients.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				cm := configMap(fmt.Sprintf("client-%d-%d", c, i), strings.Repeat("x", 500_000))
				_, err := admin.CoreV1().ConfigMaps("default").Create(ctx, cm, metav1.CreateOptions{})
				if err == nil {
					t.Errorf("%s was written", cm.Name)
				}
			}
		})
	}
	if err := p.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.await(t, "returned")
	stop()
	clients.Wait()
	if strings.Contains(p.output(), "restart") {
		t.Error("the process has restarted")
	}
}

// TestDiskShort starts where there is too little space for etcd, in a mount of its own: status and
// log say why nothing starts, and the process can be stopped.
func TestDiskShort(t *testing.T) {
	dir := t.TempDir()
	etcd := testConfig(dir).etcdDir()
	if err := os.MkdirAll(etcd, 0o700); err != nil {
		t.Fatal(err)
	}
	mountSmall(t, etcd, "size=100m")
	p := startProcess(t, dir, freePort(t))
	reason := "no space left on the file system of " + etcd + ": 100 MiB free, 128 MiB needed"
	p.await(t, PartDisk, StateDown, reason)
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil || !strings.Contains(string(log), reason) {
		t.Errorf("the log does not say it: %v\n%s", err, log)
	}
	if err := p.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.await(t, "returned")
	if strings.Contains(p.output(), PartEtcd+" "+StateStarting) {
		t.Error("etcd was started")
	}
}

// TestDiskFillsAtOnce has etcd itself find the disk full: the process starts again, waits for
// space, and has what it acknowledged.
func TestDiskFillsAtOnce(t *testing.T) {
	dir, fill := smallDisk(t)
	port := freePort(t)
	t.Setenv(childEnv+"_PORT", strconv.Itoa(port))
	t.Setenv(childEnv+"_UNGUARDED", "1")
	p := startProcess(t, dir, port)
	p.awaitUp(t)
	admin := connect(t, testConfig(dir).AdminKubeconfig)
	empty := fill()

	const writers = 8
	var names [writers][]string
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := 0; ; i++ {
				cm := configMap(fmt.Sprintf("writer-%d-%d", w, i), strings.Repeat("x", 100_000))
				if _, err := admin.CoreV1().ConfigMaps("default").Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
					return // etcd has found out, or the database is that large in the end
				}
				names[w] = append(names[w], cm.Name)
			}
		})
	}
	p.await(t, "restart", "running etcd", "no space left on device")
	p.await(t, PartDisk, StateDown, "0 MiB free")
	wg.Wait()
	empty()
	p.awaitUp(t)
	all := slices.Concat(names[:]...)
	t.Logf("%d writes were acknowledged before", len(all))
	acknowledged(t, admin, all)
}

package teardown

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/wait"
)

// podsCgroup is the name that every Kubernetes node agent gives to the cgroup of Pods, in every
// hierarchy. A cgroup in it is ours only if it has the UID of a Pod of ours.
const podsCgroup = "kubepods"

// cgroupRoots are the mounted hierarchies: one of v2, and any number of v1.
func cgroupRoots() []string {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	var roots []string
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && (f[2] == "cgroup" || f[2] == "cgroup2") {
			roots = append(roots, f[1])
		}
	}
	return roots
}

// removeCgroups removes the cgroups of the Pods with these UIDs, and kills what still runs in them.
// It removes their parents too, once those are empty: a node agent makes them before its first Pod.
func removeCgroups(ctx context.Context, roots, uids []string) error {
	var errs []error
	for _, root := range roots {
		top := filepath.Join(root, podsCgroup)
		for _, class := range []string{"besteffort", "burstable", ""} {
			for _, uid := range uids {
				errs = append(errs, removeCgroupTree(ctx, filepath.Join(top, class, "pod"+uid)))
			}
			// Not empty while it has Pods of others.
			_ = os.Remove(filepath.Join(top, class))
		}
	}
	return errors.Join(errs...)
}

func removeCgroupTree(ctx context.Context, root string) error {
	dirs, err := subtree(root)
	if err != nil {
		return err
	}
	for _, dir := range slices.Backward(dirs) {
		if err := removeCgroup(ctx, dir); err != nil {
			return err
		}
	}
	return nil
}

// subtree lists a directory and all below it, parents first.
func subtree(root string) ([]string, error) {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing cgroups: %w", err)
	}
	return dirs, nil
}

// removeCgroup kills what runs in the cgroup, and removes it as soon as the kernel has let go of
// the dead.
func removeCgroup(ctx context.Context, dir string) error {
	var last error
	// There is no event for a v1 cgroup becoming empty.
	err := wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, 5*time.Second, true, func(context.Context) (bool, error) {
		procs, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		for line := range strings.Lines(string(procs)) {
			if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 0 {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		last = os.Remove(dir)
		return last == nil || errors.Is(last, fs.ErrNotExist), nil
	})
	if err != nil {
		return fmt.Errorf("removing the cgroup %s: %w", dir, last)
	}
	return nil
}

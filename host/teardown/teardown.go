//go:build linux

// Package teardown removes what a node leaves on its host besides what its components remove
// themselves: cgroups, mounts, run-time files and, when purging, data and logs. It works whether
// Flyball ended well, was killed or was never started, and doing it again changes nothing. The
// command puts these steps and those of the components in order.
package teardown

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"k8s.io/apimachinery/pkg/util/sets"

	"flyball.dev/internal/mounts"
)

// Step is one thing to remove.
type Step struct {
	// Name says what is done.
	Name string
	// Run does it.
	Run func(ctx context.Context) error
}

// Pods are the Pods of this host's node, by their UIDs: their cgroups and logs are ours to remove.
type Pods struct {
	kubeletDir string
	uids       sets.Set[string]
}

// KnownPods returns the Pods that have a directory below the kubelet's, and those that an earlier
// teardown stopped.
func KnownPods(kubeletDir string) Pods {
	p := Pods{kubeletDir: kubeletDir, uids: sets.New[string]()}
	entries, _ := os.ReadDir(filepath.Join(kubeletDir, "pods"))
	for _, e := range entries {
		p.uids.Insert(e.Name())
	}
	data, _ := os.ReadFile(p.stoppedFile())
	p.uids.Insert(strings.Fields(string(data))...)
	return p
}

// stoppedFile has the UIDs of Pods that were stopped and not purged. A Pod that had ended has logs
// and nothing else by which a later purge could find it.
func (p Pods) stoppedFile() string { return filepath.Join(p.kubeletDir, "stopped-pods") }

// UIDs are the UIDs of all of them, sorted.
func (p Pods) UIDs() []string { return sets.List(p.uids) }

// Stopped adds Pods that were just stopped, and records all for a later purge.
func (p Pods) Stopped(uids []string) error {
	p.uids.Insert(uids...)
	err := os.WriteFile(p.stoppedFile(), []byte(strings.Join(p.UIDs(), "\n")+"\n"), 0o600)
	// Without the directory no Pod ever ran here.
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("recording the Pods that were stopped: %w", err)
	}
	return nil
}

// Dirs are the directories that a node uses on its host.
type Dirs struct {
	// Run has run-time files, Data all data, Kubelet the files of Pods and PodLogs their logs.
	Run, Data, Kubelet, PodLogs string
	// AdminKubeconfig is the administrator's kubeconfig.
	AdminKubeconfig string
}

// Steps remove what the components leave when they have been removed themselves, and if purge is
// set all data.
func (p Pods) Steps(d Dirs, purge bool) []Step {
	steps := []Step{
		{"removing cgroups", p.removeCgroups},
		{"unmounting", func(context.Context) error {
			containerd := filepath.Join(d.Data, "containerd")
			return errors.Join(mounts.UnmountBelow(d.Run), mounts.UnmountBelow(d.Kubelet), mounts.UnmountBelow(containerd))
		}},
		{"removing run-time files", func(context.Context) error { return mounts.RemoveTree(d.Run) }},
	}
	if purge {
		steps = append(steps, Step{"removing data", func(context.Context) error { return p.removeData(d) }})
	}
	return steps
}

// removeCgroups removes the cgroups of the Pods, and kills what still runs in them.
func (p Pods) removeCgroups(context.Context) error {
	if _, err := os.Stat(p.kubeletDir); errors.Is(err, os.ErrNotExist) {
		return nil // no node agent of ours has run
	}
	return removeCgroups(cgroupRoots(), p.UIDs())
}

// dataDirs are all that Flyball keeps in a data directory. Anything else there belongs to others
// and stays.
var dataDirs = []string{"server", "agent", "kubelet", "containerd", "log"}

func (p Pods) removeData(d Dirs) error {
	var errs []error
	for _, dir := range dataDirs {
		errs = append(errs, mounts.RemoveTree(filepath.Join(d.Data, dir)))
	}
	errs = append(errs, removePodLogs(d.PodLogs, p.UIDs()), removeFile(d.AdminKubeconfig))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	// Both may hold something else, or be a mount of their own.
	_ = os.Remove(filepath.Dir(d.AdminKubeconfig))
	_ = os.Remove(d.Data)
	return nil
}

// removePodLogs removes the logs of the Pods with these UIDs, and the links to them that log
// shippers follow. Every node agent uses these directories, so the logs of others stay.
func removePodLogs(dir string, uids []string) error {
	linkDir := filepath.Join(filepath.Dir(dir), "containers")
	links, _ := filepath.Glob(filepath.Join(linkDir, "*.log"))
	var errs []error
	for _, uid := range uids {
		for _, link := range links {
			if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, dir+"/") && strings.Contains(target, "_"+uid+"/") {
				errs = append(errs, removeFile(link))
			}
		}
		logs, _ := filepath.Glob(filepath.Join(dir, "*_"+uid))
		for _, d := range logs {
			errs = append(errs, mounts.RemoveTree(d))
		}
	}
	_, _ = os.Remove(linkDir), os.Remove(dir) // if they are empty
	return errors.Join(errs...)
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing %s: %w", path, err)
	}
	return nil
}

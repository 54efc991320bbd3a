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

	"k8s.io/apimachinery/pkg/util/sets"

	"flyball.dev/host/rootdir"
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
	root rootdir.Dirs
	uids sets.Set[string]
}

// stoppedFile has the UIDs of Pods that were stopped and not purged. A Pod that had ended has logs
// and nothing else by which a later purge could find it.
const stoppedFile = "stopped-pods"

// KnownPods returns the Pods that have a directory in the node agent's, and those that an earlier
// teardown stopped.
func KnownPods(root rootdir.Dirs) Pods {
	p := Pods{root: root, uids: sets.New[string]()}
	for _, dir := range root.InUse() {
		entries, _ := os.ReadDir(filepath.Join(dir, "pods"))
		for _, e := range entries {
			p.uids.Insert(e.Name())
		}
		data, _ := os.ReadFile(filepath.Join(dir, stoppedFile))
		p.uids.Insert(strings.Fields(string(data))...)
	}
	return p
}

// UIDs are the UIDs of all of them, sorted.
func (p Pods) UIDs() []string { return sets.List(p.uids) }

// Stopped adds Pods that were just stopped, and records all for a later purge.
func (p Pods) Stopped(uids []string) error {
	p.uids.Insert(uids...)
	dirs := p.root.InUse()
	if len(dirs) == 0 { // no Pod ever ran here
		return nil
	}
	if err := os.WriteFile(filepath.Join(dirs[0], stoppedFile), []byte(strings.Join(p.UIDs(), "\n")+"\n"), 0o600); err != nil {
		return fmt.Errorf("recording the Pods that were stopped: %w", err)
	}
	return nil
}

// Dirs are the directories that a node uses on its host.
type Dirs struct {
	// Run has run-time files, Data all data but the files of Pods, and PodLogs the logs of Pods.
	Run, Data, PodLogs string
	// AdminKubeconfig is the administrator's kubeconfig.
	AdminKubeconfig string
	// Volumes are the folders that the storage driver keeps its volumes in.
	Volumes []string
}

// Steps remove what the components leave when they have been removed themselves, and if purge is
// set all data.
func (p Pods) Steps(d Dirs, purge bool) []Step {
	steps := []Step{
		{"removing cgroups", p.removeCgroups},
		{"unmounting", func(context.Context) error {
			containerd := filepath.Join(d.Data, "containerd")
			return errors.Join(mounts.UnmountBelow(d.Run), p.root.Unmount(), mounts.UnmountBelow(containerd), releaseVolumes(d.Volumes))
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
	if len(p.root.InUse()) == 0 {
		return nil // no node agent of ours has run
	}
	return removeCgroups(cgroupRoots(), p.UIDs())
}

// dataDirs are all that Flyball keeps in a data directory besides what leads to the root directory.
// Anything else there belongs to others and stays.
var dataDirs = []string{"server", "agent", "containerd", "log"}

func (p Pods) removeData(d Dirs) error {
	errs := []error{p.root.Remove(), removeVolumes(d.Volumes)}
	for _, dir := range dataDirs {
		errs = append(errs, mounts.RemoveTree(filepath.Join(d.Data, dir)))
	}
	errs = append(errs, removePodLogs(d.PodLogs, p.UIDs()), removeFile(d.AdminKubeconfig))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	// All may hold something else, or be a mount of their own.
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

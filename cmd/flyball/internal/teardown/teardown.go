// Package teardown removes everything that a node agent left in the machine: Pods, the container runtime, network,
// mounts, cgroups and run-time files; and, if asked, all data. It works whether Flyball ended well, was killed or was
// never started, and doing it again changes nothing.
package teardown

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"

	"flyball.dev/cmd/flyball/internal/parts"
	"flyball.dev/containerd"
	"flyball.dev/host/instance"
	"flyball.dev/kubelet"
	"flyball.dev/network"
	"flyball.dev/proxy"
)

// stopPodsWithin is how long all Pods together may take to end; those that have not are killed with their shims.
const stopPodsWithin = 2 * time.Minute

// Step is one of the things to do, in order.
type Step struct {
	// Name says what is done.
	Name string
	// Run does it.
	Run func(ctx context.Context) error
}

// Steps remove what a node agent left. Later steps are worth trying when an earlier one failed.
func Steps(s parts.Set, runDir string, purge bool) []Step {
	pods := append(knownPods(s.KubeletDir()), remembered(s)...)
	steps := []Step{{"stopping Pods", func(ctx context.Context) error {
		stopped, err := stopPods(ctx, s, pods)
		// A Pod that had ended has no directory any more, but logs.
		pods = sets.List(sets.New(pods...).Insert(stopped...))
		return errors.Join(err, remember(s, pods))
	}}}
	if s.Config.CRIEndpoint == "" {
		steps = append(steps, Step{"stopping containerd", func(ctx context.Context) error { return containerd.Stop(ctx, s.Containerd()) }})
	}
	steps = append(steps,
		Step{"removing Services", func(context.Context) error { return proxy.Cleanup() }},
		Step{"removing the network", func(context.Context) error { return network.Cleanup(s.Network()) }},
		Step{"removing cgroups", func(ctx context.Context) error {
			if _, err := os.Stat(s.KubeletDir()); errors.Is(err, os.ErrNotExist) {
				return nil // no node agent of ours has run
			}
			return removeCgroups(ctx, cgroupRoots(), pods)
		}},
		Step{"unmounting", func(context.Context) error { return unmountBelow(ownMounts(s, runDir)...) }},
		Step{"removing run-time files", func(context.Context) error { return removeTree(runDir) }},
	)
	if purge {
		steps = append(steps, Step{"removing data", func(context.Context) error { return removeData(s, pods) }})
	}
	return steps
}

func stopPods(ctx context.Context, s parts.Set, known []string) ([]string, error) {
	if !s.RuntimeAnswers() {
		return nil, nil // no runtime, no Pods; what is left of them goes with the runtime's shims
	}
	ctx, cancel := context.WithTimeout(ctx, stopPodsWithin)
	defer cancel()
	return kubelet.StopPods(ctx, kubelet.Config{
		CRIEndpoint: s.CRIEndpoint(), SharedRuntime: s.Config.CRIEndpoint != "", RootDir: s.KubeletDir(),
	}, known)
}

// stoppedPods is the file with the UIDs of the Pods that were taken down and not purged. Those that had ended have logs,
// and nothing else by which a later purge could know them.
func stoppedPods(s parts.Set) string {
	return filepath.Join(s.KubeletDir(), "stopped-pods")
}

func remembered(s parts.Set) []string {
	data, _ := os.ReadFile(stoppedPods(s))
	return strings.Fields(string(data))
}

func remember(s parts.Set, pods []string) error {
	err := os.WriteFile(stoppedPods(s), []byte(strings.Join(pods, "\n")+"\n"), 0o600)
	// Without the directory no Pod ever ran here.
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("noting the Pods that were stopped: %w", err)
	}
	return nil
}

// ownMounts are the directories below which every mount is ours.
func ownMounts(s parts.Set, runDir string) []string {
	return []string{runDir, s.KubeletDir(), filepath.Join(s.Config.DataDir, "containerd")}
}

// dataDirs are all that Flyball keeps in a data directory. What else lies there is somebody else's and stays.
var dataDirs = []string{"server", "agent", "kubelet", "containerd", "log"}

func removeData(s parts.Set, pods []string) error {
	var errs []error
	for _, d := range dataDirs {
		errs = append(errs, removeTree(filepath.Join(s.Config.DataDir, d)))
	}
	errs = append(errs, removePodLogs(parts.PodLogsDir, pods), removeFile(instance.AdminKubeconfig))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	// Both may hold something else, or be a mount of their own.
	_ = os.Remove(filepath.Dir(instance.AdminKubeconfig))
	_ = os.Remove(s.Config.DataDir)
	return nil
}

// removePodLogs removes the logs of the Pods with these UIDs, and the links to them that log shippers follow. The place
// is every node agent's, so that of others stays.
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
			errs = append(errs, removeTree(d))
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

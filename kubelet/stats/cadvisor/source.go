//go:build linux

package cadvisor

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/google/cadvisor/lib/container"
	"github.com/google/cadvisor/lib/container/common"
	"github.com/google/cadvisor/lib/container/libcontainer"
	"github.com/google/cadvisor/lib/metrics"
	info "github.com/google/cadvisor/lib/model"
	libcgroups "github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/fscommon"
	"github.com/samber/lo"
	"k8s.io/klog/v2"

	"flyball.dev/kubelet/cgroups"
)

// timeout bounds the runtime's answers to a scrape; a collector has no context of its request. It
// is well below the 10 s that Prometheus waits for all series together: a runtime that hangs costs
// the series of cgroups, and not those of the host and its file systems.
const timeout = 2 * time.Second

// source measures the host and its cgroups for the library.
type source struct {
	*hostInfo

	cfg   Config
	kinds container.MetricSet
}

// GetRequestedContainersInfo measures all cgroups.
func (s *source) GetRequestedContainersInfo(string, info.RequestOptions) (map[string]*info.ContainerInfo, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	groups, err := s.cfg.Cgroups.Groups()
	if err != nil {
		return nil, err
	}
	owners, err := s.owners(ctx)
	if err != nil {
		return nil, err
	}
	host := s.withDevices() // once for all cgroups
	out := make(map[string]*info.ContainerInfo, len(groups))
	for _, g := range groups {
		o := owners.of(g)
		if g.Pod != "" && o.pod == "" {
			continue // created or ended between the two lists
		}
		measured, err := s.measure(g, o, host)
		if err != nil {
			// It has ended meanwhile; the others have not.
			klog.Background().V(4).Info("Measuring a cgroup failed", "cgroup", g.Path, "err", err)
			continue
		}
		out[g.Path] = measured
	}
	return out, nil
}

// labels of a cgroup, with upstream's names.
func labels(c *info.ContainerInfo) map[string]string {
	return map[string]string{
		metrics.LabelID: c.Name, metrics.LabelName: c.Id, metrics.LabelImage: c.Spec.Image,
		"namespace": c.Spec.Labels["namespace"], "pod": c.Spec.Labels["pod"], "container": c.Spec.Labels["container"],
	}
}

func (s *source) measure(g cgroups.Group, o owner, host *hostInfo) (*info.ContainerInfo, error) {
	spec, err := common.GetSpec(g.Dirs, host, false, false)
	if err != nil {
		return nil, fmt.Errorf("reading the limits: %w", err)
	}
	spec.Image, spec.Labels = o.image, map[string]string{"namespace": o.namespace, "pod": o.pod, "container": o.container}
	if !o.created.IsZero() {
		spec.CreationTime = o.created
	}
	pid, kinds := s.scope(g, o)
	manager, err := libcontainer.NewCgroupManager(g.Path, g.Dirs)
	if err != nil {
		return nil, fmt.Errorf("opening the cgroup: %w", err)
	}
	stats, err := libcontainer.NewHandler(manager, "/", pid, kinds).GetStats()
	if err != nil {
		return nil, fmt.Errorf("reading the cgroup: %w", err)
	}
	stats.OOMEvents = oomKills(g.Dirs)
	if stats.DiskIo != nil {
		common.AssignDeviceNamesToDiskStats((*common.MachineInfoNamer)(&host.MachineInfo), stats.DiskIo)
	}
	return &info.ContainerInfo{
		ContainerReference: info.ContainerReference{Name: g.Path, Id: o.id},
		Spec:               spec, Stats: []*info.ContainerStats{stats},
	}, nil
}

// scope returns the process whose network is measured, and the kinds of metrics that the cgroup
// has: the network of a Pod is that of its sandbox, the node's is our own, and only sandboxes and
// containers have processes.
func (s *source) scope(g cgroups.Group, o owner) (pid int, kinds container.MetricSet) {
	network := container.MetricSet{container.NetworkUsageMetrics: {}}
	processes := container.MetricSet{container.ProcessMetrics: {}}
	switch {
	case g.Path == "/":
		return os.Getpid(), s.kinds.Difference(processes)
	case o.id == "":
		return 0, s.kinds.Difference(network).Difference(processes)
	}
	pid = firstProcess(g.Dirs)
	if o.container != "" || pid == 0 || sameNetwork(pid) {
		return pid, s.kinds.Difference(network)
	}
	return pid, s.kinds
}

// controller returns the directory of one controller with cgroup v1, or of all with v2.
func controller(dirs map[string]string, name string) (dir string, v2 bool) {
	if dir, v2 = dirs[""]; v2 {
		return dir, true
	}
	return dirs[name], false
}

func firstProcess(dirs map[string]string) int {
	dir, _ := controller(dirs, "memory")
	pids, _ := libcgroups.GetPids(dir)
	return lo.FirstOrEmpty(pids)
}

// sameNetwork says whether a process is in our own network namespace, the node's: its traffic is
// not the Pod's alone. It is true if the namespaces cannot be read.
func sameNetwork(pid int) bool {
	its, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid))
	ours, oursErr := os.Stat("/proc/self/ns/net")
	return err != nil || oursErr != nil || os.SameFile(its, ours)
}

// oomKills is how many processes of the cgroup the kernel killed because memory was short.
func oomKills(dirs map[string]string) uint64 {
	dir, v2 := controller(dirs, "memory")
	n, _ := fscommon.GetValueByKey(dir, lo.Ternary(v2, "memory.events", "memory.oom_control"), "oom_kill")
	return n
}

// idOf is the runtime's ID in the name of a cgroup: containerd uses the ID alone, CRI-O adds a
// prefix, and crio-conmon-ID is not the container.
func idOf(name string) string {
	name = strings.TrimSuffix(name, ".scope")
	if strings.Contains(name, "conmon") {
		return ""
	}
	return name[strings.LastIndex(name, "-")+1:]
}

//go:build linux

package cadvisor

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// fileSystems measures those of the node. They belong to no container: only the runtime knows how
// much each container wrote, see /stats/summary.
type fileSystems struct{ dirs []string }

var fsLabels = []string{"id", "name", "image", "namespace", "pod", "container", "device"}

func fsDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, fsLabels, nil)
}

var (
	fsLimit      = fsDesc("container_fs_limit_bytes", "Size of a file system of the node, in bytes.")
	fsUsage      = fsDesc("container_fs_usage_bytes", "How much of a file system of the node is used, in bytes.")
	fsInodes     = fsDesc("container_fs_inodes_total", "Number of inodes of a file system of the node.")
	fsInodesFree = fsDesc("container_fs_inodes_free", "Number of inodes of a file system of the node that are free.")
)

func (fileSystems) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{fsLimit, fsUsage, fsInodes, fsInodesFree} {
		ch <- d
	}
}

func (f fileSystems) Collect(ch chan<- prometheus.Metric) {
	mounts, err := procfs.GetMounts()
	if err != nil {
		return
	}
	seen := map[string]bool{}
	for _, dir := range f.dirs {
		var at unix.Stat_t
		var fs unix.Statfs_t
		if unix.Stat(dir, &at) != nil || unix.Statfs(dir, &fs) != nil {
			continue
		}
		device := deviceOf(mounts, at.Dev)
		if device == "" || seen[device] {
			continue
		}
		seen[device] = true
		for desc, value := range map[*prometheus.Desc]uint64{
			fsLimit: fs.Blocks * uint64(fs.Bsize), fsUsage: (fs.Blocks - fs.Bfree) * uint64(fs.Bsize),
			fsInodes: fs.Files, fsInodesFree: fs.Ffree,
		} {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(value), "/", "", "", "", "", "", device)
		}
	}
}

// deviceOf is the source of the mount with a device number, such as /dev/sda1.
func deviceOf(mounts []*procfs.MountInfo, dev uint64) string {
	want := fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
	for _, m := range mounts {
		if m.MajorMinorVer == want {
			return m.Source
		}
	}
	return ""
}

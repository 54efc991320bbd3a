package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/procfs"
)

// usage is what one process needs.
type usage struct {
	pid  int
	name string
	rss  int     // bytes
	cpu  float64 // seconds of CPU time since the process started, or per second once it is a rate
}

// watchIdle takes CPU over a period in which nothing is asked of the cluster, and memory at its end.
func (s *side) watchIdle(ctx context.Context, period time.Duration, f *figures) error {
	before, err := processes(s.bin)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := sleep(ctx, period); err != nil {
		return err
	}
	after, err := processes(s.bin)
	if err != nil {
		return err
	}
	seconds := time.Since(began).Seconds()
	for _, a := range after {
		for _, b := range before {
			if a.pid == b.pid {
				f.idle = append(f.idle, usage{pid: a.pid, name: a.name, rss: a.rss, cpu: (a.cpu - b.cpu) / seconds})
			}
		}
	}
	return nil
}

// processes are those whose executable lies in bin and that run under its name: flyball under another name is some test's
// API server. Shims and what they start are left out.
func processes(bin string) ([]usage, error) {
	all, err := procfs.AllProcs()
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	var list []usage
	for _, p := range all {
		exe, err := p.Executable()
		if err != nil || filepath.Dir(exe) != bin {
			continue // a kernel thread, ended since, or not ours
		}
		name := filepath.Base(exe)
		args, err := p.CmdLine()
		if err != nil || len(args) == 0 || filepath.Base(args[0]) != name || strings.HasPrefix(name, "containerd-shim") {
			continue
		}
		stat, err := p.Stat()
		if err != nil {
			continue // ended since
		}
		list = append(list, usage{pid: p.PID, name: name, rss: stat.ResidentMemory(), cpu: stat.CPUTime()})
	}
	return list, nil
}

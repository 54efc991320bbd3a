package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/procfs/blockdevice"
	"golang.org/x/sys/unix"
)

const (
	diskPods = 3
	// sectorBytes is the unit of /proc/diskstats, whatever the device's own is (Documentation/admin-guide/iostats.rst).
	sectorBytes = 512
)

// written is what reached a block device.
type written struct {
	bytes, writes float64
	over          time.Duration
}

// per scales what was written to a period.
func (w written) per(period time.Duration) float64 { return period.Seconds() / w.over.Seconds() }

// watchDisk takes what reaches the disk over a period in which three Pods run and nothing is asked of the cluster.
func (s *side) watchDisk(ctx context.Context, c *client, o options, f *figures) error {
	if err := c.runPods(ctx, "idle", diskPods); err != nil {
		return err
	}
	if err := sleep(ctx, o.settle); err != nil {
		return err
	}
	began := time.Now()
	before, err := diskWrites(s.data)
	if errors.Is(err, errNoDevice) {
		progressf("%s: %v: what it writes is not measured", s.name, err)
		return nil
	}
	if err != nil {
		return err
	}
	if err := sleep(ctx, o.disk); err != nil {
		return err
	}
	after, err := diskWrites(s.data)
	if err != nil {
		return err
	}
	f.disk = &written{bytes: after.bytes - before.bytes, writes: after.writes - before.writes, over: time.Since(began)}
	return nil
}

func sleep(ctx context.Context, period time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(period):
		return nil
	}
}

var errNoDevice = errors.New("no block device of its own is under it")

// diskWrites is what has reached the block device under a directory since the host started. The file system's own delay is
// taken out first, so that writes count where they were made.
func diskWrites(dir string) (written, error) {
	d, err := os.Open(dir)
	if err != nil {
		return written{}, fmt.Errorf("opening the data directory: %w", err)
	}
	defer d.Close()
	var stat unix.Stat_t
	if err := errors.Join(unix.Syncfs(int(d.Fd())), unix.Fstat(int(d.Fd()), &stat)); err != nil {
		return written{}, fmt.Errorf("finding the device under %s: %w", dir, err)
	}
	proc, err := blockdevice.NewDefaultFS()
	if err != nil {
		return written{}, fmt.Errorf("reading /proc/diskstats: %w", err)
	}
	devices, err := proc.ProcDiskstats()
	if err != nil {
		return written{}, fmt.Errorf("reading /proc/diskstats: %w", err)
	}
	for _, device := range devices {
		if device.MajorNumber == unix.Major(stat.Dev) && device.MinorNumber == unix.Minor(stat.Dev) {
			return written{bytes: float64(device.WriteSectors * sectorBytes), writes: float64(device.WriteIOs)}, nil
		}
	}
	return written{}, fmt.Errorf("finding the device under %s: %w", dir, errNoDevice)
}

//go:build linux

package images

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/samber/lo"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
)

// collectEvery is how often the disk is looked at. Images come slowly.
const collectEvery = 5 * time.Minute

// Containers lists what images are in use. CRI's RuntimeServiceClient is one.
type Containers interface {
	ListContainers(
		ctx context.Context, in *runtimeapi.ListContainersRequest, opts ...grpc.CallOption,
	) (*runtimeapi.ListContainersResponse, error)
}

// Collector removes images that nobody uses when the disk fills up. Nothing of
// what it remembers is needed for correctness: after a restart every image is
// new, and spared for a while.
type Collector struct {
	Images     runtimeapi.ImageServiceClient
	Containers Containers
	// Access forgets who pulled an image that is gone. May be nil.
	Access *Access
	// Event records an Event about the node. May be nil.
	Event func(eventtype, reason, message string)
	// Removed is called after images were removed. May be nil.
	Removed func()
	// Policy has upstream's thresholds if zero.
	Policy Policy

	seen map[string]times
}

type times struct{ first, last time.Time }

// Run collects until ctx ends.
func (c *Collector) Run(ctx context.Context) error {
	ticker := time.NewTicker(collectEvery)
	defer ticker.Stop()
	for {
		if err := c.Collect(ctx, time.Now()); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Collecting images failed")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Collect looks once, and removes what planCollect says.
func (c *Collector) Collect(ctx context.Context, now time.Time) error {
	policy := c.Policy
	if policy == (Policy{}) {
		policy = DefaultPolicy
	}
	disk, err := c.disk(ctx)
	if err != nil {
		return err
	}
	stored, err := c.observe(ctx, now)
	if err != nil {
		return err
	}
	plan, missing := planCollect(stored, disk, policy, now)
	var errs []error
	for _, r := range plan {
		klog.FromContext(ctx).V(1).Info("Removing image", "image", r.ID, "bytes", r.Size, "reason", r.Reason)
		remove := &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: r.ID}}
		if _, err := c.Images.RemoveImage(ctx, remove); err != nil {
			errs = append(errs, fmt.Errorf("removing image %s: %w", r.ID, err))
		}
	}
	if len(plan) > 0 && c.Removed != nil {
		c.Removed()
	}
	if missing > 0 && c.Event != nil {
		c.Event("Warning", "FreeDiskSpaceFailed", fmt.Sprintf(
			"Removing all unused images leaves %d bytes too few free on the disk of the images; delete files or Pods", missing))
	}
	errs = append(errs, c.Access.prune(ctx, func() ([]string, error) {
		left, err := c.list(ctx)
		return lo.Map(left, func(i *runtimeapi.Image, _ int) string { return i.Id }), err
	}))
	return errors.Join(errs...)
}

func (c *Collector) list(ctx context.Context) ([]*runtimeapi.Image, error) {
	list, err := c.Images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	return list.GetImages(), nil
}

// disk asks the runtime where images lie, and the kernel how full that is.
func (c *Collector) disk(ctx context.Context) (Disk, error) {
	resp, err := c.Images.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
	if err != nil {
		return Disk{}, fmt.Errorf("asking where images lie: %w", err)
	}
	if len(resp.GetImageFilesystems()) == 0 {
		return Disk{}, nil
	}
	var st unix.Statfs_t
	mountpoint := resp.ImageFilesystems[0].GetFsId().GetMountpoint()
	if err := unix.Statfs(mountpoint, &st); err != nil {
		return Disk{}, fmt.Errorf("looking at the disk of images, %s: %w", mountpoint, err)
	}
	return Disk{Capacity: int64(st.Blocks) * st.Bsize, Available: int64(st.Bavail) * st.Bsize}, nil
}

// observe lists images and who uses them, and notes when it saw them.
func (c *Collector) observe(ctx context.Context, now time.Time) ([]Stored, error) {
	list, err := c.list(ctx)
	if err != nil {
		return nil, err
	}
	containers, err := c.Containers.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return nil, fmt.Errorf("listing containers: %w", err)
	}
	used := map[string]bool{}
	for _, container := range containers.Containers {
		used[container.ImageRef] = true
		used[container.ImageId] = true
		used[container.GetImage().GetImage()] = true
		for ref := range strings.SplitSeq(container.Annotations[AnnotationVolumes], ",") {
			used[ref] = true
		}
	}
	before := c.seen
	c.seen = make(map[string]times, len(list))
	var out []Stored
	for _, image := range list {
		t, known := before[image.Id]
		if !known {
			t.first = now
		}
		inUse := used[image.Id]
		for _, name := range append(image.RepoTags, image.RepoDigests...) {
			inUse = inUse || used[name]
		}
		if inUse {
			t.last = now
		}
		c.seen[image.Id] = t
		out = append(out, Stored{
			ID: image.Id, Size: int64(image.Size), Pinned: image.Pinned,
			InUse: inUse, FirstSeen: t.first, LastUsed: t.last,
		})
	}
	return out, nil
}

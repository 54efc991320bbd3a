//go:build linux

package gc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/samber/lo"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/wait"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"flyball.dev/kubelet/cri"
	"flyball.dev/kubelet/images"
)

// interval is the time between two reconciles. Images come slowly.
const interval = 5 * time.Minute

// Controller removes unused images.
type Controller struct {
	Images  runtimeapi.ImageServiceClient
	Runtime runtimeapi.RuntimeServiceClient
	// Access has records of who pulled an image, which are pruned. May be nil.
	Access  *images.Access
	Event   func(eventtype, reason, message string) // records an Event about the node. May be nil.
	Removed func()                                  // is called after images were removed. May be nil.
	Policy  Policy                                  // DefaultPolicy if zero

	seen map[string]image // of the last reconcile
}

// Run reconciles periodically until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		if err := c.Reconcile(ctx, time.Now()); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Cannot collect unused images")
		}
	}, interval)
	return nil
}

// Reconcile observes the images and their disk once, and removes those that the plan returns.
func (c *Controller) Reconcile(ctx context.Context, now time.Time) error {
	policy := cmp.Or(c.Policy, DefaultPolicy)
	disk, err := c.observeDisk(ctx)
	if err != nil {
		return err
	}
	stored, err := c.observeImages(ctx, now)
	if err != nil {
		return err
	}
	removals, missing := plan(stored, disk, policy, now)
	err = c.remove(ctx, removals)
	if missing > 0 && c.Event != nil {
		c.Event(v1.EventTypeWarning, "FreeDiskSpaceFailed", fmt.Sprintf(
			"Removing all unused images leaves %d bytes too few free on the disk of the images; delete files or Pods",
			missing))
	}
	return errors.Join(err, c.Access.Prune(ctx, func() ([]string, error) {
		left, err := c.list(ctx)
		return lo.Map(left, func(i *runtimeapi.Image, _ int) string { return i.Id }), err
	}))
}

func (c *Controller) remove(ctx context.Context, removals []image) error {
	const reason = "the disk is filling up and no container uses the image"
	var errs []error
	for _, r := range removals {
		klog.FromContext(ctx).V(1).Info("Removing image", "image", r.ID, "bytes", r.Size, "reason", reason)
		in := &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: r.ID}}
		if _, err := c.Images.RemoveImage(ctx, in); err != nil {
			errs = append(errs, fmt.Errorf("removing image %s: %w", r.ID, err))
		}
	}
	if len(removals) > 0 && c.Removed != nil {
		c.Removed()
	}
	return errors.Join(errs...)
}

func (c *Controller) list(ctx context.Context) ([]*runtimeapi.Image, error) {
	list, err := c.Images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	return list.GetImages(), nil
}

// observeDisk gets the directory of the images from the runtime, and its use from the kernel.
func (c *Controller) observeDisk(ctx context.Context) (disk, error) {
	resp, err := c.Images.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
	if err != nil {
		return disk{}, fmt.Errorf("getting the file system of images: %w", err)
	}
	if len(resp.GetImageFilesystems()) == 0 {
		return disk{}, nil
	}
	var st unix.Statfs_t
	mountpoint := resp.ImageFilesystems[0].GetFsId().GetMountpoint()
	if err := unix.Statfs(mountpoint, &st); err != nil {
		return disk{}, fmt.Errorf("reading the use of the file system of images, %s: %w", mountpoint, err)
	}
	return disk{Capacity: int64(st.Blocks) * st.Bsize, Available: int64(st.Bavail) * st.Bsize}, nil
}

// observeImages lists the images and their use, and records when it saw them.
func (c *Controller) observeImages(ctx context.Context, now time.Time) ([]image, error) {
	list, err := c.list(ctx)
	if err != nil {
		return nil, err
	}
	containers, err := c.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return nil, fmt.Errorf("listing containers: %w", err)
	}
	used := sets.New[string]()
	for _, container := range containers.Containers {
		used.Insert(container.ImageRef, container.ImageId, container.GetImage().GetImage())
		used.Insert(strings.Split(container.Annotations[cri.AnnotationImageVolumes], ",")...)
	}
	seen := make(map[string]image, len(list))
	for _, i := range list {
		before := c.seen[i.Id]
		inUse := used.Has(i.Id) || used.HasAny(i.RepoTags...) || used.HasAny(i.RepoDigests...)
		lastUsed := lo.Ternary(inUse, now, before.LastUsed)
		seen[i.Id] = image{i.Id, int64(i.Size), i.Pinned, inUse, cmp.Or(before.FirstSeen, now), lastUsed}
	}
	c.seen = seen
	return slices.Collect(maps.Values(seen)), nil
}

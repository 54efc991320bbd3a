package node

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
)

const (
	// criTimeout bounds the calls of one observation. A runtime that hangs counts as down.
	criTimeout = 10 * time.Second
	// listImagesEvery is how often the images are listed without a Recheck.
	listImagesEvery = time.Minute
	// MaxImages is how many images the status names, each with maxNamesPerImage at most.
	MaxImages        = 50
	maxNamesPerImage = 5
)

// observe asks the runtime and measures the host. If a call fails, the state keeps the last answer;
// plan knows how old it is.
func (c *Controller) observe(ctx context.Context) state {
	now := time.Now()
	ctx, cancel := context.WithTimeout(ctx, criTimeout)
	defer cancel()
	c.observeRuntime(ctx)
	if c.listImages || now.Sub(c.imagesAt) >= listImagesEvery {
		c.observeImages(ctx, now)
		c.listImages = false
	}
	s := state{runtime: c.runtime, images: c.images, usage: idle, pressureAt: c.pressureAt}
	if c.cfg.RootDir != "" {
		s.usage = readUsage(c.cfg.RootDir)
	}
	for kind, is := range pressure(s.usage) {
		if is {
			c.pressureAt[kind] = now
		}
	}
	if c.cfg.VolumesInUse != nil {
		s.volumes = c.cfg.VolumesInUse()
	}
	return s
}

func (c *Controller) observeRuntime(ctx context.Context) {
	status, err := c.cfg.Runtime.Status(ctx, &runtimeapi.StatusRequest{})
	wasSilent := c.runtime.silent
	if c.runtime.silent = err != nil; err != nil {
		klog.FromContext(ctx).V(2).Info("The container runtime did not answer", "err", err)
		return
	}
	if c.runtime.version == "" || wasSilent { // it may have been upgraded meanwhile
		version, err := c.cfg.Runtime.Version(ctx, &runtimeapi.VersionRequest{})
		if c.runtime.silent = err != nil; err != nil {
			return
		}
		c.runtime.version = version.RuntimeName + "://" + version.RuntimeVersion
	}
	c.runtime.status.Conditions = lo.Map(status.GetStatus().GetConditions(),
		func(is *runtimeapi.RuntimeCondition, _ int) kubecontainer.RuntimeCondition {
			kind := kubecontainer.RuntimeConditionType(is.Type)
			return kubecontainer.RuntimeCondition{Type: kind, Status: is.Status, Reason: is.Reason, Message: is.Message}
		})
	c.runtime.handlers, c.runtime.features = handlersAndFeatures(status)
	c.runtime.answered = time.Now()
}

func (c *Controller) observeImages(ctx context.Context, now time.Time) {
	list, err := c.cfg.Images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		klog.FromContext(ctx).V(2).Info("The container runtime did not list its images", "err", err)
		return
	}
	c.images, c.imagesAt = largestImages(list.Images), now
}

// largestImages are for the scheduler, which prefers a node that has to pull less.
func largestImages(images []*runtimeapi.Image) []v1.ContainerImage {
	sorted := slices.SortedFunc(slices.Values(images), func(a, b *runtimeapi.Image) int {
		return cmp.Or(cmp.Compare(b.Size, a.Size), cmp.Compare(a.Id, b.Id))
	})
	return lo.Map(lo.Slice(sorted, 0, MaxImages), func(image *runtimeapi.Image, _ int) v1.ContainerImage {
		names := slices.Concat(image.RepoDigests, image.RepoTags)
		return v1.ContainerImage{Names: lo.Slice(names, 0, maxNamesPerImage), SizeBytes: int64(image.Size)}
	})
}

// handlersAndFeatures translates what the runtime can do into the API's terms, sorted: the order of
// the runtime's map is no change.
func handlersAndFeatures(s *runtimeapi.StatusResponse) ([]v1.NodeRuntimeHandler, *v1.NodeFeatures) {
	var handlers []v1.NodeRuntimeHandler
	for _, h := range s.RuntimeHandlers {
		readOnly := h.GetFeatures().GetRecursiveReadOnlyMounts()
		handlers = append(handlers, v1.NodeRuntimeHandler{Name: h.Name, Features: &v1.NodeRuntimeHandlerFeatures{
			// This agent gives no Pod a user namespace, even if the runtime could.
			RecursiveReadOnlyMounts: &readOnly, UserNamespaces: new(bool),
		}})
	}
	slices.SortFunc(handlers, func(a, b v1.NodeRuntimeHandler) int { return cmp.Compare(a.Name, b.Name) })
	if s.Features == nil {
		return handlers, nil
	}
	groups := s.Features.SupplementalGroupsPolicy
	return handlers, &v1.NodeFeatures{SupplementalGroupsPolicy: &groups}
}

package simulated

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

// imageSize in bytes and imageUser are those of every image. runAsNonRoot allows the user.
const imageSize, imageUser = 50 << 20, 65532

// imageStore has every image that was pulled. It can pull any name. It implements CRI's
// ImageService.
type imageStore struct {
	runtimeapi.ImageServiceClient // answers Unimplemented

	pods *podSource

	mu     sync.Mutex
	images map[string]*runtimeapi.Image // by ID
}

func newImageStore(pods *podSource) *imageStore {
	return &imageStore{
		ImageServiceClient: runtimeapi.NewImageServiceClient(unimplemented{}), pods: pods, images: map[string]*runtimeapi.Image{},
	}
}

// idOf returns the ID of an image: the same name is always the same image.
func idOf(name string) string {
	if strings.HasPrefix(name, "sha256:") {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// nameOf returns the name of a container's image in the Pod.
func nameOf(spec *runtimeapi.ImageSpec) string {
	return cmp.Or(spec.GetUserSpecifiedImage(), spec.GetImage())
}

func digestOf(spec *runtimeapi.ImageSpec) string {
	return repository(nameOf(spec)) + "@" + idOf(spec.GetImage())
}

// repository returns a name without tag and digest.
func repository(name string) string {
	name, _, _ = strings.Cut(name, "@")
	if colon := strings.LastIndex(name, ":"); colon > strings.LastIndex(name, "/") {
		name = name[:colon]
	}
	return name
}

// ImageStatus implements CRI. A Pod with an annotation about pull errors has no image yet.
func (s *imageStore) ImageStatus(_ context.Context, in *runtimeapi.ImageStatusRequest, _ ...grpc.CallOption) (*runtimeapi.ImageStatusResponse, error) {
	for key := range in.GetImage().GetAnnotations() {
		if strings.HasPrefix(key, Prefix+PullError) {
			return &runtimeapi.ImageStatusResponse{}, nil
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return &runtimeapi.ImageStatusResponse{Image: s.images[idOf(in.GetImage().GetImage())]}, nil
}

// PullImage implements CRI. Annotations decide about the result.
func (s *imageStore) PullImage(ctx context.Context, in *runtimeapi.PullImageRequest, _ ...grpc.CallOption) (*runtimeapi.PullImageResponse, error) {
	after, failure := s.pullOf(in)
	if after > 0 {
		select {
		case <-time.After(after):
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	if failure != "" {
		return nil, errors.New(failure)
	}
	return &runtimeapi.PullImageResponse{ImageRef: s.add(in.GetImage().GetImage())}, nil
}

// add stores an image and returns its ID.
func (s *imageStore) add(name string) string {
	image := &runtimeapi.Image{
		Id: idOf(name), RepoTags: []string{name}, RepoDigests: []string{repository(name) + "@" + idOf(name)},
		Size: imageSize, Uid: &runtimeapi.Int64Value{Value: imageUser},
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.images[image.Id] = image
	return image.Id
}

// importNeverPulled adds the images that containers of the Pod use and never pull: a Pod with the
// pull policy Never expects that an administrator has imported them.
func (s *imageStore) importNeverPulled(p *v1.Pod) {
	for c := range podutil.ContainerIter(&p.Spec, podutil.AllContainers) {
		if name := c.Image; c.ImagePullPolicy == v1.PullNever {
			if repository(name) == name {
				name += ":latest" // the agent's name
			}
			s.add(name)
		}
	}
}

// pullOf returns how long a pull takes and why it fails, by the annotations of those containers of
// the Pod that have the image. Creating the container reports errors in annotations.
func (s *imageStore) pullOf(in *runtimeapi.PullImageRequest) (after time.Duration, failure string) {
	p := s.pods.current(in.GetSandboxConfig().GetMetadata())
	if p == nil {
		return 0, ""
	}
	for c := range podutil.ContainerIter(&p.Spec, podutil.AllContainers) {
		if does, err := behaviourOf(p, c.Name); err == nil && c.Image == nameOf(in.Image) {
			after, failure = max(after, does.pullAfter), cmp.Or(failure, does.pullError)
		}
	}
	return after, failure
}

func (s *imageStore) ListImages(context.Context, *runtimeapi.ListImagesRequest, ...grpc.CallOption) (*runtimeapi.ListImagesResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	byID := func(a, b *runtimeapi.Image) int { return cmp.Compare(a.Id, b.Id) }
	return &runtimeapi.ListImagesResponse{Images: slices.SortedFunc(maps.Values(s.images), byID)}, nil
}

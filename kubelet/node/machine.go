package node

import (
	"cmp"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-base/version"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Machine describes a machine that the agent does not run on.
type Machine struct {
	// Capacity of the Node.
	Capacity v1.ResourceList
	// Addresses of the Node, reported as they are.
	Addresses []v1.NodeAddress
	// ID is unique to the machine; it is reported as machineID, systemUUID and bootID.
	ID string
	// OS and Architecture in Go's words, Kernel and Image for people.
	OS, Architecture, Kernel, Image string
}

func (m *Machine) machine() machine {
	return machine{
		machineID: m.ID, systemUUID: m.ID, boot: m.ID, kernel: m.Kernel, osImage: m.Image,
		goos: m.OS, goarch: m.Architecture, kubelet: version.Get().String(),
		resources: m.Capacity, addresses: m.Addresses,
	}
}

// topImages are the largest images, as the scheduler wants to know them: it
// prefers a node that need not pull much.
func topImages(images []*runtimeapi.Image) []v1.ContainerImage {
	sorted := slices.SortedFunc(slices.Values(images), func(a, b *runtimeapi.Image) int {
		return cmp.Or(cmp.Compare(b.Size, a.Size), cmp.Compare(a.Id, b.Id))
	})
	top := []v1.ContainerImage{}
	for _, image := range sorted[:min(len(sorted), MaxImages)] {
		names := slices.Concat(image.RepoDigests, image.RepoTags)
		top = append(top, v1.ContainerImage{
			Names: names[:min(len(names), maxNamesPerImage)], SizeBytes: int64(image.Size),
		})
	}
	return top
}

// handlersAndFeatures translates what the runtime can do into the API's terms,
// sorted, so that its map order does not look like a change.
func handlersAndFeatures(s *runtimeapi.StatusResponse) ([]v1.NodeRuntimeHandler, *v1.NodeFeatures) {
	var handlers []v1.NodeRuntimeHandler
	for _, h := range s.RuntimeHandlers {
		readOnly := h.GetFeatures().GetRecursiveReadOnlyMounts()
		handlers = append(handlers, v1.NodeRuntimeHandler{Name: h.Name, Features: &v1.NodeRuntimeHandlerFeatures{
			// No Pod gets a user namespace here, whatever the runtime could do.
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

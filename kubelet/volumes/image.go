package volumes

import "context"

// image is a volume whose content is an image. The runtime mounts it when it
// creates the container; here is nothing to do.
type image struct{}

func (image) directory() string { return "kubernetes.io~image" }

func (image) mount(context.Context, string) (result, error) {
	return result{Mounted: Mounted{Image: true, ReadOnly: true}}, nil
}

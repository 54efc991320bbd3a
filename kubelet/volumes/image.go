package volumes

import "context"

// image is a volume whose content is an image. The runtime mounts it when it creates the container.
type image struct{}

// Name implements Plugin.
func (image) Name() string { return "kubernetes.io/image" }

// CanSupport implements Plugin.
func (image) CanSupport(s Spec) bool { return s.Volume.Image != nil }

// Publish implements Plugin.
func (image) Publish(context.Context, Spec, Paths) (Published, error) {
	return Published{Mounted: Mounted{Image: true, ReadOnly: true}}, nil
}

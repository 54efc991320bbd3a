package volumes

import "context"

// image is a volume whose content is an image. The runtime mounts it when it creates the container.
type image struct{}

func (image) Name() string           { return "kubernetes.io/image" }
func (image) CanSupport(s Spec) bool { return s.Volume.Image != nil }

func (image) Publish(context.Context, Spec, Volume, Paths) (Published, error) {
	return Published{Mounted: Mounted{Image: true, ReadOnly: true}}, nil
}

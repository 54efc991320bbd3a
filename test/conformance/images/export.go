package images

import (
	"fmt"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/match"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Export writes an image that is built to a tar file, as docker save does.
func (b *Builder) Export(short, file string) error {
	ref := Catalog()[short].Ref
	path, err := layout.FromPath(filepath.Join(b.Dir, "layout"))
	if err != nil {
		return fmt.Errorf("opening the image layout: %w", err)
	}
	index, err := path.ImageIndex()
	if err != nil {
		return fmt.Errorf("reading the image layout: %w", err)
	}
	found, err := partial.FindImages(index, match.Annotation(refAnnotation, ref))
	if err != nil {
		return fmt.Errorf("looking for image %s in the layout: %w", ref, err)
	}
	if len(found) == 0 {
		return fmt.Errorf("looking for image %s in the layout: it is not there", ref)
	}
	tag, err := name.NewTag(ref)
	if err != nil {
		return fmt.Errorf("writing image %s: %w", ref, err)
	}
	if err := tarball.WriteToFile(file, tag, found[0]); err != nil {
		return fmt.Errorf("writing image %s: %w", ref, err)
	}
	return nil
}

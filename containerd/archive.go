//go:build linux

package containerd

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// content identifies an image in an archive by its manifest or, in an archive of `docker save`,
// which has none, by the image's configuration.
type content struct{ manifest, config digest.Digest }

func (c content) is(ctx context.Context, i client.Image) bool {
	if c.manifest != "" {
		return i.Target().Digest == c.manifest
	}
	config, err := i.Config(ctx)
	return err == nil && config.Digest == c.config
}

// maxIndexSize limits how much of an archive is read into memory.
const maxIndexSize = 8 << 20

// readArchive returns the images of an archive by name. It does not read the layers if the index
// comes first, as in the archives that test/images/build writes. The result is nil if an image has
// no name or the format is unknown.
func readArchive(r io.ReadSeeker) (map[string]content, error) {
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("reading the archive: %w", err)
	}
	saved, configs := map[string]string{}, map[string]digest.Digest{}
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading the archive: %w; it must be an uncompressed tar file", err)
		}
		if h.Size > maxIndexSize {
			continue
		}
		name := path.Clean(h.Name)
		switch {
		case name == ocispec.ImageIndexFile:
			return readIndex(t)
		case name == "manifest.json":
			if saved, err = readManifest(t); err != nil {
				return nil, err
			}
		case h.Typeflag == tar.TypeReg:
			d, err := digest.FromReader(t)
			if err != nil {
				return nil, fmt.Errorf("reading the archive: %w", err)
			}
			configs[name] = d
		}
	}
	found := map[string]content{}
	for name, config := range saved {
		if configs[config] == "" {
			return nil, nil
		}
		found[name] = content{config: configs[config]}
	}
	return found, nil
}

func readIndex(r io.Reader) (map[string]content, error) {
	var index ocispec.Index
	if err := json.NewDecoder(r).Decode(&index); err != nil {
		return nil, fmt.Errorf("reading the archive's index: %w", err)
	}
	found := map[string]content{}
	for _, m := range index.Manifests {
		name := m.Annotations[images.AnnotationImageName]
		if name == "" {
			name = normalize(m.Annotations[ocispec.AnnotationRefName])
		}
		if name == "" {
			return nil, nil
		}
		found[name] = content{manifest: m.Digest}
	}
	return found, nil
}

// readManifest returns the path of the configuration by image name.
func readManifest(r io.Reader) (map[string]string, error) {
	var manifests []struct {
		Config   string   `json:"Config"`
		RepoTags []string `json:"RepoTags"`
	}
	if err := json.NewDecoder(r).Decode(&manifests); err != nil {
		return nil, fmt.Errorf("reading the archive's manifest: %w", err)
	}
	found := map[string]string{}
	for _, m := range manifests {
		for _, tag := range m.RepoTags {
			if name := normalize(tag); name != "" {
				found[name] = path.Clean(m.Config)
			}
		}
	}
	return found, nil
}

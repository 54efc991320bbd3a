package images

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// WriteFile writes an image as an OCI layout in a tar file, which `flyball image import`, `ctr image import` and
// `docker load` read. The file is replaced at once or not at all.
func WriteFile(path string, tag name.Tag, img v1.Image) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("writing image archive: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".image-")
	if err != nil {
		return fmt.Errorf("writing image archive: %w", err)
	}
	defer func() {
		_ = f.Close()
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if err := Write(f, tag, img); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return fmt.Errorf("writing image archive: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("writing image archive: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("writing image archive: %w", err)
	}
	return nil
}

// Write writes an image as an OCI layout in a tar stream. The index comes first: who only wants to know whether the image
// is already there need not read on.
func Write(w io.Writer, tag name.Tag, img v1.Image) error {
	fail := func(err error) error { return fmt.Errorf("writing image %s: %w", tag, err) }
	manifest, err := img.RawManifest()
	if err != nil {
		return fail(err)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return fail(err)
	}
	digest, err := img.Digest()
	if err != nil {
		return fail(err)
	}
	configDigest, err := img.ConfigName()
	if err != nil {
		return fail(err)
	}
	// What go-containerregistry calls the server, not the name.
	ref := strings.Replace(tag.Name(), name.DefaultRegistry+"/", "docker.io/", 1)
	index, err := json.Marshal(v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.OCIImageIndex,
		Manifests: []v1.Descriptor{{
			MediaType: types.OCIManifestSchema1, Digest: digest, Size: int64(len(manifest)),
			Annotations: map[string]string{"io.containerd.image.name": ref, "org.opencontainers.image.ref.name": tag.TagStr()},
		}},
	})
	if err != nil {
		return fail(err)
	}
	t := tar.NewWriter(w)
	blob := func(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }
	for _, file := range []struct {
		name string
		body []byte
	}{{"index.json", index}, {"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)}, {blob(digest), manifest}, {blob(configDigest), config}} {
		if err := writeHeader(t, file.name, int64(len(file.body))); err != nil {
			return fail(err)
		}
		if _, err := t.Write(file.body); err != nil {
			return fail(err)
		}
	}
	layers, err := img.Layers()
	if err != nil {
		return fail(err)
	}
	for _, l := range layers {
		if err := writeLayer(t, blob, l); err != nil {
			return fail(err)
		}
	}
	if err := t.Close(); err != nil {
		return fail(err)
	}
	return nil
}

func writeLayer(t *tar.Writer, blob func(v1.Hash) string, l v1.Layer) error {
	digest, err := l.Digest()
	if err != nil {
		return err
	}
	size, err := l.Size()
	if err != nil {
		return err
	}
	body, err := l.Compressed() // as the manifest has it, compressed or not
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if err := writeHeader(t, blob(digest), size); err != nil {
		return err
	}
	_, err = io.Copy(t, body)
	return err
}

func writeHeader(t *tar.Writer, name string, size int64) error {
	return t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0)})
}

package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// TestImage: the archive is an OCI layout that holds one valid image per platform, and comes out the same each time.
func TestImage(t *testing.T) {
	dir := t.TempDir()
	var programs []string
	for platform, content := range map[string]string{"linux/amd64": "one", "linux/arm64": "other"} {
		file := filepath.Join(dir, content)
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		programs = append(programs, platform+"="+file)
	}
	first, second := filepath.Join(dir, "1.tar"), filepath.Join(dir, "2.tar")
	for _, out := range []string{first, second} {
		if err := run("flyball.dev/flyball:test", out, false, programs); err != nil {
			t.Fatal(err)
		}
	}
	a, errA := os.ReadFile(first)
	b, errB := os.ReadFile(second)
	if errA != nil || errB != nil || !bytes.Equal(a, b) {
		t.Error("two builds of the same programs differ: ", errA, errB)
	}
	unpacked := filepath.Join(dir, "layout")
	unpack(t, a, unpacked)
	outer, err := layout.ImageIndexFromPath(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := outer.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 {
		t.Fatal(manifest, err)
	}
	if got := manifest.Manifests[0].Annotations["io.containerd.image.name"]; got != "flyball.dev/flyball:test" {
		t.Errorf("the image is called %q", got)
	}
	index, err := outer.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	if manifest, err = index.IndexManifest(); err != nil || len(manifest.Manifests) != 2 {
		t.Fatal(manifest, err)
	}
	for _, m := range manifest.Manifests {
		image, err := index.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		whole(t, image)
		config, err := image.ConfigFile()
		if err != nil || config.Architecture != m.Platform.Architecture || config.Config.User != user {
			t.Errorf("%s: config %+v, %v", m.Platform, config, err)
		}
	}
}

// whole checks that the image's one layer is an archive of the program alone, with an end.
func whole(t *testing.T, image v1.Image) {
	t.Helper()
	layers, err := image.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatal(layers, err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	data, err := io.ReadAll(content)
	if err != nil {
		t.Fatal(err)
	}
	const block = 512
	if end := make([]byte, 2*block); len(data)%block != 0 || !bytes.HasSuffix(data, end) {
		t.Errorf("the layer has %d bytes and no end", len(data))
	}
	header, err := tar.NewReader(bytes.NewReader(data)).Next()
	if err != nil || header.Name != program || header.Mode != 0o755 {
		t.Error(header, err)
	}
}

func TestImageOfNonsense(t *testing.T) {
	for _, programs := range [][]string{{"linux/amd64"}, {"linux/amd64=/does/not/exist"}} {
		if err := run("flyball.dev/flyball:test", "", false, programs); err == nil {
			t.Errorf("%v: no error", programs)
		}
	}
}

func unpack(t *testing.T, archive []byte, dir string) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, header.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

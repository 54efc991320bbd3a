// Command image puts programs for several platforms into one container image, without Docker, and writes it as an OCI
// layout in a tar file, or pushes it to a registry.
//
//	image -ref flyball.dev/flyball:1 -out flyball.tar linux/amd64=bin/linux-amd64/flyball linux/arm64=…
//
// The same programs give the same image. It runs as nobody in particular, with nothing but the program in it.
package main

import (
	"archive/tar"
	"bytes"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	program = "flyball"
	user    = "65532:65532"
)

func main() {
	ref := flag.String("ref", "flyball.dev/flyball:latest", "name of the image")
	out := flag.String("out", "", "tar file to write")
	push := flag.Bool("push", false, "push the image to its registry, with Docker's credentials")
	flag.Parse()
	if err := run(*ref, *out, *push, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(ref, out string, push bool, programs []string) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return fmt.Errorf("reading -ref: %w", err)
	}
	index, err := build(programs)
	if err != nil {
		return err
	}
	if out != "" {
		if err := write(out, tag, index); err != nil {
			return fmt.Errorf("writing %s: %w", out, err)
		}
	}
	if push {
		if err := remote.WriteIndex(tag, index, remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
			return fmt.Errorf("pushing %s: %w", tag, err)
		}
	}
	return nil
}

// build makes an index of one image per OS/ARCH=FILE.
func build(programs []string) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, p := range programs {
		spec, file, ok := strings.Cut(p, "=")
		platform, err := v1.ParsePlatform(spec)
		if !ok || err != nil {
			return nil, fmt.Errorf("reading %q: write OS/ARCH=FILE", p)
		}
		image, err := imageOf(*platform, file)
		if err != nil {
			return nil, fmt.Errorf("building the image for %s: %w", platform, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: platform}})
	}
	return index, nil
}

func imageOf(platform v1.Platform, file string) (v1.Image, error) {
	content, err := layer(file)
	if err != nil {
		return nil, err
	}
	packed, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if image, err = mutate.Append(image, mutate.Addendum{Layer: packed, History: v1.History{CreatedBy: "flyball.dev/hack/image"}}); err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = platform.OS, platform.Architecture
	config.Config = v1.Config{Entrypoint: []string{"/" + program}, User: user}
	return mutate.ConfigFile(image, config)
}

// layer is a tar file with the program in it, the same for the same program.
func layer(file string) ([]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	header := &tar.Header{Typeflag: tar.TypeReg, Name: program, Mode: 0o755, Size: int64(len(data)), ModTime: time.Unix(0, 0)}
	if err := w.WriteHeader(header); err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil { // it writes the end of the archive
		return nil, err
	}
	return buffer.Bytes(), nil
}

// write writes an index as an OCI layout in a tar file, under the name that containerd and Docker look for.
func write(out string, tag name.Tag, index v1.ImageIndex) error {
	dir, err := os.MkdirTemp(filepath.Dir(out), ".image-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	names := map[string]string{"io.containerd.image.name": tag.Name(), "org.opencontainers.image.ref.name": tag.TagStr()}
	if err := path.AppendIndex(index, layout.WithAnnotations(names)); err != nil {
		return err
	}
	file, err := os.Create(out)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	w := tar.NewWriter(file)
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path) //nolint:gosec // a directory that we have just made
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		header := &tar.Header{Typeflag: tar.TypeReg, Name: filepath.ToSlash(relative), Mode: 0o644, Size: int64(len(data)), ModTime: time.Unix(0, 0)}
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
	if err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return file.Close()
}

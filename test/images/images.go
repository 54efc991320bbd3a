// Package images builds the container images of this repository from their Go source, without Docker: the pause image and
// the sample web server, which Flyball carries with it, and the toolbox of the end-to-end tests. It also serves images
// from a registry on loopback, so that tests pull for real.
//
// The folders beside this file are the programs; build/ is the command that `make` uses.
package images

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// source is an image of ours: one static program, and what it needs around it.
type source struct {
	ref     string
	program string            // where the program lies in the image
	links   []string          // other names of the program
	files   map[string]string // further files, by path
	config  v1.Config
}

// sources are the images by name, which is also the name of the folder with the program.
func sources() map[string]source {
	return map[string]source{
		"pause": {
			ref: "flyball.dev/pause:1", program: "pause",
			// Every Pod runs one: a single thread's worth of Go runtime is enough. Nobody's, not root's.
			config: v1.Config{Entrypoint: []string{"/pause"}, User: "65535:65535", Env: []string{"GOMAXPROCS=1", "GOGC=off"}},
		},
		"hello": {
			ref: "flyball.dev/hello:1", program: "hello",
			config: v1.Config{Entrypoint: []string{"/hello"}, User: "65532:65532", ExposedPorts: map[string]struct{}{"8080/tcp": {}}},
		},
		"toolbox": {
			ref: "flyball.dev/toolbox:1", program: "bin/toolbox",
			links: []string{"cat", "dial", "echo", "env", "exit", "false", "host", "hostname", "id", "lines", "ls", "memory", "rm", "serve", "sleep", "tar", "test", "true", "write"},
			files: map[string]string{
				"etc/passwd": "root:x:0:0:root:/root:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n",
				"etc/group":  "root:x:0:\nnobody:x:65534:\n",
			},
			config: v1.Config{Entrypoint: []string{"/bin/toolbox"}, Env: []string{"PATH=/bin"}, WorkingDir: "/"},
		},
	}
}

// Names returns the names that Build knows.
func Names() []string { return slices.Sorted(maps.Keys(sources())) }

// Ref returns the reference under which an image is known, such as flyball.dev/pause:1.
func Ref(image string) string { return sources()[image].ref }

// Build compiles an image's program with the go command and returns the image and its reference. The same source and Go
// version give the same digest. It must run inside this module.
func Build(ctx context.Context, image string) (name.Tag, v1.Image, error) {
	s, ok := sources()[image]
	if !ok {
		return name.Tag{}, nil, fmt.Errorf("building image %q: there is no such image, only %v", image, Names())
	}
	program, err := compile(ctx, "flyball.dev/test/images/"+image)
	if err != nil {
		return name.Tag{}, nil, fmt.Errorf("building image %s: %w", image, err)
	}
	return assemble(s, program)
}

func assemble(s source, program []byte) (name.Tag, v1.Image, error) {
	fail := func(err error) (name.Tag, v1.Image, error) {
		return name.Tag{}, nil, fmt.Errorf("assembling image %s: %w", s.ref, err)
	}
	tag, err := name.NewTag(s.ref, name.StrictValidation)
	if err != nil {
		return fail(err)
	}
	layer, err := s.layer(program)
	if err != nil {
		return fail(err)
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	// Uncompressed: the archives lie beside the binary, and unpacking them is on the way of the first start.
	img, err = mutate.Append(img, mutate.Addendum{Layer: static.NewLayer(layer, types.OCIUncompressedLayer), History: v1.History{CreatedBy: "flyball.dev/test/images"}})
	if err != nil {
		return fail(err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		return fail(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", runtime.GOARCH, s.config
	if img, err = mutate.ConfigFile(img, file); err != nil {
		return fail(err)
	}
	return tag, img, nil
}

// layer returns the tar file of the image's content, the same for the same content.
func (s source) layer(program []byte) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	add := func(h tar.Header, body []byte) error {
		h.ModTime, h.Size, h.Format = time.Unix(0, 0), int64(len(body)), tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			return err
		}
		_, err := w.Write(body)
		return err
	}
	dirs := map[string]fs.FileMode{"tmp/": 0o1777}
	for _, path := range append(slices.Collect(maps.Keys(s.files)), s.program) {
		for dir := filepath.Dir(path); dir != "."; dir = filepath.Dir(dir) {
			dirs[dir+"/"] = 0o755
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(dirs)) {
		if err := add(tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: int64(dirs[dir])}, nil); err != nil {
			return nil, err
		}
	}
	for _, path := range slices.Sorted(maps.Keys(s.files)) {
		if err := add(tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o644}, []byte(s.files[path])); err != nil {
			return nil, err
		}
	}
	if err := add(tar.Header{Typeflag: tar.TypeReg, Name: s.program, Mode: 0o755}, program); err != nil {
		return nil, err
	}
	for _, link := range s.links {
		h := tar.Header{Typeflag: tar.TypeSymlink, Name: filepath.Join(filepath.Dir(s.program), link), Linkname: filepath.Base(s.program), Mode: 0o777}
		if err := add(h, nil); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// compile builds a static Linux program and returns it.
func compile(ctx context.Context, pkg string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "flyball-image-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	out := filepath.Join(dir, "program")
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if output, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compiling %s: %w\n%s", pkg, err, output)
	}
	return os.ReadFile(out)
}

package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/match"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Annotations of the layout's index: the reference of an image, and what it was built from.
const (
	refAnnotation = "org.opencontainers.image.ref.name"
	keyAnnotation = "dev.flyball.conformance.key"
	format        = "3" // to be raised when the builder makes something else of the same Spec
)

// Builder builds the images of the catalog. It must run inside the module of the conformance suite.
type Builder struct {
	// Root is the root of the repository, for programs of flyball.dev itself.
	Root string
	// Dir keeps the images, as an OCI layout, and the packages and programs that they are made of.
	Dir string
	// Progress is told each step.
	Progress func(step string)

	shell  v1.Layer
	layers map[string][]v1.Layer
}

// Build builds the images of these short names, if they are not built yet. It returns an error for each that failed, joined,
// after the others are built.
func (b *Builder) Build(ctx context.Context, names ...string) error {
	b.layers = map[string][]v1.Layer{}
	path, err := openLayout(filepath.Join(b.Dir, "layout"))
	if err != nil {
		return fmt.Errorf("opening the image layout: %w", err)
	}
	have, err := keys(path)
	if err != nil {
		return fmt.Errorf("reading the image layout: %w", err)
	}
	modules, err := os.ReadFile("go.mod")
	if err != nil {
		return fmt.Errorf("reading the module's versions: %w", err)
	}
	others, err := os.ReadFile("images/sidecars/go.mod")
	if err != nil {
		return fmt.Errorf("reading the versions of the sidecars: %w", err)
	}
	var failed error
	for _, name := range names {
		spec, ok := Catalog()[name]
		if !ok {
			failed = errors.Join(failed, fmt.Errorf("building image %s: there is none of that name", name))
			continue
		}
		k := key(spec, modules, others)
		if have[spec.Ref] == k {
			continue
		}
		b.Progress("image " + spec.Ref)
		if err := b.one(ctx, path, name, k); err != nil {
			failed = errors.Join(failed, fmt.Errorf("building image %s: %w", spec.Ref, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(failed, sweep(path))
}

// sweep removes the layers of images that were replaced.
func sweep(path layout.Path) error {
	unused, err := path.GarbageCollect()
	if err != nil {
		return fmt.Errorf("sweeping the image layout: %w", err)
	}
	for _, h := range unused {
		if err := path.RemoveBlob(h); err != nil {
			return fmt.Errorf("sweeping the image layout: %w", err)
		}
	}
	return nil
}

func (b *Builder) one(ctx context.Context, path layout.Path, name, key string) error {
	spec := Catalog()[name]
	img, err := b.image(ctx, name)
	if err != nil {
		return err
	}
	return path.ReplaceImage(img, match.Annotation(refAnnotation, spec.Ref),
		layout.WithAnnotations(map[string]string{refAnnotation: spec.Ref, keyAnnotation: key}))
}

func (b *Builder) image(ctx context.Context, name string) (v1.Image, error) {
	spec := Catalog()[name]
	layers, err := b.stack(ctx, name)
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, l := range layers {
		if img, err = mutate.Append(img, mutate.Addendum{Layer: l, History: v1.History{CreatedBy: "flyball.dev/test/conformance"}}); err != nil {
			return nil, err
		}
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", runtime.GOARCH, spec.Config
	// Two references with one content would be one image to the runtime, and tests that update an image see nothing change.
	file.Config.Labels = map[string]string{refAnnotation: spec.Ref}
	if len(file.Config.Env) == 0 && !spec.Bare {
		file.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	}
	return mutate.ConfigFile(img, file)
}

// stack returns the layers of an image, those of its base first.
func (b *Builder) stack(ctx context.Context, name string) ([]v1.Layer, error) {
	if l, ok := b.layers[name]; ok {
		return l, nil
	}
	spec := Catalog()[name]
	var layers []v1.Layer
	switch {
	case spec.Base != "":
		base, err := b.stack(ctx, spec.Base)
		if err != nil {
			return nil, err
		}
		layers = append(layers, base...)
	case !spec.Bare:
		shell, err := b.shellLayer(ctx)
		if err != nil {
			return nil, err
		}
		layers = append(layers, shell)
	}
	if len(spec.Packages) > 0 {
		t := tree{}
		if err := b.debian().unpack(ctx, t, spec.Packages); err != nil {
			return nil, err
		}
		l, err := t.layer()
		if err != nil {
			return nil, err
		}
		layers = append(layers, l)
	}
	t, err := b.own(ctx, spec)
	if err != nil {
		return nil, err
	}
	if len(t) > 0 {
		l, err := t.layer()
		if err != nil {
			return nil, err
		}
		layers = append(layers, l)
	}
	b.layers[name] = layers
	return layers, nil
}

func (b *Builder) debian() debian { return debian{dir: filepath.Join(b.Dir, "debian")} }

func (b *Builder) shellLayer(ctx context.Context) (v1.Layer, error) {
	if b.shell != nil {
		return b.shell, nil
	}
	t, err := b.debian().busybox(ctx)
	if err != nil {
		return nil, err
	}
	b.shell, err = t.layer()
	return b.shell, err
}

// own returns what is in an image besides packages.
func (b *Builder) own(ctx context.Context, spec Spec) (tree, error) {
	t := tree{}
	for path, body := range spec.Files {
		t.file(path, 0o644, []byte(body))
	}
	for path, target := range spec.Links {
		t.link(path, target)
	}
	for path, source := range spec.ModuleFiles {
		body, err := b.moduleFile(ctx, source)
		if err != nil {
			return nil, err
		}
		t.file(path, 0o644, body)
	}
	for path, pkg := range spec.Programs {
		body, err := b.compile(ctx, pkg)
		if err != nil {
			return nil, err
		}
		t.file(path, 0o755, body)
	}
	for _, path := range spec.Setuid {
		f := t[place(path)]
		f.header.Mode |= 0o6000
		t[place(path)] = f
	}
	return t, nil
}

func (b *Builder) moduleFile(ctx context.Context, path string) ([]byte, error) {
	dir, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes").Output()
	if err != nil {
		return nil, fmt.Errorf("looking for the sources of k8s.io/kubernetes: %w", err)
	}
	return os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), path))
}

// compile builds a static program and returns it. Packages of flyball.dev are built in its own module, and CSI sidecars in
// one with the versions of Kubernetes that they are released with.
func (b *Builder) compile(ctx context.Context, pkg string) ([]byte, error) {
	dir := filepath.Join(b.Dir, "programs")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	out := filepath.Join(dir, strings.ReplaceAll(pkg, "/", "_"))
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, pkg)
	if strings.HasPrefix(pkg, "flyball.dev/") && !strings.HasPrefix(pkg, "flyball.dev/test/conformance/") {
		cmd.Dir = b.Root
	}
	if strings.HasPrefix(pkg, sidecars) {
		cmd.Dir = "images/sidecars"
	}
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOWORK=off")
	if output, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compiling %s: %w\n%s", pkg, err, output)
	}
	return os.ReadFile(out)
}

// key changes whenever an image has to be built again.
func key(spec Spec, modules, sidecarModules []byte) string {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%s %s %#v", format, runtime.GOARCH, spec) // fmt prints maps in the order of their keys
	if len(spec.Programs)+len(spec.ModuleFiles) > 0 || spec.Base != "" {
		if isSidecar(spec) {
			modules = sidecarModules
		}
		_, _ = h.Write(modules)
	}
	for _, pkg := range slices.Sorted(maps.Values(spec.Programs)) {
		if dir, ok := strings.CutPrefix(pkg, ours); ok {
			files, _ := filepath.Glob(filepath.Join("images", dir, "*.go"))
			for _, file := range files {
				body, _ := os.ReadFile(file) // what cannot be read does not compile either
				_, _ = h.Write(body)
			}
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

func openLayout(dir string) (layout.Path, error) {
	path, err := layout.FromPath(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return layout.Write(dir, empty.Index)
	}
	return path, err
}

func keys(path layout.Path) (map[string]string, error) {
	index, err := path.ImageIndex()
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	m := map[string]string{}
	for _, d := range manifest.Manifests {
		m[d.Annotations[refAnnotation]] = d.Annotations[keyAnnotation]
	}
	return m, nil
}

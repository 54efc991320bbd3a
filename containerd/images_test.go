//go:build linux

package containerd

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	digest "github.com/opencontainers/go-digest"

	"flyball.dev/test/images"
)

// sample returns an image that no program can be started from, but everything else be done with.
func sample(t *testing.T) v1.Image {
	t.Helper()
	layer, err := random.Layer(1024, "application/vnd.docker.image.rootfs.diff.tar.gzip")
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, file); err != nil {
		t.Fatal(err)
	}
	return img
}

func archives(t *testing.T, ref string, img v1.Image) map[string]*bytes.Reader {
	t.Helper()
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	var layout, docker bytes.Buffer
	if err := images.Write(&layout, tag, img); err != nil {
		t.Fatal(err)
	}
	if err := tarball.Write(tag, img, &docker); err != nil {
		t.Fatal(err)
	}
	return map[string]*bytes.Reader{"OCI layout": bytes.NewReader(layout.Bytes()), "docker save": bytes.NewReader(docker.Bytes())}
}

func TestReadArchive(t *testing.T) {
	img := sample(t)
	manifest, _ := img.Digest()
	config, _ := img.ConfigName()
	want := map[string]map[string]content{
		"OCI layout":  {"example.com/team/app:1": {manifest: digest.Digest(manifest.String())}},
		"docker save": {"example.com/team/app:1": {config: digest.Digest(config.String())}},
	}
	for format, archive := range archives(t, "example.com/team/app:1", img) {
		got, err := readArchive(archive)
		if err != nil {
			t.Errorf("%s: %v", format, err)
		}
		if diff := cmp.Diff(want[format], got, cmp.AllowUnexported(content{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: -want +got\n%s", format, diff)
		}
	}
	if _, err := readArchive(strings.NewReader("no tar file, but long enough for one block" + strings.Repeat(".", 512))); err == nil {
		t.Error("an archive that is none gives no error")
	}
}

func TestNormalize(t *testing.T) {
	for given, want := range map[string]string{
		"example.com/app:1": "example.com/app:1",
		"app:1":             "docker.io/library/app:1",
		"latest":            "", // the tag of an OCI layout, not a name
		"1":                 "",
		"Bad Name":          "",
	} {
		if got := normalize(given); got != want {
			t.Errorf("%q becomes %q, want %q", given, got, want)
		}
	}
}

// TestImages imports both formats and pulls from a registry on loopback, with one containerd.
func TestImages(t *testing.T) {
	c := newTestConfig(t)
	if _, err := ListImages(context.Background(), c.Socket); err == nil || !strings.Contains(err.Error(), "flyball up") {
		t.Errorf("listing without containerd: %v, want what to do", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	running := c
	running.Ready = func() { close(ready) }
	go func() { done <- Run(ctx, running) }()
	defer func() { cancel(); <-done }()
	select {
	case <-ready:
	case err := <-done:
		done <- err
		t.Fatal(err)
	}

	ids := map[string]bool{}
	for _, ref := range []string{"example.com/a:1", "b:1"} {
		img := sample(t)
		for format, archive := range archives(t, ref, img) {
			for range 2 {
				if _, err := load(ctx, c.Socket, archive, false); err != nil {
					t.Fatalf("importing %s (%s): %v", ref, format, err)
				}
			}
		}
		id, _ := img.ConfigName()
		ids[id.String()] = true
	}
	// One that is there already gets its pin all the same.
	bundled := archives(t, "example.com/a:2", sample(t))["OCI layout"]
	for _, pinned := range []bool{false, true, true, false} {
		names, err := load(ctx, c.Socket, bundled, pinned)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"example.com/a:2"}, names); diff != "" {
			t.Errorf("names -want +got:\n%s", diff)
		}
	}
	if _, err := load(ctx, c.Socket, strings.NewReader("no archive"), false); err == nil {
		t.Error("importing no archive gives no error")
	}

	registry, err := images.NewRegistry("", "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = registry.Close() }()
	pulled := sample(t)
	ref, err := registry.Push("team/app:2", pulled)
	if err != nil {
		t.Fatal(err)
	}
	id, err := PullImage(ctx, c.Socket, ref)
	if err != nil {
		t.Fatal(err)
	}
	if want, _ := pulled.ConfigName(); id != want.String() {
		t.Errorf("pulled %s, want %s", id, want)
	}
	ids[id] = true
	if _, err := PullImage(ctx, c.Socket, registry.Host+"/team/none:1"); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("pulling what is not there: %v", err)
	}

	list, err := ListImages(ctx, c.Socket)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		if i.Pinned != slices.Contains(i.Tags, "example.com/a:2") {
			t.Errorf("pinned is %t of %v", i.Pinned, i.Tags)
		}
		if i.Pinned {
			continue
		}
		if !ids[i.ID] || len(i.Tags) != 1 {
			t.Errorf("unexpected image %+v", i)
		}
		delete(ids, i.ID)
	}
	if len(ids) > 0 {
		t.Errorf("not listed: %v", ids)
	}
}

package images

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"net/http"
	"os/exec"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func build(t *testing.T, image string) (name.Tag, v1.Image) {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("building an image needs the go command")
	}
	tag, img, err := Build(context.Background(), image)
	if err != nil {
		t.Fatal(err)
	}
	return tag, img
}

func TestBuild(t *testing.T) {
	for _, image := range Names() {
		t.Run(image, func(t *testing.T) {
			tag, img := build(t, image)
			if tag.Name() != Ref(image) {
				t.Errorf("the image is called %s, want %s", tag.Name(), Ref(image))
			}
			if err := validate.Image(img, validate.Fast); err != nil { // the slow way insists on gzip
				t.Error(err)
			}
			var first, second bytes.Buffer
			_, again := build(t, image)
			for w, i := range map[*bytes.Buffer]v1.Image{&first: img, &second: again} {
				if err := Write(w, tag, i); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(first.Bytes(), second.Bytes()) {
				t.Error("two builds of the same source differ")
			}
			if h, err := tar.NewReader(&first).Next(); err != nil || h.Name != "index.json" {
				t.Errorf("the archive begins with %v (%v), want index.json", h, err)
			}
			checkFiles(t, img, sources()[image])
		})
	}
}

func checkFiles(t *testing.T, img v1.Image, s source) {
	t.Helper()
	content := mutate.Extract(img)
	defer func() { _ = content.Close() }()
	found := map[string]bool{}
	for r := tar.NewReader(content); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		found[h.Name] = true
	}
	for _, want := range []string{s.program, "tmp"} {
		if !found[want] {
			t.Errorf("%s is not in the image, only %v", want, found)
		}
	}
}

func TestRegistry(t *testing.T) {
	_, img := build(t, "pause")
	r, err := NewRegistry("user", "secret")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	ref, err := r.Push("team/pause:1", img)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	for reason, tc := range map[string]struct {
		auth authn.Authenticator
		down bool
		ok   bool
	}{
		"the right secret":  {auth: &authn.Basic{Username: "user", Password: "secret"}, ok: true},
		"a wrong secret":    {auth: &authn.Basic{Username: "user", Password: "wrong"}},
		"no secret":         {auth: authn.Anonymous},
		"the registry down": {auth: &authn.Basic{Username: "user", Password: "secret"}, down: true},
	} {
		r.SetDown(tc.down)
		_, err := remote.Head(tag, remote.WithAuth(tc.auth), remote.WithRetryStatusCodes(http.StatusTeapot))
		if (err == nil) != tc.ok {
			t.Errorf("with %s: %v", reason, err)
		}
	}
	if r.Requests() == 0 {
		t.Error("no request was counted")
	}
}

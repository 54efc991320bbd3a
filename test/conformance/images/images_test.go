package images

import (
	"archive/tar"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"sigs.k8s.io/yaml"
)

func TestCatalog(t *testing.T) {
	names, catalog := Names(true), Catalog()
	seen := map[string]string{}
	for i, n := range names {
		s := catalog[n]
		if other, ok := seen[s.Ref]; ok {
			t.Errorf("%s and %s are both %s", n, other, s.Ref)
		}
		seen[s.Ref] = n
		if s.Base != "" && slices.Index(names, s.Base) > i {
			t.Errorf("%s is built before its base %s", n, s.Base)
		}
	}
	if slices.ContainsFunc(Names(false), func(n string) bool { return isSidecar(catalog[n]) }) {
		t.Error("sidecars are built though no test needs them")
	}
	for _, u := range Missing() {
		if u.Why == "" || u.Costs == "" {
			t.Errorf("%s is not built, and nothing says why, or what that costs", u.Ref)
		}
	}
}

func TestLayer(t *testing.T) {
	tr := tree{}
	tr.file("bin/sh", 0o755, []byte("x"))
	tr.file("usr/share/doc/sh/README", 0o644, nil)
	tr.dir("bin", 0o755)
	tr.add(tar.Header{Typeflag: tar.TypeLink, Name: "./bin/ash", Linkname: "./bin/sh"}, nil)
	l, err := tr.layer()
	if err != nil {
		t.Fatal(err)
	}
	r, err := l.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, strings.TrimSuffix(h.Name+" "+h.Linkname, " "))
	}
	// bin is a link into usr, documentation is left out, and a hard link comes behind what it points to.
	if diff := cmp.Diff([]string{"usr/", "usr/bin/", "usr/bin/sh", "usr/bin/ash usr/bin/sh"}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestRegistry(t *testing.T) {
	dir := t.TempDir()
	path, err := openLayout(filepath.Join(dir, "layout"))
	if err != nil {
		t.Fatal(err)
	}
	img, err := random.Image(1000, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := path.AppendImage(img, layout.WithAnnotations(map[string]string{refAnnotation: "registry.k8s.io/some/thing:1"})); err != nil {
		t.Fatal(err)
	}
	r, err := Serve(dir, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	host := r.Host()
	for _, ref := range []string{"/some/thing:1", "/some/thing@" + digest(t, img)} {
		parsed, err := name.ParseReference(host+ref, name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		got, err := remote.Image(parsed)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Image(got); err != nil {
			t.Error(err)
		}
	}
	for _, ref := range []string{"/some/thing:2", "/other:1"} {
		parsed, err := name.ParseReference(host+ref, name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := remote.Image(parsed); err == nil || !strings.Contains(err.Error(), "MANIFEST_UNKNOWN") {
			t.Errorf("%s: %v, want MANIFEST_UNKNOWN", ref, err)
		}
	}
}

func digest(t *testing.T, img v1.Image) string {
	t.Helper()
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

func TestRepoList(t *testing.T) {
	body, err := RepoList("host:1")
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]string
	if err := yaml.Unmarshal(body, &m); err != nil {
		t.Fatal(err)
	}
	// What is mapped must be what the registry serves the image under: the original's path below the host.
	if diff := cmp.Diff("host:1/e2e-test-images", m["promoterE2eRegistry"]); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

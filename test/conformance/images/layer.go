package images

import (
	"archive/tar"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// merged are the top directories that are links into usr, as on every current distribution. What a package puts into one
// of them lies in usr then.
var merged = []string{"bin", "lib", "lib64", "sbin"}

// unwanted are directories of Debian packages that no test reads.
var unwanted = []string{"usr/share/bash-completion/", "usr/share/doc/", "usr/share/info/", "usr/share/lintian/", "usr/share/locale/", "usr/share/man/"}

type file struct {
	header tar.Header
	body   []byte
}

// tree is the content of a layer, by path without a leading slash.
type tree map[string]file

func (t tree) add(h tar.Header, body []byte) {
	h.Name = place(h.Name)
	if h.Name == "" || slices.Contains(merged, h.Name) {
		return
	}
	if slices.ContainsFunc(unwanted, func(dir string) bool { return strings.HasPrefix(h.Name+"/", dir) }) {
		return
	}
	if h.Typeflag == tar.TypeLink {
		h.Linkname = place(h.Linkname)
	}
	t[h.Name] = file{h, body}
}

func (t tree) file(name string, mode int64, body []byte) {
	t.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, body)
}

func (t tree) dir(name string, mode int64) {
	t.add(tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}, nil)
}

func (t tree) link(name, target string) {
	t.add(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, nil)
}

// place returns where a path lies once bin, lib and sbin are links into usr.
func place(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	top, rest, below := strings.Cut(name, "/")
	if below && slices.Contains(merged, top) {
		return "usr/" + top + "/" + rest
	}
	return name
}

// unpack adds what is in a tar stream.
func (t tree) unpack(r io.Reader) error {
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		body, err := io.ReadAll(in)
		if err != nil {
			return err
		}
		t.add(*h, body)
	}
}

// order puts directories above what is in them, and hard links behind what they point to.
func order(a, b file) int {
	rank := func(f file) int {
		if f.header.Typeflag == tar.TypeLink {
			return 1
		}
		return 0
	}
	return cmp.Or(rank(a)-rank(b), strings.Compare(a.header.Name, b.header.Name))
}

// layer returns the tree as a layer, the same for the same content. It is not compressed: it travels over loopback.
func (t tree) layer() (v1.Layer, error) {
	for name := range maps.Clone(t) {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, ok := t[dir]; !ok {
				t.dir(dir, 0o755)
			}
		}
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range slices.SortedFunc(maps.Values(t), order) {
		h := f.header
		h.ModTime, h.AccessTime, h.ChangeTime = time.Unix(0, 0), time.Time{}, time.Time{}
		h.Size, h.Format, h.PAXRecords = int64(len(f.body)), tar.FormatPAX, nil
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		if err := w.WriteHeader(&h); err != nil {
			return nil, fmt.Errorf("writing %s: %w", h.Name, err)
		}
		if _, err := w.Write(f.body); err != nil {
			return nil, fmt.Errorf("writing %s: %w", h.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return static.NewLayer(buf.Bytes(), types.OCIUncompressedLayer), nil
}

func symlink(name, target string) file {
	return file{header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

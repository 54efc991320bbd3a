//go:build linux

package volumes

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
)

func TestHostPath(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "socket")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		reason string
		path   string
		kind   v1.HostPathType
		err    string
	}{
		"Unset":          {reason: "nothing is checked", path: dir + "/none", kind: v1.HostPathUnset},
		"Directory":      {reason: "it is one", path: dir, kind: v1.HostPathDirectory},
		"Link":           {reason: "links are followed", path: link, kind: v1.HostPathDirectory},
		"NoDirectory":    {reason: "a file is none", path: file, kind: v1.HostPathDirectory, err: "hostPath type check failed: " + file + " is not a directory, it's a File"},
		"MissingDir":     {reason: "nothing is none either", path: dir + "/none", kind: v1.HostPathDirectory, err: "does not exist"},
		"MakeDirectory":  {reason: "it is made, parents included", path: dir + "/a/b", kind: v1.HostPathDirectoryOrCreate},
		"MakeFile":       {reason: "it is made", path: dir + "/f", kind: v1.HostPathFileOrCreate},
		"MakeFileNoDir":  {reason: "but not its directory", path: dir + "/x/f", kind: v1.HostPathFileOrCreate, err: "its directory does not exist"},
		"FileIsDir":      {reason: "a directory is no file", path: dir, kind: v1.HostPathFileOrCreate, err: "is not a file, it's a Directory"},
		"Socket":         {reason: "it is one", path: socket, kind: v1.HostPathSocket},
		"NoSocket":       {reason: "a file is none", path: file, kind: v1.HostPathSocket, err: "is not a socket"},
		"CharDevice":     {reason: "it is one", path: "/dev/null", kind: v1.HostPathCharDev},
		"NoBlockDevice":  {reason: "a character device is none", path: "/dev/null", kind: v1.HostPathBlockDev, err: "is not a block device, it's a CharDevice"},
		"DirectoryTwice": {reason: "an existing directory stays", path: dir, kind: v1.HostPathDirectoryOrCreate},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			err := checkHostPath(tc.path, tc.kind)
			if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s: checkHostPath() = %v, want %q", tc.reason, err, tc.err)
			}
		})
	}
}

func TestPrepare(t *testing.T) {
	f := newFixture(t)
	p := pod(vol(v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}))
	mounted := f.mount(p)
	spec := FilesSpec{
		Container: "c", Attempt: 2, TerminationLog: true,
		Hosts:    &HostsFile{Header: "# ours\n", Entries: "192.0.2.1\tp\n"},
		SubPaths: map[int]SubPath{0: {Volume: "v", Path: "new/dir"}},
	}
	var got Files
	for range 2 { // a second time changes nothing
		var err error
		if got, err = f.Prepare(t.Context(), p, mounted, spec); err != nil {
			t.Fatal(err)
		}
	}
	dir := f.podDir(p.UID)
	want := Files{
		EtcHosts:       filepath.Join(dir, "etc-hosts"),
		TerminationLog: filepath.Join(dir, "containers/c/2"),
		SubPaths:       map[int]string{0: filepath.Join(dir, "volume-subpaths/v/c/0")},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("Prepare() -want +got:\n%s", diff)
	}
	if hosts, err := os.ReadFile(got.EtcHosts); err != nil || string(hosts) != "# ours\n192.0.2.1\tp\n" {
		t.Errorf("hosts file %q, %v", hosts, err)
	}
	if info, err := os.Stat(got.TerminationLog); err != nil || info.Mode().String() != "-rw-rw-rw-" {
		t.Errorf("termination log %v, %v: any user may write to it", info, err)
	}
	// What is written through the subPath is in the volume.
	if err := os.WriteFile(filepath.Join(got.SubPaths[0], "x"), []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(mounted["v"].HostPath, "new/dir/x")); err != nil {
		t.Error(err)
	}
	if err := f.Unmount(t.Context(), p.UID); err != nil {
		t.Fatal(err)
	}
}

func TestSubPathStaysInVolume(t *testing.T) {
	outside := t.TempDir()
	cases := map[string]struct {
		reason string
		make   func(volume string) error
		path   string
		err    bool
	}{
		"File":        {reason: "a file can be a subPath", path: "f", make: func(v string) error { return os.WriteFile(v+"/f", nil, 0o600) }},
		"LinkInside":  {reason: "a link that stays inside is fine", path: "l", make: func(v string) error { _ = os.Mkdir(v+"/d", 0o755); return os.Symlink("d", v+"/l") }},
		"LinkOutside": {reason: "a container must not reach the host by way of a link", path: "l", make: func(v string) error { return os.Symlink(outside, v+"/l") }, err: true},
		"MakeOutside": {reason: "nor have us make directories there", path: "l/new", make: func(v string) error { return os.Symlink(outside, v+"/l") }, err: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			p := pod(vol(v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}))
			mounted := f.mount(p)
			if err := tc.make(mounted["v"].HostPath); err != nil {
				t.Fatal(err)
			}
			_, err := f.Prepare(t.Context(), p, mounted, FilesSpec{Container: "c", SubPaths: map[int]SubPath{0: {Volume: "v", Path: tc.path}}})
			if (err != nil) != tc.err {
				t.Errorf("%s: Prepare() = %v", tc.reason, err)
			}
			if err != nil && strings.Contains(err.Error(), outside) {
				t.Errorf("the error tells of the host: %v", err)
			}
			if entries, _ := os.ReadDir(outside); len(entries) != 0 {
				t.Errorf("%v was made outside of the volume", entries)
			}
		})
	}
}

func TestHostsFileKeepsItsInode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etc-hosts")
	if err := writeHosts(path, &HostsFile{Header: "a"}); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeHosts(path, &HostsFile{Header: "b"}); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(path)
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the file was replaced (%v): running containers would keep the old one", err)
	}
}

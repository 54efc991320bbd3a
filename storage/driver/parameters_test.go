//go:build linux

package driver

import (
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"flyball.dev/internal/xfs"
)

func mode(m csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability_AccessMode {
	return &csi.VolumeCapability_AccessMode{Mode: m}
}

func fileSystem(options ...string) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: mode(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER),
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{MountFlags: options}},
	}
}

func device() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: mode(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER),
		AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
	}
}

func TestParse(t *testing.T) {
	ext4 := fileSystem()
	ext4.GetMount().FsType = "ext4"
	many := fileSystem()
	many.AccessMode = mode(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER)
	tests := map[string]struct {
		reason     string
		parameters map[string]string
		capability *csi.VolumeCapability
		quotas     bool
		kind       Kind
		err        string
	}{
		"no quotas":       {reason: "a directory would have no limit", kind: image},
		"quotas":          {reason: "a directory costs least", quotas: true, kind: directory},
		"device":          {reason: "a directory is none", capability: device(), quotas: true, kind: image},
		"allocation":      {reason: "only images are allocated", parameters: map[string]string{"allocation": "full"}, quotas: true, kind: image},
		"path":            {reason: "it is on the list", parameters: map[string]string{"path": "/data"}, kind: image},
		"added":           {reason: "the provisioner says whose volume it is", parameters: map[string]string{"csi.storage.k8s.io/pv/name": "pvc-1"}, kind: image},
		"other path":      {reason: "StorageClasses may not write anywhere", parameters: map[string]string{"path": "/etc"}, err: `parameter "path" of the StorageClass is "/etc"; allowed are ["/dir" "/data"]`},
		"typo":            {reason: "a wish that is ignored is worse than an error", parameters: map[string]string{"typ": "image"}, err: `unknown parameter "typ"; allowed are ["type" "path"`},
		"type":            {reason: "so is a value", parameters: map[string]string{"type": "lvm"}, err: `"type" of the StorageClass is "lvm"; allowed are ["auto" "directory" "image"]`},
		"ext4":            {reason: "the kernel grows it for few", capability: ext4, err: `"ext4"; allowed are ["xfs"]`},
		"ext4 parameter":  {reason: "as above", parameters: map[string]string{"csi.storage.k8s.io/fstype": "ext4"}, err: `"ext4"; allowed are ["xfs"]`},
		"many nodes":      {reason: "the disk is on one", capability: many, err: "MULTI_NODE_MULTI_WRITER asks; use ReadWriteOnce"},
		"option":          {reason: "options reach the kernel", capability: fileSystem("noatime", "dev=x"), err: `contain "dev=x"; allowed are ["defaults"`},
		"directory block": {reason: "a directory is no device", parameters: map[string]string{"type": "directory"}, capability: device(), err: `use "image"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d := New(Config{Dir: "/dir", Paths: []string{"/data"}})
			d.quota.enabled = func(string) bool { return test.quotas }
			if test.capability == nil {
				test.capability = fileSystem("noatime")
			}
			found, err := d.parse(test.parameters, []*csi.VolumeCapability{test.capability})
			if test.err != "" {
				if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), test.err) {
					t.Errorf("%s: error %v, want %q", test.reason, err, test.err)
				}
			} else if err != nil || Kind(found.kind) != test.kind {
				t.Errorf("%s: %+v, %v, want %s", test.reason, found, err, test.kind)
			}
		})
	}
}

func TestSizeIn(t *testing.T) {
	const mi, gi = 1 << 20, 1 << 30
	for _, test := range []struct {
		reason                       string
		required, limit, least, want int64
	}{
		{"no wish", 0, 0, mi, gi},
		{"no more than", 0, 100*mi + 5, mi, 100 * mi},
		{"whole mebibytes", 100*mi + 1, 0, mi, 101 * mi},
		{"a file system has a least size", mi, 0, xfs.MinSize, xfs.MinSize},
		{"a clone is as large as its source", 0, 0, 2 * gi, 2 * gi},
		{"an exact size", 5 * gi, 5 * gi, mi, 5 * gi},
		{"a limit below the least size", mi, 2 * mi, xfs.MinSize, -1},
		{"a limit within a mebibyte", mi + 1, mi + 2, mi, -1},
		{"a limit below the requirement", 2 * gi, gi, mi, -1},
		{"negative", -5, 0, mi, -1},
		{"nonsense", 1 << 62, 0, mi, -1},
	} {
		size, err := sizeIn(&csi.CapacityRange{RequiredBytes: test.required, LimitBytes: test.limit}, test.least)
		if test.want < 0 {
			if status.Code(err) != codes.OutOfRange {
				t.Errorf("%s: %d, %v, want OutOfRange", test.reason, size, err)
			}
		} else if err != nil || size != test.want {
			t.Errorf("%s: %d, %v, want %d", test.reason, size, err, test.want)
		}
	}
}

func TestPage(t *testing.T) {
	all := []*Volume{{ID: "a"}, {ID: "b"}, {ID: "c"}}
	for _, test := range []struct {
		reason, token string
		most          int32
		want, next    string
	}{
		{"no limit", "", 0, "abc", ""},
		{"the first page", "", 2, "ab", "2"},
		{"the last page", "2", 2, "c", ""},
		{"removed meanwhile", "3", 2, "", ""},
	} {
		part, next, err := page(all, test.token, test.most)
		ids := ""
		for _, v := range part {
			ids += v.ID
		}
		if err != nil || ids != test.want || next != test.next {
			t.Errorf("%s: %q, next %q, %v", test.reason, ids, next, err)
		}
	}
	for _, token := range []string{"x", "-1", "4"} {
		if _, _, err := page(all, token, 1); status.Code(err) != codes.Aborted {
			t.Errorf("token %q: %v, want Aborted", token, err)
		}
	}
}

package csi

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/volumes"
	"flyball.dev/kubelet/volumes/internal/tokens"
)

const (
	stage      = csipb.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME
	writers    = csipb.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER
	mountGroup = csipb.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP
	growing    = csipb.NodeServiceCapability_RPC_EXPAND_VOLUME
	statistics = csipb.NodeServiceCapability_RPC_GET_VOLUME_STATS
)

// paths of the volume, below a directory that lasts as long as the test.
func (f *fixture) paths(volume volumes.Volume) volumes.Paths {
	dir := filepath.Join(os.TempDir(), "csi-"+strings.ReplaceAll(f.t.Name(), "/", "-"))
	f.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.MkdirAll(dir, 0o750); err != nil {
		f.t.Fatal(err)
	}
	paths := volumes.Paths{Target: filepath.Join(dir, "target")}
	if volume.Stage {
		paths.Staging = filepath.Join(dir, "staging")
	}
	return paths
}

// publish does what the Manager would do for a new Pod.
func (f *fixture) publish(spec volumes.Spec) (volumes.Published, error) {
	f.t.Helper()
	volume, err := f.Identify(f.t.Context(), spec)
	if err != nil {
		return volumes.Published{}, err
	}
	volume.Block = spec.Block()
	paths := f.paths(volume)
	if volume.Stage {
		if err := f.Stage(f.t.Context(), spec, volume, paths.Staging); err != nil {
			return volumes.Published{}, err
		}
	}
	return f.Publish(f.t.Context(), spec, volume, paths)
}

func TestIdentify(t *testing.T) {
	attributes := map[string]string{"driver": driverName, "handle": "handle"}
	inline := inlineHandle(inlineSpec())
	for name, tc := range map[string]struct {
		reason string
		info   *storagev1.CSIDriver
		can    []csipb.NodeServiceCapability_RPC_Type
		spec   volumes.Spec
		want   volumes.Volume
		err    string
	}{
		"plain": {
			"The driver attaches and stages nothing.", newInfo(), nil, newSpec(),
			volumes.Volume{Name: "kubernetes.io/csi/driver.example.com^handle", Attributes: attributes},
			"",
		},
		"staged": {
			"The driver stages.", newInfo(),
			[]csipb.NodeServiceCapability_RPC_Type{stage},
			newSpec(),
			volumes.Volume{Name: "kubernetes.io/csi/driver.example.com^handle", Stage: true, Attributes: attributes},
			"",
		},
		"no CSIDriver": {
			"Nobody has said that the driver attaches nothing.", nil, nil, newSpec(),
			volumes.Volume{Name: "kubernetes.io/csi/driver.example.com^handle", Attach: true, Attributes: attributes},
			"",
		},
		"inline": {
			"It is never attached nor staged.", newInfo(func(s *storagev1.CSIDriverSpec) { s.AttachRequired = nil }),
			[]csipb.NodeServiceCapability_RPC_Type{stage},
			inlineSpec(),
			volumes.Volume{
				Name:       v1.UniqueVolumeName("kubernetes.io/csi/driver.example.com^" + inline),
				Attributes: map[string]string{"driver": driverName, "handle": inline},
			},
			"",
		},
		"inline, no CSIDriver": {"Only a CSIDriver allows it.", nil, nil, inlineSpec(), volumes.Volume{}, "no CSIDriver object"},
		"inline, not allowed": {"The CSIDriver does not allow it.", newInfo(func(s *storagev1.CSIDriverSpec) {
			s.VolumeLifecycleModes = s.VolumeLifecycleModes[:1]
		}), nil, inlineSpec(), volumes.Volume{}, `only supports ["Persistent"]`},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			if tc.info != nil {
				f = newFixture(t, tc.info)
			}
			f.register(newFakeDriver(t, tc.can...))
			got, err := f.Identify(t.Context(), tc.spec)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("%s error = %v, want %s", tc.reason, err, tc.err)
				}
				return
			}
			if diff := cmp.Diff(tc.want, got); err != nil || diff != "" {
				t.Errorf("%s error %v (-want +got):\n%s", tc.reason, err, diff)
			}
		})
	}
}

func mounted(mode csipb.VolumeCapability_AccessMode_Mode, change ...func(*csipb.VolumeCapability_MountVolume)) *csipb.VolumeCapability {
	mount := &csipb.VolumeCapability_MountVolume{FsType: "xfs"}
	for _, c := range change {
		c(mount)
	}
	return &csipb.VolumeCapability{
		AccessMode: &csipb.VolumeCapability_AccessMode{Mode: mode},
		AccessType: &csipb.VolumeCapability_Mount{Mount: mount},
	}
}

// TestRequests compares what drivers are asked, except for the paths.
func TestRequests(t *testing.T) {
	const singleWriter = csipb.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	blue, hush := map[string]string{"color": "blue"}, map[string]string{"password": "hush"}
	plain := mounted(singleWriter)
	for name, tc := range map[string]struct {
		reason  string
		can     []csipb.NodeServiceCapability_RPC_Type
		info    func(*storagev1.CSIDriverSpec)
		spec    func(*volumes.Spec)
		staged  *csipb.NodeStageVolumeRequest
		publish *csipb.NodePublishVolumeRequest
	}{
		"plain": {
			reason:  "A driver that does not stage is only asked to publish.",
			publish: &csipb.NodePublishVolumeRequest{VolumeId: "handle", VolumeContext: blue, VolumeCapability: plain},
		},
		"attached, with secrets and mount options": {
			reason: "Each call has its secret, both have what attaching said.",
			can:    []csipb.NodeServiceCapability_RPC_Type{stage},
			info:   func(s *storagev1.CSIDriverSpec) { s.AttachRequired = new(true) },
			spec: func(s *volumes.Spec) {
				ref := &v1.SecretReference{Namespace: "ns", Name: "secret"}
				s.PersistentVolume.Spec.CSI.NodeStageSecretRef, s.PersistentVolume.Spec.CSI.NodePublishSecretRef = ref, ref
				s.PersistentVolume.Spec.MountOptions = []string{"noatime"}
				s.Volume.PersistentVolumeClaim.ReadOnly = true
			},
			staged: &csipb.NodeStageVolumeRequest{
				VolumeId: "handle", VolumeContext: blue, Secrets: hush, PublishContext: map[string]string{"device": "/dev/sdx"},
				VolumeCapability: mounted(singleWriter, func(m *csipb.VolumeCapability_MountVolume) { m.MountFlags = []string{"noatime"} }),
			},
			publish: &csipb.NodePublishVolumeRequest{
				VolumeId: "handle", VolumeContext: blue, Secrets: hush, PublishContext: map[string]string{"device": "/dev/sdx"}, Readonly: true,
				VolumeCapability: mounted(singleWriter, func(m *csipb.VolumeCapability_MountVolume) { m.MountFlags = []string{"noatime"} }),
			},
		},
		"one Pod": {
			reason: "The driver knows the newer access modes.",
			can:    []csipb.NodeServiceCapability_RPC_Type{writers},
			spec: func(s *volumes.Spec) {
				s.PersistentVolume.Spec.AccessModes = []v1.PersistentVolumeAccessMode{v1.ReadWriteOncePod}
			},
			publish: &csipb.NodePublishVolumeRequest{
				VolumeId: "handle", VolumeContext: blue, VolumeCapability: mounted(csipb.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER),
			},
		},
		"block device": {
			reason: "There is no file system, and there are no mount options.",
			can:    []csipb.NodeServiceCapability_RPC_Type{stage},
			spec: func(s *volumes.Spec) {
				s.PersistentVolume.Spec.VolumeMode = ptr.To(v1.PersistentVolumeBlock)
			},
			staged: &csipb.NodeStageVolumeRequest{VolumeId: "handle", VolumeContext: blue, VolumeCapability: &csipb.VolumeCapability{
				AccessMode: plain.AccessMode, AccessType: &csipb.VolumeCapability_Block{Block: &csipb.VolumeCapability_BlockVolume{}},
			}},
			publish: &csipb.NodePublishVolumeRequest{VolumeId: "handle", VolumeContext: blue, VolumeCapability: &csipb.VolumeCapability{
				AccessMode: plain.AccessMode, AccessType: &csipb.VolumeCapability_Block{Block: &csipb.VolumeCapability_BlockVolume{}},
			}},
		},
		"fsGroup": {
			reason: "The driver gives volumes to the group itself.",
			can:    []csipb.NodeServiceCapability_RPC_Type{mountGroup},
			spec:   func(s *volumes.Spec) { s.Pod.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: new(int64(1234))} },
			publish: &csipb.NodePublishVolumeRequest{
				VolumeId: "handle", VolumeContext: blue,
				VolumeCapability: mounted(singleWriter, func(m *csipb.VolumeCapability_MountVolume) { m.VolumeMountGroup = "1234" }),
			},
		},
		"inline, with the Pod": {
			reason: "The driver learns whose volume it is.",
			info:   func(s *storagev1.CSIDriverSpec) { s.PodInfoOnMount = new(true) },
			spec:   func(s *volumes.Spec) { *s = inlineSpec() },
			publish: &csipb.NodePublishVolumeRequest{
				VolumeId: inlineHandle(inlineSpec()), Secrets: hush,
				VolumeContext: map[string]string{
					"color": "blue", "csi.storage.k8s.io/pod.name": "pod", "csi.storage.k8s.io/pod.namespace": "ns",
					"csi.storage.k8s.io/pod.uid": "pod-uid", "csi.storage.k8s.io/serviceAccount.name": "account",
					"csi.storage.k8s.io/ephemeral": "true",
				},
				VolumeCapability: mounted(singleWriter, func(m *csipb.VolumeCapability_MountVolume) { m.FsType = "" }),
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			spec := newSpec()
			if tc.spec != nil {
				tc.spec(&spec)
			}
			info := newInfo()
			if tc.info != nil {
				tc.info(&info.Spec)
			}
			f := newFixture(t, info, newSecret())
			attachment := &storagev1.VolumeAttachment{
				ObjectMeta: metav1.ObjectMeta{Name: f.attachment(sourceOf(newSpec()))},
				Status:     storagev1.VolumeAttachmentStatus{Attached: true, AttachmentMetadata: map[string]string{"device": "/dev/sdx"}},
			}
			if _, err := f.client.StorageV1().VolumeAttachments().Create(t.Context(), attachment, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			d := newFakeDriver(t, tc.can...)
			f.register(d)
			got, err := f.publish(spec)
			if err != nil {
				t.Fatal(err)
			}
			if spec.Block() != got.Device || spec.Block() && got.HostPath != d.socket {
				t.Errorf("mounted %+v, want the device that the driver links to", got)
			}
			ignore := protocmp.IgnoreFields(&csipb.NodePublishVolumeRequest{}, "target_path", "staging_target_path")
			if diff := cmp.Diff(tc.publish, d.last("NodePublishVolume"), protocmp.Transform(), ignore); diff != "" {
				t.Errorf("%s NodePublishVolume (-want +got):\n%s", tc.reason, diff)
			}
			if tc.staged == nil {
				if n := d.count("NodeStageVolume"); n != 0 {
					t.Errorf("%s %d calls of NodeStageVolume", tc.reason, n)
				}
				return
			}
			ignore = protocmp.IgnoreFields(&csipb.NodeStageVolumeRequest{}, "staging_target_path")
			if diff := cmp.Diff(tc.staged, d.last("NodeStageVolume"), protocmp.Transform(), ignore); diff != "" {
				t.Errorf("%s NodeStageVolume (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

func TestTokens(t *testing.T) {
	for _, inSecrets := range []bool{false, true} {
		info := newInfo(func(s *storagev1.CSIDriverSpec) {
			s.TokenRequests = []storagev1.TokenRequest{{Audience: ""}, {Audience: "vault"}}
			s.RequiresRepublish, s.ServiceAccountTokenInSecrets = new(true), &inSecrets
		})
		f, d := newFixture(t, info), newFakeDriver(t)
		f.register(d)
		for range 2 {
			if _, err := f.publish(newSpec()); err != nil {
				t.Fatal(err)
			}
		}
		request := d.last("NodePublishVolume").(*csipb.NodePublishVolumeRequest)
		content, other := request.VolumeContext[tokensKey], request.Secrets[tokensKey]
		if inSecrets {
			content, other = other, content
		}
		var tokens map[string]authenticationv1.TokenRequestStatus
		if err := json.Unmarshal([]byte(content), &tokens); err != nil || other != "" {
			t.Fatalf("tokens in secrets %v: %v, %q, %q", inSecrets, err, content, other)
		}
		if len(tokens) != 2 || tokens["vault"].Token != "token for [vault]" {
			t.Errorf("tokens = %v, want one for each audience", tokens)
		}
		requested := 0
		for _, a := range f.client.Actions() {
			if a.GetSubresource() == "token" {
				requested++
			}
		}
		if requested != 2 {
			t.Errorf("%d tokens were requested, want each once", requested)
		}
	}
}

func TestRenewal(t *testing.T) {
	now := time.Now()
	for name, tc := range map[string]struct {
		reason     string
		life, want time.Duration
	}{
		"an hour": {"A fifth of its life is left.", time.Hour, 48 * time.Minute},
		"a week":  {"It is a day old.", 7 * 24 * time.Hour, 24 * time.Hour},
	} {
		token := &authenticationv1.TokenRequest{
			Spec:   authenticationv1.TokenRequestSpec{ExpirationSeconds: new(int64(tc.life.Seconds()))},
			Status: authenticationv1.TokenRequestStatus{ExpirationTimestamp: metav1.NewTime(now.Add(tc.life))},
		}
		if got := tokens.Renewal(token).Sub(now); got != tc.want {
			t.Errorf("%s: renewed after %v, want %v: %s", name, got, tc.want, tc.reason)
		}
	}
}

func TestPublishAgain(t *testing.T) {
	f, d := newFixture(t, newInfo()), newFakeDriver(t)
	f.register(d)
	for range 3 {
		if _, err := f.publish(newSpec()); err != nil {
			t.Fatal(err)
		}
	}
	if n := d.count("NodePublishVolume"); n != 1 {
		t.Errorf("%d calls, want one: nothing has changed", n)
	}
	f.Deregister(d.plugin())
	if _, err := f.publish(newSpec()); err != nil {
		t.Errorf("a published volume needs its driver: %v", err)
	}
}

func TestRepublish(t *testing.T) {
	f, d := newFixture(t, newInfo(func(s *storagev1.CSIDriverSpec) { s.RequiresRepublish = new(true) }), newSecret()), newFakeDriver(t)
	f.register(d)
	published, err := f.publish(inlineSpec())
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(published.Next); left <= 0 || left > republishPeriod {
		t.Errorf("again in %v, want about a minute", left)
	}
	d.set("NodePublishVolume", status.Error(codes.InvalidArgument, "no"))
	if _, err := f.publish(inlineSpec()); err == nil {
		t.Error("the failure is not reported")
	}
	if _, err := os.Stat(published.HostPath); err != nil || d.count("NodeUnpublishVolume") != 0 {
		t.Errorf("the volume was unpublished: %v", err)
	}
	d.set("NodePublishVolume", nil)
	if _, err := f.publish(inlineSpec()); err != nil || d.count("NodePublishVolume") != 3 {
		t.Errorf("error %v after %d calls", err, d.count("NodePublishVolume"))
	}
}

func TestDriverHangs(t *testing.T) {
	f, d := newFixture(t, newInfo()), newFakeDriver(t)
	f.register(d)
	d.hang["NodePublishVolume"] = true
	spec := newSpec()
	volume, err := f.Identify(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := f.Publish(ctx, spec, volume, f.paths(volume)); err == nil || isFinal(err) {
		t.Errorf("error = %v, want one that says that the driver may still be at it", err)
	}
}

func TestSetsOwnership(t *testing.T) {
	policy := func(p storagev1.FSGroupPolicy) *storagev1.CSIDriver {
		return newInfo(func(s *storagev1.CSIDriverSpec) { s.FSGroupPolicy = &p })
	}
	file, none := policy(storagev1.FileFSGroupPolicy), policy(storagev1.NoneFSGroupPolicy)
	for name, tc := range map[string]struct {
		reason string
		info   *storagev1.CSIDriver
		change func(*volumes.Spec)
		want   bool
	}{
		"default":         {"One node writes a file system.", nil, nil, true},
		"none":            {"The driver forbids it.", none, nil, false},
		"no fsType":       {"It may have no file system of its own.", nil, func(s *volumes.Spec) { s.PersistentVolume.Spec.CSI.FSType = "" }, false},
		"file, no fsType": {"The driver wants it in any case.", file, func(s *volumes.Spec) { s.PersistentVolume.Spec.CSI.FSType = "" }, true},
		"shared": {"Other nodes use it.", nil, func(s *volumes.Spec) {
			s.PersistentVolume.Spec.AccessModes = []v1.PersistentVolumeAccessMode{v1.ReadWriteMany}
		}, false},
		"read-only":           {"It cannot be changed.", file, func(s *volumes.Spec) { s.Volume.PersistentVolumeClaim.ReadOnly = true }, false},
		"inline":              {"It may have no file system of its own.", nil, func(s *volumes.Spec) { *s = inlineSpec() }, false},
		"inline, with fsType": {"The Pod alone writes it.", nil, func(s *volumes.Spec) { *s = inlineSpec(); s.Volume.CSI.FSType = new("xfs") }, true},
	} {
		t.Run(name, func(t *testing.T) {
			spec := newSpec()
			if tc.change != nil {
				tc.change(&spec)
			}
			if got := setsOwnership(spec, sourceOf(spec), tc.info); got != tc.want {
				t.Errorf("%s got %v", tc.reason, got)
			}
		})
	}
}

func TestStats(t *testing.T) {
	f, d := newFixture(t, newInfo()), newFakeDriver(t, statistics)
	volume := volumes.Volume{Attributes: map[string]string{driverKey: driverName, handleKey: "handle"}}
	f.register(d)
	if _, err := f.Stats(t.Context(), volume, "/target", ""); err == nil {
		t.Error("a driver without an answer has measured the volume")
	}
	d.usage = []*csipb.VolumeUsage{
		{Unit: csipb.VolumeUsage_BYTES, Total: 10, Available: 7, Used: 3},
		{Unit: csipb.VolumeUsage_INODES, Total: 5, Available: 4, Used: 1},
	}
	got, err := f.Stats(t.Context(), volume, "/target", "/staging")
	if err != nil || *got.CapacityBytes != 10 || *got.AvailableBytes != 7 || *got.UsedBytes != 3 || *got.Inodes != 5 || *got.InodesUsed != 1 {
		t.Errorf("stats = %+v, %v", got, err)
	}
	f.register(newFakeDriver(t))
	if _, err := f.Stats(t.Context(), volume, "/target", ""); !errors.Is(err, volumes.ErrNoStats) {
		t.Errorf("error = %v, want ErrNoStats from a driver that does not measure", err)
	}
}

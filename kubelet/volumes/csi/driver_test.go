package csi

import (
	"errors"
	"slices"
	"strings"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/plugins"
	"flyball.dev/kubelet/volumes"
)

func TestValidate(t *testing.T) {
	for name, tc := range map[string]struct {
		reason   string
		versions []string
		ok       bool
	}{
		"one":     {"This is what registrars say.", []string{"1.0.0"}, true},
		"several": {"One that fits is enough.", []string{"0.3.0", "1.12"}, true},
		"old":     {"Version 0 has other calls.", []string{"0.3.0"}, false},
		"new":     {"Version 2 may have other calls.", []string{"2.0.0"}, false},
		"none":    {"A driver says what it supports.", nil, false},
		"garbage": {"It is not a version.", []string{"latest"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			err := newFixture(t).Validate(plugins.Plugin{Name: driverName, Versions: tc.versions})
			if (err == nil) != tc.ok {
				t.Errorf("%s Validate: %v", tc.reason, err)
			}
		})
	}
}

func TestCSINodeWithoutDrivers(t *testing.T) {
	f := newFixture(t)
	eventually(t, "CSINode exists", func() bool { return f.csiNode().Name != "" })
	node := f.csiNode()
	if refs := node.OwnerReferences; len(refs) != 1 || refs[0].UID != "node-uid" {
		t.Errorf("owners = %v, want the Node", refs)
	}
	if !strings.Contains(node.Annotations[v1.MigratedPluginsAnnotationKey], "kubernetes.io/aws-ebs") {
		t.Errorf("annotations = %v, want the migrated plugins", node.Annotations)
	}
}

func TestRegister(t *testing.T) {
	f, d := newFixture(t), newFakeDriver(t)
	if _, err := f.Identify(t.Context(), newSpec()); err == nil || !strings.Contains(err.Error(), "not found in the list of registered") {
		t.Fatalf("without the driver: %v", err)
	} else if _, waiting := errors.AsType[volumes.WaitingError](err); !waiting {
		t.Errorf("%T, want a WaitingError", err)
	}
	f.register(d)
	if want := []types.UID{"pod-uid"}; !slices.Equal(f.changed, want) {
		t.Errorf("reconciled %v, want %v", f.changed, want)
	}
	want := []storagev1.CSINodeDriver{{
		Name: driverName, NodeID: "node-id", TopologyKeys: []string{"topology.example.com/zone"},
		Allocatable: &storagev1.VolumeNodeResources{Count: ptr.To[int32](7)},
	}}
	if diff := cmp.Diff(want, f.csiNode().Spec.Drivers); diff != "" {
		t.Errorf("CSINode (-want +got):\n%s", diff)
	}
	node, err := f.client.CoreV1().Nodes().Get(t.Context(), "node-1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := node.Labels["topology.example.com/zone"]; got != "a" {
		t.Errorf("label = %q, want the topology", got)
	}
	if got, want := node.Annotations["csi.volume.kubernetes.io/nodeid"], `{"driver.example.com":"node-id"}`; got != want {
		t.Errorf("annotation = %s, want %s", got, want)
	}
	f.Deregister(d.plugin())
	eventually(t, "the driver leaves CSINode", func() bool { return len(f.csiNode().Spec.Drivers) == 0 })
	if _, err := f.Identify(t.Context(), newSpec()); err != nil {
		t.Errorf("a driver that was there before is still known: %v", err)
	}
	f.register(d)
	if len(f.csiNode().Spec.Drivers) != 1 {
		t.Error("the driver is not in CSINode again")
	}
}

func TestRegisterFails(t *testing.T) {
	f, d := newFixture(t), newFakeDriver(t)
	d.set("NodeGetInfo", status.Error(codes.Internal, "no idea"))
	err := f.Register(t.Context(), d.plugin())
	if err == nil || !strings.Contains(err.Error(), "calling NodeGetInfo of CSI driver "+driverName) {
		t.Errorf("error = %v, want one that says what failed", err)
	}
	if f.registered(driverName) != nil {
		t.Error("the driver is registered")
	}
}

func TestDriverIsReplaced(t *testing.T) {
	f, old, current := newFixture(t, newInfo()), newFakeDriver(t), newFakeDriver(t)
	f.register(old)
	f.register(current)
	if _, err := f.publish(newSpec()); err != nil {
		t.Fatal(err)
	}
	if old.count("NodePublishVolume") != 0 || current.count("NodePublishVolume") != 1 {
		t.Error("the older driver was called")
	}
}

func TestDriverDies(t *testing.T) {
	f, d := newFixture(t, newInfo()), newFakeDriver(t)
	f.register(d)
	d.server.Stop()
	if _, err := f.publish(newSpec()); err == nil || isFinal(err) {
		t.Fatalf("without a server: %v, want an error that is not final", err)
	}
	d.start()
	eventually(t, "the driver is called again", func() bool {
		_, err := f.publish(newSpec())
		return err == nil
	})
}

func TestLimitChanges(t *testing.T) {
	const period = 3600
	info := newInfo(func(s *storagev1.CSIDriverSpec) {
		s.AttachRequired, s.NodeAllocatableUpdatePeriodSeconds = nil, ptr.To[int64](period)
	})
	f, d := newFixture(t, info), newFakeDriver(t)
	f.register(d)
	d.mu.Lock()
	d.node = &csipb.NodeGetInfoResponse{NodeId: "node-id", MaxVolumesPerNode: 3}
	d.mu.Unlock()
	attachment := &storagev1.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{Name: f.attachment(sourceOf(newSpec()))},
		Status: storagev1.VolumeAttachmentStatus{AttachError: &storagev1.VolumeError{
			ErrorCode: ptr.To(int32(codes.ResourceExhausted)), Message: "all slots are taken",
		}},
	}
	if _, err := f.client.StorageV1().VolumeAttachments().Create(t.Context(), attachment, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := f.Identify(t.Context(), newSpec())
	refused, ok := errors.AsType[*volumes.RefusedError](err)
	if !ok || refused.Reason != limitExceeded || !strings.Contains(refused.Message, "all slots are taken") {
		t.Errorf("error = %v, want that the Pod fails, with the message of the attachment", err)
	}
	if got := f.csiNode().Spec.Drivers[0].Allocatable; got == nil || *got.Count != 3 {
		t.Errorf("allocatable = %v, want the new limit", got)
	}
}

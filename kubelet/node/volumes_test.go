package node

import (
	"context"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
)

// TestVolumesInUse: the status lists the volumes that the node uses, Changed reports what the
// attach/detach controller writes, and the node's own writes keep that.
func TestVolumesInUse(t *testing.T) {
	client, watching := newClient()
	cri := &fakeCRI{network: true}
	var inUse atomic.Pointer[[]v1.UniqueVolumeName]
	inUse.Store(&[]v1.UniqueVolumeName{})
	ready, changed := make(chan struct{}), make(chan struct{}, 1000)
	n := New(Config{
		Name: "n1", IPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Client: client, Runtime: cri, Images: cri, Port: 10250,
		Host: hostInfo(t), RootDir: t.TempDir(), Ready: func() { close(ready) }, Recorder: record.NewFakeRecorder(100),
		VolumesInUse: func() []v1.UniqueVolumeName { return *inUse.Load() }, Changed: func() { changed <- struct{}{} },
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	soon(t, ready, "it is Ready")
	soon(t, watching, "it watches its Node")

	want := []v1.UniqueVolumeName{"example.com/disk/x"}
	inUse.Store(&want)
	n.Recheck()
	eventually(t, client, "a Pod wants a volume", func(n *v1.Node) bool { return slices.Equal(n.Status.VolumesInUse, want) })

	writeStatus(t, client, func(status *v1.NodeStatus) {
		status.VolumesAttached = []v1.AttachedVolume{{Name: want[0]}}
	})
	for n.Object() == nil || len(n.Object().Status.VolumesAttached) == 0 {
		soon(t, changed, "the attachment is seen")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	eventually(t, client, "the controller's list stays", func(n *v1.Node) bool { return len(n.Status.VolumesAttached) == 1 })
}

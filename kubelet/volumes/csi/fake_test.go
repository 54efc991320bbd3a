package csi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"path/filepath"
	"sync"
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/plugins"
	"flyball.dev/kubelet/volumes"
)

const driverName = "driver.example.com"

// fakeDriver is a CSI driver behind a socket. It records what it is asked.
type fakeDriver struct {
	csipb.UnimplementedNodeServer
	t      *testing.T
	socket string
	server *grpc.Server

	mu       sync.Mutex
	can      []csipb.NodeServiceCapability_RPC_Type
	node     *csipb.NodeGetInfoResponse
	usage    []*csipb.VolumeUsage
	requests map[string][]proto.Message // by method
	fail     map[string]error
	hang     map[string]bool
}

func newFakeDriver(t *testing.T, can ...csipb.NodeServiceCapability_RPC_Type) *fakeDriver {
	t.Helper()
	dir, err := os.MkdirTemp("", "csi") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	d := &fakeDriver{
		t: t, socket: filepath.Join(dir, "csi.sock"), can: can,
		node: &csipb.NodeGetInfoResponse{
			NodeId: "node-id", MaxVolumesPerNode: 7,
			AccessibleTopology: &csipb.Topology{Segments: map[string]string{"topology.example.com/zone": "a"}},
		},
		requests: map[string][]proto.Message{}, fail: map[string]error{}, hang: map[string]bool{},
	}
	d.start()
	t.Cleanup(func() { d.server.Stop() })
	return d
}

func (d *fakeDriver) start() {
	d.t.Helper()
	listener, err := net.Listen("unix", d.socket)
	if err != nil {
		d.t.Fatal(err)
	}
	d.server = grpc.NewServer(grpc.UnaryInterceptor(d.intercept))
	csipb.RegisterNodeServer(d.server, d)
	go func() { _ = d.server.Serve(listener) }()
}

func (d *fakeDriver) intercept(
	ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler,
) (any, error) {
	method := path.Base(info.FullMethod)
	d.mu.Lock()
	d.requests[method] = append(d.requests[method], request.(proto.Message))
	failure, hang := d.fail[method], d.hang[method]
	d.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if failure != nil {
		return nil, failure
	}
	return handle(ctx, request)
}

// set how the driver answers, nil for success.
func (d *fakeDriver) set(method string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail[method] = err
}

func (d *fakeDriver) count(method string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.requests[method])
}

// last returns the newest request of a method.
func (d *fakeDriver) last(method string) proto.Message {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	all := d.requests[method]
	if len(all) == 0 {
		d.t.Fatalf("the driver got no %s", method)
	}
	return all[len(all)-1]
}

func (d *fakeDriver) NodeGetCapabilities(context.Context, *csipb.NodeGetCapabilitiesRequest) (*csipb.NodeGetCapabilitiesResponse, error) {
	answer := &csipb.NodeGetCapabilitiesResponse{}
	for _, c := range d.can {
		answer.Capabilities = append(answer.Capabilities, &csipb.NodeServiceCapability{
			Type: &csipb.NodeServiceCapability_Rpc{Rpc: &csipb.NodeServiceCapability_RPC{Type: c}},
		})
	}
	return answer, nil
}

func (d *fakeDriver) NodeGetInfo(context.Context, *csipb.NodeGetInfoRequest) (*csipb.NodeGetInfoResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.node, nil
}

func (*fakeDriver) NodeStageVolume(_ context.Context, r *csipb.NodeStageVolumeRequest) (*csipb.NodeStageVolumeResponse, error) {
	if info, err := os.Stat(r.StagingTargetPath); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("no directory to stage at: %w", err)
	}
	return &csipb.NodeStageVolumeResponse{}, nil
}

func (*fakeDriver) NodeUnstageVolume(context.Context, *csipb.NodeUnstageVolumeRequest) (*csipb.NodeUnstageVolumeResponse, error) {
	return &csipb.NodeUnstageVolumeResponse{}, nil
}

// NodePublishVolume makes a directory, or a link to what stands for the device.
func (d *fakeDriver) NodePublishVolume(_ context.Context, r *csipb.NodePublishVolumeRequest) (*csipb.NodePublishVolumeResponse, error) {
	var err error
	if r.VolumeCapability.GetBlock() != nil {
		err = os.Symlink(d.socket, r.TargetPath)
	} else {
		err = os.Mkdir(r.TargetPath, 0o750)
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	return &csipb.NodePublishVolumeResponse{}, nil
}

func (*fakeDriver) NodeUnpublishVolume(_ context.Context, r *csipb.NodeUnpublishVolumeRequest) (*csipb.NodeUnpublishVolumeResponse, error) {
	_ = os.Remove(r.TargetPath)
	return &csipb.NodeUnpublishVolumeResponse{}, nil
}

func (*fakeDriver) NodeExpandVolume(context.Context, *csipb.NodeExpandVolumeRequest) (*csipb.NodeExpandVolumeResponse, error) {
	return &csipb.NodeExpandVolumeResponse{}, nil
}

func (d *fakeDriver) NodeGetVolumeStats(context.Context, *csipb.NodeGetVolumeStatsRequest) (*csipb.NodeGetVolumeStatsResponse, error) {
	return &csipb.NodeGetVolumeStatsResponse{Usage: d.usage}, nil
}

// fixture is a Plugin on a node, with an API server.
type fixture struct {
	*Plugin
	t      *testing.T
	client *fake.Clientset

	mu      sync.Mutex
	changed []types.UID
	events  []string
}

func newFixture(t *testing.T, found ...runtime.Object) *fixture {
	t.Helper()
	node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1", UID: "node-uid"}}
	f := &fixture{t: t, client: fake.NewClientset(append(found, node)...)}
	f.client.PrependReactor("create", "serviceaccounts", func(a clienttesting.Action) (bool, runtime.Object, error) {
		request := a.(clienttesting.CreateAction).GetObject().(*authenticationv1.TokenRequest)
		request.Status.Token = fmt.Sprintf("token for %v", request.Spec.Audiences)
		request.Status.ExpirationTimestamp = metav1.NewTime(time.Now().Add(time.Hour).Truncate(time.Second))
		request.Spec.ExpirationSeconds = ptr.To[int64](3600)
		return true, request, nil
	})
	f.start()
	return f
}

// start makes the Plugin anew, as another process would.
func (f *fixture) start() {
	f.Plugin = New(Config{
		Client: f.client, NodeName: "node-1",
		Changed: func(uid types.UID) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.changed = append(f.changed, uid)
		},
		Event: func(object runtime.Object, eventtype, reason, _ string) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.events = append(f.events, fmt.Sprintf("%T %s %s", object, eventtype, reason))
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	p := f.Plugin
	running.Go(func() {
		if err := p.Run(ctx); err != nil {
			f.t.Error(err)
		}
	})
	f.t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

func (d *fakeDriver) plugin() plugins.Plugin {
	return plugins.Plugin{Name: driverName, Endpoint: d.socket, Versions: []string{"1.0.0"}}
}

func (f *fixture) register(d *fakeDriver) {
	f.t.Helper()
	if err := f.Register(f.t.Context(), d.plugin()); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) csiNode() *storagev1.CSINode {
	f.t.Helper()
	node, err := f.client.StorageV1().CSINodes().Get(f.t.Context(), "node-1", metav1.GetOptions{})
	if err != nil {
		return &storagev1.CSINode{}
	}
	return node
}

func (f *fixture) claim() *v1.PersistentVolumeClaim {
	f.t.Helper()
	claim, err := f.client.CoreV1().PersistentVolumeClaims("ns").Get(f.t.Context(), "claim", metav1.GetOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	return claim
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("this did not happen: %s", what)
		}
	}
}

// newInfo is a CSIDriver that attaches nothing.
func newInfo(change ...func(*storagev1.CSIDriverSpec)) *storagev1.CSIDriver {
	info := &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: driverName}, Spec: storagev1.CSIDriverSpec{
		AttachRequired:       new(false),
		VolumeLifecycleModes: []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral},
	}}
	for _, c := range change {
		c(&info.Spec)
	}
	return info
}

// newSpec is a volume of 1Gi that a Pod claims.
func newSpec() volumes.Spec {
	size := v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")}
	modes := []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce}
	pod := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "pod", Namespace: "ns", UID: "pod-uid"},
		Spec:       v1.PodSpec{ServiceAccountName: "account", NodeName: "node-1", Containers: []v1.Container{{Name: "c"}}},
	}
	pod.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "v", MountPath: "/v"}}
	pod.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{
		PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "claim"},
	}}}
	return volumes.Spec{
		Pod: pod, Volume: &pod.Spec.Volumes[0],
		Claim: &v1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Name: "claim", Namespace: "ns", UID: "claim-uid"},
			Spec: v1.PersistentVolumeClaimSpec{
				VolumeName: "pv", AccessModes: modes, Resources: v1.VolumeResourceRequirements{Requests: size.DeepCopy()},
			},
			Status: v1.PersistentVolumeClaimStatus{Phase: v1.ClaimBound, Capacity: size.DeepCopy(), AccessModes: modes},
		},
		PersistentVolume: &v1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: "pv"},
			Spec: v1.PersistentVolumeSpec{
				Capacity: size.DeepCopy(), AccessModes: modes, StorageClassName: "class",
				ClaimRef: &v1.ObjectReference{Namespace: "ns", Name: "claim", UID: "claim-uid"},
				PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{
					Driver: driverName, VolumeHandle: "handle", FSType: "xfs", VolumeAttributes: map[string]string{"color": "blue"},
				}},
			},
		},
	}
}

// inlineSpec is a volume that a Pod defines itself.
func inlineSpec() volumes.Spec {
	spec := newSpec()
	spec.Claim, spec.PersistentVolume = nil, nil
	spec.Volume.VolumeSource = v1.VolumeSource{CSI: &v1.CSIVolumeSource{
		Driver: driverName, VolumeAttributes: map[string]string{"color": "blue"},
		NodePublishSecretRef: &v1.LocalObjectReference{Name: "secret"},
	}}
	return spec
}

func newSecret() *v1.Secret {
	return &v1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "secret"}, Data: map[string][]byte{"password": []byte("hush")},
	}
}

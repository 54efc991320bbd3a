package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"github.com/kubernetes-csi/external-snapshotter/v8/pkg/utils"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"flyball.dev/config"
)

// fake is a driver of which a test says what fits.
type fake struct {
	csi.UnimplementedControllerServer
	csi.UnimplementedIdentityServer

	mu        sync.Mutex
	node      string
	room      int64 // bytes that are left
	volumes   map[string]int64
	snapshots map[string]int64
	online    bool // whether the node has to expand too
}

func (f *fake) CreateVolume(_ context.Context, r *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id, size := f.node+"-"+r.GetName(), r.GetCapacityRange().GetRequiredBytes()
	if _, found := f.volumes[id]; !found {
		if size > f.room {
			return nil, status.Error(codes.ResourceExhausted, "the disk is full")
		}
		f.volumes[id], f.room = size, f.room-size
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: id, CapacityBytes: size, ContentSource: r.GetVolumeContentSource()}}, nil
}

func (f *fake) DeleteVolume(_ context.Context, r *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.room += f.volumes[r.GetVolumeId()]
	delete(f.volumes, r.GetVolumeId())
	return &csi.DeleteVolumeResponse{}, nil
}

func (f *fake) ControllerExpandVolume(_ context.Context, r *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	size := r.GetCapacityRange().GetRequiredBytes()
	more := size - f.volumes[r.GetVolumeId()]
	if more > f.room {
		return nil, status.Error(codes.OutOfRange, "the disk is full")
	}
	f.volumes[r.GetVolumeId()], f.room = size, f.room-more
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: size, NodeExpansionRequired: f.online}, nil
}

func (f *fake) GetCapacity(context.Context, *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &csi.GetCapacityResponse{AvailableCapacity: f.room}, nil
}

func (f *fake) CreateSnapshot(_ context.Context, r *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	size, found := f.volumes[r.GetSourceVolumeId()]
	if !found {
		return nil, status.Error(codes.NotFound, "no such volume")
	}
	f.snapshots[r.GetName()] = size
	return &csi.CreateSnapshotResponse{Snapshot: &csi.Snapshot{
		SnapshotId: r.GetName(), SourceVolumeId: r.GetSourceVolumeId(), SizeBytes: size, ReadyToUse: true, CreationTime: timestamppb.Now(),
	}}, nil
}

func (f *fake) DeleteSnapshot(_ context.Context, r *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.snapshots, r.GetSnapshotId())
	return &csi.DeleteSnapshotResponse{}, nil
}

func (f *fake) ListSnapshots(_ context.Context, r *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	return &csi.ListSnapshotsResponse{}, nil
}

func (f *fake) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	return &csi.ControllerGetCapabilitiesResponse{}, nil
}

func (f *fake) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: driverName}, nil
}

func (f *fake) has(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, found := f.volumes[id]
	return found
}

// serve returns a connection to the driver.
func (f *fake) serve(t *testing.T) *grpc.ClientConn {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "csi.sock")
	listening, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	csi.RegisterControllerServer(server, f)
	csi.RegisterIdentityServer(server, f)
	go func() { _ = server.Serve(listening) }()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); server.Stop() })
	return conn
}

const gib = 1 << 30

// TestCluster runs the drivers of two nodes, with the permissions that they have, and upstream's
// controllers. There is no kubelet and no scheduler's choice but the one that a test makes.
func TestCluster(t *testing.T) {
	cluster, admin := startCluster(t)
	a := &fake{node: "a", room: 10 * gib, volumes: map[string]int64{}, snapshots: map[string]int64{}}
	b := &fake{node: "b", room: 10 * gib, volumes: map[string]int64{}, snapshots: map[string]int64{}}
	for _, f := range []*fake{a, b} {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: f.node, Labels: map[string]string{topologyKey: f.node}}}
		create(t, admin, node)
		user := userOf(t, cluster, "system:flyball:storage:"+f.node, "system:flyball:storage")
		conn := f.serve(t)
		ready := make(chan struct{})
		run(t, func(ctx context.Context) error {
			return runLoops(ctx, Config{NodeName: f.node, Client: user, Ready: func() { close(ready) }}, csi.NewControllerClient(conn))
		})
		run(t, func(ctx context.Context) error { return runSnapshotter(ctx, user, f.node, conn) })
		<-ready
	}
	ready := make(chan struct{})
	snapshots := userOf(t, cluster, "system:flyball:snapshots")
	run(t, func(ctx context.Context) error {
		return RunSnapshotController(ctx, SnapshotConfig{Client: snapshots, Ready: func() { close(ready) }})
	})
	<-ready

	t.Run("Capacity", func(t *testing.T) { testCapacity(t, admin) })
	t.Run("Claim", func(t *testing.T) { testClaim(t, admin, a) })
	t.Run("Full", func(t *testing.T) { testFull(t, admin) })
	t.Run("Immediate", func(t *testing.T) { testImmediate(t, admin) })
	t.Run("Snapshot", func(t *testing.T) { testSnapshot(t, admin, a) })
	t.Run("Policy", func(t *testing.T) { testPolicy(t, cluster, admin) })
}

func testCapacity(t *testing.T, admin client.Client) {
	eventually(t, func() error {
		list := &storagev1.CSIStorageCapacityList{}
		if err := admin.List(t.Context(), list); err != nil {
			return err
		}
		if len(list.Items) != 4 { // of two classes on two nodes
			return fmt.Errorf("there are %d CSIStorageCapacities", len(list.Items))
		}
		for _, c := range list.Items {
			if c.Capacity.Value() != 10*gib || len(c.OwnerReferences) != 1 || c.OwnerReferences[0].Name != c.NodeTopology.MatchLabels[topologyKey] {
				return fmt.Errorf("one is %v", c)
			}
		}
		return nil
	})
}

// testClaim: a claim gets a volume, a larger one, and is deleted with its data.
func testClaim(t *testing.T, admin client.Client, a *fake) {
	claim := newClaim("data", "local", "1Gi", "a")
	create(t, admin, claim)
	volume := bound(t, admin, claim)
	if nodeOf(volume) != "a" || !a.has(volume.Spec.CSI.VolumeHandle) || !slices.Contains(volume.Finalizers, finalizer) {
		t.Errorf("the PersistentVolume is %v", volume)
	}

	grow := func(size string) {
		patch(t, admin, claim, func() { claim.Spec.Resources.Requests = storageList(size) })
	}
	grow("3Gi")
	eventually(t, func() error { return sized(t, admin, claim, "3Gi", "") })
	grow("9Ti")
	eventually(t, func() error {
		return sized(t, admin, claim, "3Gi", corev1.PersistentVolumeClaimControllerResizeInfeasible)
	})
	grow("4Gi") // the user thinks again (KEP-1790)
	eventually(t, func() error { return sized(t, admin, claim, "4Gi", "") })
	a.mu.Lock()
	a.online = true
	a.mu.Unlock()
	grow("5Gi")
	eventually(t, func() error {
		return sized(t, admin, claim, "4Gi", corev1.PersistentVolumeClaimNodeResizePending) // the kubelet does the rest
	})

	if err := admin.Delete(t.Context(), claim); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if err := admin.Get(t.Context(), client.ObjectKeyFromObject(volume), volume); !apierrors.IsNotFound(err) {
			return fmt.Errorf("the PersistentVolume is still there: %v, %w", volume.Status, err)
		}
		return nil
	})
	if a.has(volume.Spec.CSI.VolumeHandle) {
		t.Error("the data is still there")
	}
}

// testFull: the scheduler may choose again, and the user reads why.
func testFull(t *testing.T, admin client.Client) {
	claim := newClaim("large", "local", "9Ti", "a")
	create(t, admin, claim)
	eventually(t, func() error {
		if err := admin.Get(t.Context(), client.ObjectKeyFromObject(claim), claim); err != nil {
			return err
		}
		if selected, found := claim.Annotations[annSelectedNode]; found {
			return fmt.Errorf("node %s is still selected", selected)
		}
		return eventSays(t, admin, claim, reasonProvisioningFailed, "the disk is full")
	})
}

func testImmediate(t *testing.T, admin client.Client) {
	claim := newClaim("early", "immediate", "1Gi", "")
	create(t, admin, claim)
	if volume := bound(t, admin, claim); nodeOf(volume) != claim.Annotations[annSelectedNode] {
		t.Errorf("node %s has the volume, and the claim says %s", nodeOf(volume), claim.Annotations[annSelectedNode])
	}
}

// testSnapshot: a snapshot is taken by the node that has the volume, and what is restored from it
// goes to that node, though the scheduler has chosen another.
func testSnapshot(t *testing.T, admin client.Client, a *fake) {
	create(t, admin, &snapshotv1.VolumeSnapshotClass{ObjectMeta: metav1.ObjectMeta{Name: "local"}, Driver: driverName, DeletionPolicy: snapshotv1.VolumeSnapshotContentDelete})
	claim := newClaim("original", "local", "1Gi", "a")
	create(t, admin, claim)
	bound(t, admin, claim)
	snapshot := &snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "snap"}, Spec: snapshotv1.VolumeSnapshotSpec{
		VolumeSnapshotClassName: new("local"), Source: snapshotv1.VolumeSnapshotSource{PersistentVolumeClaimName: new("original")},
	}}
	create(t, admin, snapshot)
	eventually(t, func() error {
		if err := admin.Get(t.Context(), client.ObjectKeyFromObject(snapshot), snapshot); err != nil || !utils.IsSnapshotReady(snapshot) {
			return fmt.Errorf("the snapshot is not ready: %v, %w", snapshot.Status, err)
		}
		return nil
	})
	for name, from := range map[string]corev1.TypedLocalObjectReference{
		"restored": {APIGroup: ptr.To(snapshotv1.GroupName), Kind: kindSnapshot, Name: "snap"},
		"cloned":   {Kind: kindClaim, Name: "original"},
	} {
		copied := newClaim(name, "local", "2Gi", "b")
		copied.Spec.DataSource = &from
		create(t, admin, copied)
		if volume := bound(t, admin, copied); nodeOf(volume) != "a" {
			t.Errorf("what is %s is on node %s", name, nodeOf(volume))
		}
	}
	if err := admin.Delete(t.Context(), snapshot); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(a.snapshots) > 0 {
			return fmt.Errorf("the snapshot's data is still there: %v", a.snapshots)
		}
		return nil
	})
}

// testPolicy: the driver of node b reaches nothing of node a.
func testPolicy(t *testing.T, cluster *envtest.Environment, admin client.Client) {
	b, err := client.New(userOf(t, cluster, "system:flyball:storage:b", "system:flyball:storage"), client.Options{Scheme: admin.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	s := pending()
	s.Claim.UID, s.Class.Name = "stolen", "local"
	s.Claim.Namespace, s.Claim.Spec.AccessModes = "default", []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	theirs := newVolume(s, &csi.Volume{VolumeId: "x", CapacityBytes: gib})
	s.Node = "b"
	own := newVolume(s, &csi.Volume{VolumeId: "x", CapacityBytes: gib})
	own.Name = "own"
	other := own.DeepCopy()
	other.Spec.CSI.Driver = "example.com"
	anywhere := own.DeepCopy()
	anywhere.Spec.NodeAffinity = nil
	for reason, volume := range map[string]*corev1.PersistentVolume{"of node a": theirs, "of another driver": other, "of no node": anywhere} {
		if err := b.Create(t.Context(), volume); !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) {
			t.Errorf("creating a PersistentVolume %s: %v, want it refused", reason, err)
		}
	}
	if err := b.Create(t.Context(), own); err != nil {
		t.Errorf("creating a PersistentVolume of its own: %v", err)
	}
	capacities, volumes := &storagev1.CSIStorageCapacityList{}, &corev1.PersistentVolumeList{}
	if err := errors.Join(admin.List(t.Context(), capacities), admin.List(t.Context(), volumes)); err != nil {
		t.Fatal(err)
	}
	for _, c := range capacities.Items {
		if c.NodeTopology.MatchLabels[topologyKey] == "a" {
			if err := b.Delete(t.Context(), &c); !apierrors.IsForbidden(err) {
				t.Errorf("deleting a CSIStorageCapacity of node a: %v", err)
			}
		}
	}
	for _, v := range volumes.Items {
		if nodeOf(&v) == "a" {
			changed := v.DeepCopy()
			changed.Finalizers = nil
			if err := b.Patch(t.Context(), changed, client.MergeFrom(&v)); !apierrors.IsForbidden(err) {
				t.Errorf("patching a PersistentVolume of node a: %v", err)
			}
			if err := b.Delete(t.Context(), &v); !apierrors.IsForbidden(err) {
				t.Errorf("deleting a PersistentVolume of node a: %v", err)
			}
		}
	}
	claim := &corev1.PersistentVolumeClaim{}
	if err := admin.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "original"}, claim); err != nil {
		t.Fatal(err)
	}
	mine := claim.DeepCopy()
	mine.Annotations[annSelectedNode] = "b"
	if err := b.Patch(t.Context(), mine, client.MergeFrom(claim)); !apierrors.IsForbidden(err) {
		t.Errorf("taking a claim of node a: %v", err)
	}
	larger := claim.DeepCopy()
	larger.Status.Capacity = storageList("9Ti")
	if err := b.Status().Patch(t.Context(), larger, client.MergeFrom(claim)); !apierrors.IsForbidden(err) {
		t.Errorf("changing the status of a claim of node a: %v", err)
	}
}

func newClaim(name, class, size, node string) *corev1.PersistentVolumeClaim {
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Annotations: map[string]string{}},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: storageList(size)},
		},
	}
	if node != "" {
		claim.Annotations[annSelectedNode] = node
	}
	return claim
}

func create(t *testing.T, c client.Client, o client.Object) {
	t.Helper()
	if err := c.Create(t.Context(), o); err != nil {
		t.Fatalf("creating %T %s: %v", o, o.GetName(), err)
	}
}

// patch applies change to claim as it is now.
func patch(t *testing.T, c client.Client, claim *corev1.PersistentVolumeClaim, change func()) {
	t.Helper()
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(claim), claim); err != nil {
		t.Fatal(err)
	}
	before := claim.DeepCopy()
	change()
	if err := c.Patch(t.Context(), claim, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
}

// bound waits until a claim is bound. It returns its PersistentVolume.
func bound(t *testing.T, c client.Client, claim *corev1.PersistentVolumeClaim) *corev1.PersistentVolume {
	t.Helper()
	volume := &corev1.PersistentVolume{}
	eventually(t, func() error {
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(claim), claim); err != nil || claim.Status.Phase != corev1.ClaimBound {
			return fmt.Errorf("claim %s is not bound: %v, %w", claim.Name, claim.Annotations, err)
		}
		return c.Get(t.Context(), client.ObjectKey{Name: claim.Spec.VolumeName}, volume)
	})
	return volume
}

func sized(t *testing.T, c client.Client, claim *corev1.PersistentVolumeClaim, size string, state corev1.ClaimResourceStatus) error {
	t.Helper()
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(claim), claim); err != nil {
		return err
	}
	has := claim.Status.Capacity[corev1.ResourceStorage]
	if has.Cmp(resource.MustParse(size)) != 0 || claim.Status.AllocatedResourceStatuses[corev1.ResourceStorage] != state {
		return fmt.Errorf("the claim has %s, want %s and %q: %v", has.String(), size, state, claim.Status)
	}
	reported := slices.ContainsFunc(claim.Status.Conditions, func(c corev1.PersistentVolumeClaimCondition) bool {
		return slices.Contains(resizeConditions, c.Type)
	})
	if reported != (state != "") {
		return fmt.Errorf("the conditions are %v", claim.Status.Conditions)
	}
	return nil
}

func eventSays(t *testing.T, c client.Client, o client.Object, reason, part string) error {
	t.Helper()
	list := &corev1.EventList{}
	if err := c.List(t.Context(), list, client.InNamespace(o.GetNamespace())); err != nil {
		return err
	}
	for _, e := range list.Items {
		if e.InvolvedObject.UID == o.GetUID() && e.Reason == reason && strings.Contains(e.Message, part) {
			return nil
		}
	}
	return fmt.Errorf("no Event %s says %q", reason, part)
}

func eventually(t *testing.T, condition func() error) {
	t.Helper()
	var last error
	if err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		last = condition()
		return last == nil, nil
	}); err != nil {
		t.Fatal(last)
	}
}

// run runs something until the test ends.
func run(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func userOf(t *testing.T, cluster *envtest.Environment, name string, groups ...string) *rest.Config {
	t.Helper()
	user, err := cluster.AddUser(envtest.User{Name: name, Groups: groups}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return user.Config()
}

// startCluster starts an API server with upstream's controllers and what the server applies.
func startCluster(t *testing.T) (*envtest.Environment, client.Client) {
	t.Helper()
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		assets = filepath.Join("..", "bin", "envtest")
	}
	if _, err := os.Stat(filepath.Join(assets, "kube-apiserver")); err != nil {
		t.Fatalf("finding kube-apiserver: %v; run `make build bin/envtest/kube-apiserver bin/envtest/etcd`, or set KUBEBUILDER_ASSETS", err)
	}
	ctrl.SetLogger(klog.Background())
	t.Setenv("FLYBALL_ENVTEST", "controllers")
	cluster := &envtest.Environment{
		BinaryAssetsDirectory: assets, ControlPlaneStartTimeout: 2 * time.Minute,
		CRDDirectoryPaths: []string{filepath.Join("..", "config", "crd", "snapshots")}, ErrorIfCRDPathMissing: true,
	}
	rc, err := cluster.Start()
	t.Cleanup(func() { _ = cluster.Stop() })
	if err != nil {
		t.Fatal("starting kube-apiserver: ", err)
	}
	known := runtime.NewScheme()
	_ = scheme.AddToScheme(known)
	_ = snapshotv1.AddToScheme(known)
	admin, err := client.New(rc, client.Options{Scheme: known})
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []fs.FS{config.Storage, config.StorageClass, config.Snapshots} {
		files, _ := fs.Glob(from, "storage/*.yaml")
		for _, file := range files {
			apply(t, admin, from, file)
		}
	}
	create(t, admin, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "immediate"}, Provisioner: driverName})
	return cluster, admin
}

func apply(t *testing.T, admin client.Client, from fs.FS, file string) {
	t.Helper()
	reader, err := from.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for decoder := yaml.NewYAMLOrJSONDecoder(reader, 4096); ; {
		o := &unstructured.Unstructured{}
		if err := decoder.Decode(&o.Object); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		if len(o.Object) > 0 {
			create(t, admin, o)
		}
	}
}

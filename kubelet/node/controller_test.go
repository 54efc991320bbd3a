package node

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/retry"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fakeCRI struct {
	runtimeapi.RuntimeServiceClient
	runtimeapi.ImageServiceClient

	mu      sync.Mutex
	down    bool
	network bool
	images  []*runtimeapi.Image
}

func (f *fakeCRI) change(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeCRI) Version(context.Context, *runtimeapi.VersionRequest, ...grpc.CallOption) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{RuntimeName: "containerd", RuntimeVersion: "2.4.2"}, nil
}

func (f *fakeCRI) Status(context.Context, *runtimeapi.StatusRequest, ...grpc.CallOption) (*runtimeapi.StatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, errors.New("connection refused")
	}
	return &runtimeapi.StatusResponse{
		Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
			{Type: "RuntimeReady", Status: true},
			{Type: "NetworkReady", Status: f.network, Reason: "NetworkPluginNotReady", Message: "cni plugin not initialized"},
		}},
		RuntimeHandlers: []*runtimeapi.RuntimeHandler{{Name: "runc"}, {Name: ""}},
		Features:        &runtimeapi.RuntimeFeatures{SupplementalGroupsPolicy: true},
	}, nil
}

func (f *fakeCRI) ListImages(context.Context, *runtimeapi.ListImagesRequest, ...grpc.CallOption) (*runtimeapi.ListImagesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &runtimeapi.ListImagesResponse{Images: f.images}, nil
}

// newClient is a fake API, and reports when a watch of Nodes has begun: unlike a real one, it
// forgets what happens between the list and the watch. Nodes have resource versions, and an update
// of an older one is a conflict, as with a real one.
func newClient(objects ...runtime.Object) (client *fake.Clientset, watching chan struct{}) {
	client, watching = fake.NewClientset(objects...), make(chan struct{}, 10)
	var mu sync.Mutex
	version := 0
	stamp := func(object runtime.Object) {
		version++
		object.(*v1.Node).ResourceVersion = strconv.Itoa(version)
	}
	client.PrependReactor("create", "nodes", func(action clienttesting.Action) (bool, runtime.Object, error) {
		mu.Lock()
		defer mu.Unlock()
		stamp(action.(clienttesting.CreateAction).GetObject())
		return false, nil, nil
	})
	client.PrependReactor("update", "nodes", func(action clienttesting.Action) (bool, runtime.Object, error) {
		mu.Lock()
		defer mu.Unlock()
		node := action.(clienttesting.UpdateAction).GetObject().(*v1.Node)
		if node.ResourceVersion != "" && node.ResourceVersion != strconv.Itoa(version) {
			return true, nil, apierrors.NewConflict(v1.Resource("nodes"), node.Name, errors.New("the object has been modified"))
		}
		stamp(node)
		return true, node, client.Tracker().Update(v1.SchemeGroupVersion.WithResource("nodes"), node, "")
	})
	client.PrependWatchReactor("nodes", func(action clienttesting.Action) (bool, watch.Interface, error) {
		w, err := client.Tracker().Watch(action.GetResource(), action.GetNamespace())
		watching <- struct{}{}
		return true, w, err
	})
	return client, watching
}

// writeStatus changes the status of the Node as another client does.
func writeStatus(t *testing.T, client kubernetes.Interface, change func(*v1.NodeStatus)) {
	t.Helper()
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		node, err := client.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(&node.Status)
		_, err = client.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// running starts a Node against a fake API, and ends it with the test.
func running(t *testing.T, client kubernetes.Interface, cri *fakeCRI) (n *Controller, ready chan struct{}) {
	t.Helper()
	ready = make(chan struct{})
	n = New(Config{
		Name: "n1", IPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Client: client, Runtime: cri, Images: cri, Port: 10250,
		Host: hostInfo(t), RootDir: t.TempDir(), Labels: map[string]string{"disk": "fast"},
		Recorder: record.NewFakeRecorder(100), Ready: func() { close(ready) },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return n, ready
}

// TestReport registers at an API server that refuses at first.
func TestReport(t *testing.T) {
	client := fake.NewClientset()
	refusals := 2
	client.PrependReactor("create", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
		refusals--
		return refusals >= 0, nil, errors.New("refused")
	})
	ctx, cancel := context.WithCancel(t.Context())
	reported := make(chan error, 10)
	cri := &fakeCRI{network: true}
	n := New(Config{
		Name: "n1", IPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Client: client, Runtime: cri, Images: cri, Port: 10250,
		Host: hostInfo(t), RootDir: t.TempDir(), Recorder: record.NewFakeRecorder(100), Report: func(err error) { reported <- err }, Ready: cancel,
	})
	if err := n.Run(ctx); err != nil {
		t.Fatal(err)
	}
	close(reported)
	var got []string
	for err := range reported {
		got = append(got, err.Error())
	}
	failure := "registering the Node, which is retried; the API server must be reachable and know the identity system:node:n1: creating Node n1: refused"
	if diff := cmp.Diff([]string{failure, failure}, got); diff != "" {
		t.Errorf("reports -want +got:\n%s", diff)
	}
}

// soon waits for a signal.
func soon(t *testing.T, signal <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-signal:
	case <-time.After(10 * time.Second):
		t.Fatalf("timed out waiting until %s", what)
	}
}

// eventually waits until the Node in the API is as wanted.
func eventually(t *testing.T, client kubernetes.Interface, why string, ok func(*v1.Node) bool) {
	t.Helper()
	var last *v1.Node
	err := wait.PollUntilContextTimeout(t.Context(), 2*time.Millisecond, 10*time.Second, true, func(ctx context.Context) (bool, error) {
		n, err := client.CoreV1().Nodes().Get(ctx, "n1", metav1.GetOptions{})
		if err != nil {
			return false, nil //nolint:nilerr // not there yet
		}
		last = n
		return ok(n), nil
	})
	if err != nil {
		t.Fatalf("%s: %v; the Node is %+v", why, err, last)
	}
}

func isReady(want v1.ConditionStatus) func(*v1.Node) bool {
	return func(n *v1.Node) bool { return condition(n, v1.NodeReady).Status == want }
}

func TestNodeLife(t *testing.T) {
	client, watching := newClient()
	cri := &fakeCRI{}
	n, ready := running(t, client, cri)

	eventually(t, client, "it registers although there is no network yet", isReady(v1.ConditionFalse))
	soon(t, watching, "it watches its Node")
	if l, err := client.CoordinationV1().Leases(v1.NamespaceNodeLease).List(t.Context(), metav1.ListOptions{}); err != nil || len(l.Items) > 1 {
		t.Errorf("leases: %v, %v", l, err)
	}
	cri.change(func() { cri.network = true })
	eventually(t, client, "the network is there", isReady(v1.ConditionTrue))
	soon(t, ready, "it is Ready")

	cri.change(func() {
		cri.images = []*runtimeapi.Image{{Id: "i", RepoTags: []string{"flyball.dev/hello:1"}, Size: 7}}
	})
	n.Recheck()
	eventually(t, client, "an image was pulled, and Recheck was called", func(n *v1.Node) bool {
		return len(n.Status.Images) == 1 && n.Status.Images[0].SizeBytes == 7
	})

	writeStatus(t, client, func(status *v1.NodeStatus) { status.Conditions[3].Status = v1.ConditionUnknown })
	eventually(t, client, "the node lifecycle controller had marked it Unknown", isReady(v1.ConditionTrue))

	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 10*time.Second, true, func(ctx context.Context) (bool, error) {
		l, err := client.CoordinationV1().Leases(v1.NamespaceNodeLease).Get(ctx, "n1", metav1.GetOptions{})
		return err == nil && *l.Spec.LeaseDurationSeconds == 40 && len(l.OwnerReferences) == 1, nil
	})
	if err != nil {
		t.Errorf("the lease: %v", err)
	}
}

// TestDeletedNode: an administrator who deletes a Node removes the host from the cluster until its agent is started
// again.
func TestDeletedNode(t *testing.T) {
	client, watching := newClient()
	cri := &fakeCRI{network: true}
	for _, start := range []string{"first", "second"} {
		ctx, cancel := context.WithCancel(t.Context())
		reported, ready, ended := make(chan error, 100), make(chan struct{}), make(chan error, 1)
		n := New(Config{
			Name: "n1", IPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Client: client, Runtime: cri, Images: cri, Port: 10250,
			Host: hostInfo(t), RootDir: t.TempDir(), Recorder: record.NewFakeRecorder(100), Report: func(err error) { reported <- err }, Ready: func() { close(ready) },
		})
		go func() { ended <- n.Run(ctx) }()
		soon(t, ready, "it is Ready")
		soon(t, watching, "it watches its Node")
		eventually(t, client, "the "+start+" start registers it", isReady(v1.ConditionTrue))
		if err := client.CoreV1().Nodes().Delete(ctx, "n1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		for found := false; !found; {
			select {
			case err := <-reported:
				found = strings.Contains(err.Error(), "Node n1 was deleted; restart")
			case <-time.After(10 * time.Second):
				t.Fatal("nothing reported that the Node was deleted")
			}
		}
		n.Recheck()
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if list, err := client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{}); err != nil || len(list.Items) > 0 {
			t.Errorf("after the %s start there are %d Nodes (%v): it came back by itself", start, len(list.Items), err)
		}
	}
}

func TestExistingNodeIsReconciled(t *testing.T) {
	client := fake.NewClientset(&v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"theirs": "x", v1.LabelHostname: "old"}},
		Spec:       v1.NodeSpec{PodCIDR: "10.42.0.0/24"},
	})
	_, ready := running(t, client, &fakeCRI{network: true})
	soon(t, ready, "it is Ready")
	n, err := client.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if n.Labels["theirs"] != "x" || n.Labels[v1.LabelHostname] != "n1" || n.Labels["disk"] != "fast" || n.Spec.PodCIDR == "" {
		t.Errorf("labels %v, podCIDR %q", n.Labels, n.Spec.PodCIDR)
	}
}

func hostInfo(t *testing.T) HostInfo {
	t.Helper()
	info, err := ReadHostInfo(t.TempDir(), 110)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func TestHostInfo(t *testing.T) {
	info := hostInfo(t)
	has, system := info.Capacity, info.System
	if has.Cpu().Value() < 1 || has.Memory().Value() < 1<<20 || has.StorageEphemeral().IsZero() || has.Pods().Value() != 110 {
		t.Errorf("something is missing: %+v", has)
	}
	if system.BootID == "" || system.KernelVersion == "" || system.OSImage == "" || system.KubeletVersion == "" {
		t.Errorf("something is missing: %+v", system)
	}
	if u := readUsage(t.TempDir()); u.memoryAvailable == 0 || u.disk == 0 {
		t.Errorf("something is missing: %+v", u)
	}
}

func TestHugePages(t *testing.T) {
	dir := t.TempDir() + "/"
	for name, pages := range map[string]string{"hugepages-2048kB": "3", "hugepages-1048576kB": "0"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "nr_hugepages"), []byte(pages+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := v1.ResourceList{}
	if err := addHugePages(got, dir); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(v1.ResourceList{"hugepages-2Mi": resource.MustParse("6Mi"), "hugepages-1Gi": resource.MustParse("0")}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if err := addHugePages(got, filepath.Join(dir, "none")); err != nil {
		t.Errorf("a kernel without huge pages: %v", err)
	}
}

func TestLargestImages(t *testing.T) {
	var images []*runtimeapi.Image
	for i := range 60 {
		images = append(images, &runtimeapi.Image{
			Id: strconv.Itoa(i), Size: uint64(i), RepoTags: strings.Split("a b c d e f g", " "),
		})
	}
	top := largestImages(images)
	if len(top) != MaxImages || top[0].SizeBytes != 59 || len(top[0].Names) != maxNamesPerImage {
		t.Errorf("got %d images, the first of %d bytes with %d names", len(top), top[0].SizeBytes, len(top[0].Names))
	}
}

// A Node that the last agent left Ready is Ready for the next one too, although
// there is nothing to write.
func TestReadyAfterQuickRestart(t *testing.T) {
	client, cri := fake.NewClientset(), &fakeCRI{network: true}
	n, ready := running(t, client, cri)
	soon(t, ready, "it is Ready")
	eventually(t, client, "the first agent", isReady(v1.ConditionTrue))

	next := New(n.cfg)
	again := make(chan struct{})
	next.cfg.Ready = func() { close(again) }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- next.Run(ctx) }()
	soon(t, again, "the next agent says that the Node is Ready")
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

//go:build linux

package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/volumes/internal/tokens"
	"flyball.dev/kubelet/volumes/plan"
)

// fixture is a Manager with an API server that has only what the test puts there.
type fixture struct {
	*Manager
	tb      testing.TB
	client  *fake.Clientset
	tokens  atomic.Int32 // how many were signed
	watches chan string  // resource of each watch that began
	changed chan types.UID
	inUse   chan struct{}
	life    time.Duration // of tokens
	plugins []Plugin
	node    func() *v1.Node
	last    *Manager // that was started
	stop    func()
}

func newFixture(tb testing.TB, objects ...runtime.Object) *fixture {
	tb.Helper()
	if os.Getuid() != 0 {
		tb.Skip("mounting needs root")
	}
	f := &fixture{tb: tb, client: fake.NewClientset(objects...), watches: make(chan string, 100), changed: make(chan types.UID, 100), inUse: make(chan struct{}, 100), life: time.Hour, stop: func() {}}
	f.client.PrependReactor("create", "serviceaccounts", func(a clienttesting.Action) (bool, runtime.Object, error) {
		request := a.(clienttesting.CreateAction).GetObject().(*authenticationv1.TokenRequest).DeepCopy()
		request.Spec.ExpirationSeconds = new(int64(f.life / time.Second))
		request.Status.Token = fmt.Sprintf("token-%d", f.tokens.Add(1))
		request.Status.ExpirationTimestamp = metav1.NewTime(time.Now().Add(f.life))
		return true, request, nil
	})
	f.client.PrependWatchReactor("*", func(a clienttesting.Action) (bool, watch.Interface, error) {
		w, err := f.client.Tracker().Watch(a.GetResource(), a.GetNamespace())
		select {
		case f.watches <- a.GetResource().Resource:
		default: // nobody counts them
		}
		return true, w, err
	})
	f.Manager = f.restart(tb.TempDir())
	tb.Cleanup(f.cleanUp)
	return f
}

// restart gives a Manager that remembers nothing, and ends the one before.
func (f *fixture) restart(root string) *Manager {
	f.stop()
	m, err := New(Config{
		RootDir: root, Client: f.client, NodeName: "node-1",
		Allocatable: func() v1.ResourceList {
			return v1.ResourceList{v1.ResourceMemory: resource.MustParse("64Mi"), v1.ResourceCPU: resource.MustParse("2")}
		},
		Changed: func(uid types.UID) { f.changed <- uid },
		Event:   func(*v1.Pod, string, string, string) {},
		Plugins: f.plugins, Node: f.node, InUseChanged: func() { f.inUse <- struct{}{} },
	})
	if err != nil {
		f.tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = m.Run(ctx) }()
	f.stop = func() { cancel(); <-ended }
	f.last = m
	return m
}

// cleanUp leaves nothing mounted.
func (f *fixture) cleanUp() {
	f.stop()
	uids, err := f.last.ListPods()
	for _, uid := range uids {
		err = errors.Join(err, f.last.Unmount(context.Background(), uid))
	}
	for _, v := range f.last.volumes {
		err = errors.Join(err, f.last.release(context.Background(), v, plan.Target{}))
	}
	if err != nil {
		f.tb.Errorf("cleaning up: %v", err)
	}
}

// pod with these volumes, each mounted into its container.
func pod(volumes ...v1.Volume) *v1.Pod {
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "uid-1", Labels: map[string]string{"a": "1"}},
		Spec:       v1.PodSpec{ServiceAccountName: "default", Volumes: volumes, Containers: []v1.Container{{Name: "c"}}},
	}
	for _, v := range volumes {
		p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, v1.VolumeMount{Name: v.Name, MountPath: "/" + v.Name})
	}
	return p
}

func vol(source v1.VolumeSource) v1.Volume { return v1.Volume{Name: "v", VolumeSource: source} }

// files reads a volume: permissions and content by visible path.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		if strings.HasPrefix(rel, "..") && rel != ".." && d.IsDir() {
			return filepath.SkipDir
		}
		if strings.HasPrefix(rel, "..") || d.IsDir() {
			return nil
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.IsDir() { // a link to a directory of files
			for name, content := range files(t, path+"/") {
				out[filepath.Join(rel, name)] = content
			}
			return nil
		}
		content, err := os.ReadFile(path)
		out[rel] = fmt.Sprintf("%v %s", info.Mode(), content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// contentOf a file while it may be replaced.
func contentOf(dir, name string) string {
	raw, _ := os.ReadFile(filepath.Join(dir, name))
	return string(raw)
}

func (f *fixture) mount(p *v1.Pod) map[string]Mounted {
	f.tb.Helper()
	mounted, err := f.Mount(f.tb.Context(), p)
	if err != nil {
		f.tb.Fatal(err)
	}
	return mounted
}

// watching waits until a watch of a resource has begun: unlike a real API, the fake one forgets what happens between the
// list and the watch.
func (f *fixture) watching(resource string) {
	f.tb.Helper()
	for timeout := time.After(10 * time.Second); ; {
		select {
		case began := <-f.watches:
			if began == resource {
				return
			}
		case <-timeout:
			f.tb.Errorf("no watch of %s", resource)
			return
		}
	}
}

// nextChanged is the next Pod that the Manager has reconciled.
func (f *fixture) nextChanged() types.UID {
	f.tb.Helper()
	select {
	case uid := <-f.changed:
		return uid
	case <-time.After(10 * time.Second):
		f.tb.Fatal("Changed was not called")
		return ""
	}
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting until %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func configMapOf(version string, data map[string]string) *v1.ConfigMap {
	return &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "cm", Namespace: "ns", ResourceVersion: version}, Data: data}
}

func secretOf(data map[string]string) *v1.Secret {
	s := &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "ns", ResourceVersion: "1"}, Data: map[string][]byte{}}
	for k, v := range data {
		s.Data[k] = []byte(v)
	}
	return s
}

func TestContents(t *testing.T) {
	cm := v1.LocalObjectReference{Name: "cm"}
	none := v1.LocalObjectReference{Name: "none"}
	mode := ptr.To[int32](0o400)
	cases := map[string]struct {
		reason  string
		source  v1.VolumeSource
		fsGroup *int64
		kind    string
		want    map[string]string
		err     string
	}{
		"ConfigMap": {
			reason: "all keys, with the default mode",
			source: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: cm, DefaultMode: mode}},
			kind:   "kubernetes.io~configmap",
			want:   map[string]string{"a": "-r-------- 1", "b": "-r-------- 2"},
		},
		"ConfigMapItems": {
			reason: "listed keys, at their paths, with their modes",
			source: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: cm, Items: []v1.KeyToPath{{Key: "a", Path: "deep/er/x", Mode: mode}}}},
			kind:   "kubernetes.io~configmap",
			want:   map[string]string{"deep/er/x": "-r-------- 1"},
		},
		"ConfigMapNoKey": {
			reason: "a listed key that is missing is an error",
			source: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: cm, Items: []v1.KeyToPath{{Key: "z", Path: "z"}}}},
			err:    `MountVolume.SetUp failed for volume "v" : configmap references non-existent config key: z`,
		},
		"ConfigMapMissing": {
			reason: "in upstream's words",
			source: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: none}},
			err:    `MountVolume.SetUp failed for volume "v" : configmap "none" not found`,
		},
		"ConfigMapOptional": {
			reason: "an optional one that is missing is an empty directory",
			source: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: none, Optional: new(true)}},
			kind:   "kubernetes.io~configmap",
			want:   map[string]string{},
		},
		"Secret": {
			reason:  "fsGroup may read, whatever the mode",
			source:  v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: "s", DefaultMode: mode}},
			fsGroup: ptr.To[int64](1234),
			kind:    "kubernetes.io~secret",
			want:    map[string]string{"k": "-r--r----- hush"},
		},
		"SecretMissing": {
			reason: "in upstream's words",
			source: v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: "none"}},
			err:    `MountVolume.SetUp failed for volume "v" : secret "none" not found`,
		},
		"Downward": {
			reason: "fields and resources; a missing limit is the node's",
			source: v1.VolumeSource{DownwardAPI: &v1.DownwardAPIVolumeSource{Items: []v1.DownwardAPIVolumeFile{
				{Path: "labels", FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
				{Path: "memory", ResourceFieldRef: &v1.ResourceFieldSelector{ContainerName: "c", Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}},
			}}},
			kind: "kubernetes.io~downward-api",
			want: map[string]string{"labels": `-rw-r--r-- a="1"`, "memory": "-rw-r--r-- 64"},
		},
		"Projected": {
			reason: "what every Pod has: a token, the CA, and its namespace",
			source: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{
				{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To[int64](3607)}},
				{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: cm, Items: []v1.KeyToPath{{Key: "a", Path: "ca.crt"}}}},
				{Secret: &v1.SecretProjection{LocalObjectReference: v1.LocalObjectReference{Name: "s"}}},
				{DownwardAPI: &v1.DownwardAPIProjection{Items: []v1.DownwardAPIVolumeFile{{Path: "namespace", FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.namespace"}}}}},
			}}},
			kind: "kubernetes.io~projected",
			want: map[string]string{"token": "-rw-r--r-- token-1", "ca.crt": "-rw-r--r-- 1", "k": "-rw-r--r-- hush", "namespace": "-rw-r--r-- ns"},
		},
		"TokenOfGroup": {
			reason:  "with an fsGroup a token is for that group alone",
			fsGroup: ptr.To[int64](1234),
			source: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{
				{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token"}},
			}}},
			kind: "kubernetes.io~projected",
			want: map[string]string{"token": "-rw-r----- token-1"},
		},
		"Unsupported": {
			reason: "a kind that we do not have says so",
			source: v1.VolumeSource{NFS: &v1.NFSVolumeSource{Server: "x", Path: "/"}},
			err:    `MountVolume.SetUp failed for volume "v" : volume kind nfs is not supported: use a CSI driver, such as nfs.csi.k8s.io`,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, configMapOf("1", map[string]string{"a": "1", "b": "2"}), secretOf(map[string]string{"k": "hush"}))
			p := pod(vol(tc.source))
			p.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: tc.fsGroup}
			mounted, err := f.Mount(t.Context(), p)
			if tc.err != "" {
				var e *Error
				if !errors.As(err, &e) || e.Message != tc.err {
					t.Errorf("%s\nMount() = %v, want %s", tc.reason, err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(f.pods, "uid-1", "volumes", tc.kind, "v")
			want := map[string]Mounted{"v": {HostPath: dir, ReadOnly: true, SELinuxRelabel: true}}
			if diff := cmp.Diff(want, mounted); diff != "" {
				t.Errorf("%s\nMount() -want +got:\n%s", tc.reason, diff)
			}
			if diff := cmp.Diff(tc.want, files(t, dir)); diff != "" {
				t.Errorf("%s\nfiles -want +got:\n%s", tc.reason, diff)
			}
			if tmpfs := isTmpfs(t, dir); tmpfs != (tc.source.ConfigMap == nil) {
				t.Errorf("in memory: %v; secrets and tokens are, ConfigMaps are not", tmpfs)
			}
			for range 2 { // the second time there is nothing left to do
				if err := f.Unmount(t.Context(), p.UID); err != nil {
					t.Fatal(err)
				}
			}
			if uids, err := f.ListPods(); err != nil || len(uids) != 0 {
				t.Errorf("ListPods() = %v, %v after Unmount, want none", uids, err)
			}
		})
	}
}

func isTmpfs(t *testing.T, dir string) bool {
	t.Helper()
	is, err := mountinfo.Mounted(dir)
	if err != nil {
		t.Fatal(err)
	}
	return is
}

func TestEmptyDir(t *testing.T) {
	f := newFixture(t)
	p := pod(
		v1.Volume{Name: "disk", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}},
		v1.Volume{Name: "memory", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory, SizeLimit: new(resource.MustParse("1Mi"))}}},
		v1.Volume{Name: "unused", VolumeSource: v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: "none"}}},
	)
	p.Spec.Containers[0].VolumeMounts = p.Spec.Containers[0].VolumeMounts[:2]
	p.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: ptr.To[int64](1234)}
	mounted := f.mount(p)
	if len(mounted) != 2 {
		t.Errorf("mounted %v, want the two that a container uses", mounted)
	}
	modes := map[string]string{}
	for name, v := range mounted {
		info, err := os.Stat(v.HostPath)
		if err != nil {
			t.Fatal(err)
		}
		modes[name] = fmt.Sprintf("%v %d", info.Mode(), info.Sys().(*syscall.Stat_t).Gid) //nolint:forcetypeassert // Linux
	}
	if diff := cmp.Diff(map[string]string{"disk": "dgrwxrwxrwx 1234", "memory": "dgtrwxrwxrwx 1234"}, modes); diff != "" {
		t.Errorf("modes and groups -want +got:\n%s", diff)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(mounted["memory"].HostPath, &st); err != nil {
		t.Fatal(err)
	}
	if size := int64(st.Blocks) * st.Bsize; st.Type != unix.TMPFS_MAGIC || size != 1<<20 {
		t.Errorf("file system type %x with %d bytes, want tmpfs with 1 Mi", st.Type, size)
	}
	// What a container wrote outlives another Mount, also by a Manager without memory.
	for _, v := range mounted {
		if err := os.WriteFile(filepath.Join(v.HostPath, "x"), []byte("kept"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	second := f.restart(filepath.Dir(f.pods))
	if _, err := second.Mount(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	for _, v := range mounted {
		if diff := cmp.Diff(map[string]string{"x": "-rw------- kept"}, files(t, v.HostPath)); diff != "" {
			t.Errorf("after mounting again -want +got:\n%s", diff)
		}
	}
	third := f.restart(filepath.Dir(f.pods))
	if err := third.Unmount(t.Context(), p.UID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.podDir(p.UID)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the Pod's directory is still there: %v", err)
	}
}

func TestUnmountSparesWhatIsBelowAMount(t *testing.T) {
	f := newFixture(t)
	p := pod(vol(v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}))
	mounted := f.mount(p)
	// A container with Bidirectional propagation has mounted something of the
	// host into its volume, and another thing over that.
	precious := t.TempDir()
	if err := os.WriteFile(filepath.Join(precious, "x"), []byte("keep me"), 0o600); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(mounted["v"].HostPath, "inner")
	if err := os.Mkdir(target, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := unix.Mount(precious, target, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	}
	// A link out of the volume is not followed either.
	if err := os.Symlink(precious, filepath.Join(mounted["v"].HostPath, "link")); err != nil {
		t.Fatal(err)
	}
	if err := f.Unmount(t.Context(), p.UID); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"x": "-rw------- keep me"}, files(t, precious)); diff != "" {
		t.Errorf("the host's files -want +got:\n%s", diff)
	}
}

func TestUnmountRefusesStrangeUIDs(t *testing.T) {
	f := newFixture(t)
	f.mount(pod(vol(v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}})))
	for _, uid := range []types.UID{"", ".", "..", "../x", "/etc", "a/b"} {
		if err := f.Unmount(t.Context(), uid); err == nil {
			t.Errorf("Unmount(%q) succeeded", uid)
		}
	}
	if _, err := os.Stat(f.pods); err != nil {
		t.Errorf("the directory of all Pods is gone: %v", err)
	}
}

func TestRefresh(t *testing.T) {
	f := newFixture(t, configMapOf("1", map[string]string{"a": "old", "gone": "x"}))
	p := pod(vol(v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "cm"}}}))
	dir := f.mount(p)["v"].HostPath
	f.watching("configmaps")
	if _, err := f.client.CoreV1().ConfigMaps("ns").Update(t.Context(), configMapOf("2", map[string]string{"a": "new"}), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the files are the new ones", func() bool {
		_, err := os.Stat(filepath.Join(dir, "gone"))
		return contentOf(dir, "a") == "new" && errors.Is(err, fs.ErrNotExist)
	})
	cm, err := f.ConfigMap(t.Context(), "ns", "cm")
	if err != nil || cm.Data["a"] != "new" {
		t.Errorf("ConfigMap() = %v, %v: the environment must see what the volume shows", cm, err)
	}
}

func TestMissingObjectAppears(t *testing.T) {
	f := newFixture(t)
	p := pod(vol(v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "cm"}}}))
	if _, err := f.Mount(t.Context(), p); err == nil {
		t.Fatal("Mount() succeeded without the ConfigMap")
	}
	f.watching("configmaps")
	if _, err := f.client.CoreV1().ConfigMaps("ns").Create(t.Context(), configMapOf("7", map[string]string{"a": "1"}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if uid := f.nextChanged(); uid != p.UID {
		t.Errorf("Changed(%s), want %s", uid, p.UID)
	}
	f.mount(p)
}

func TestLabelsChange(t *testing.T) {
	f := newFixture(t)
	p := pod(vol(v1.VolumeSource{DownwardAPI: &v1.DownwardAPIVolumeSource{Items: []v1.DownwardAPIVolumeFile{
		{Path: "l", FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.labels['a']"}},
	}}}))
	dir := f.mount(p)["v"].HostPath
	p = p.DeepCopy()
	p.Labels["a"] = "2"
	f.mount(p)
	if diff := cmp.Diff(map[string]string{"l": "-rw-r--r-- 2"}, files(t, dir)); diff != "" {
		t.Errorf("files -want +got:\n%s", diff)
	}
}

func TestTokensAreCachedAndRenewed(t *testing.T) {
	f := newFixture(t)
	token := v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{
		{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To[int64](3600)}},
	}}}
	p := pod(vol(token))
	for range 3 {
		f.mount(p)
	}
	if n := f.tokens.Load(); n != 1 {
		t.Errorf("%d tokens were signed for three Mounts of one Pod, want 1", n)
	}
	f.life = 2 * time.Second
	short := pod(vol(token))
	short.UID = "uid-2"
	dir := f.mount(short)["v"].HostPath
	first := contentOf(dir, "token")
	eventually(t, "the token is replaced", func() bool { return contentOf(dir, "token") != first })
}

// TestTokenCannotBeRenewed: the old one serves until it expires, and the API server is not asked in a
// tight loop.
func TestTokenCannotBeRenewed(t *testing.T) {
	f := newFixture(t)
	source := &v1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To[int64](3600)}
	token, _, err := f.token(t.Context(), pod(), source)
	if err != nil {
		t.Fatal(err)
	}
	for _, known := range f.Manager.tokens {
		known.Status.ExpirationTimestamp = metav1.NewTime(time.Now().Add(time.Minute))
	}
	f.client.PrependReactor("create", "serviceaccounts", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("no answer")
	})
	again, next, err := f.token(t.Context(), pod(), source)
	if err != nil || again != token || time.Until(next) < tokenRetry/2 {
		t.Errorf("token() = %q, %v, %v", again, next, err)
	}
	for _, known := range f.Manager.tokens {
		known.Status.ExpirationTimestamp = metav1.NewTime(time.Now())
	}
	if _, _, err := f.token(t.Context(), pod(), source); err == nil {
		t.Error("an expired token is used")
	}
}

func TestRenewal(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	request := func(life time.Duration) *authenticationv1.TokenRequest {
		r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: new(int64(life / time.Second))}}
		r.Status.ExpirationTimestamp = metav1.NewTime(now.Add(life))
		return r
	}
	cases := map[string]struct {
		reason string
		life   time.Duration
		want   time.Duration
	}{
		"Hour": {reason: "at 80 % of its life", life: time.Hour, want: 48 * time.Minute},
		"Year": {reason: "after a day at the latest", life: 365 * 24 * time.Hour, want: 24 * time.Hour},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(now.Add(tc.want), tokens.Renewal(request(tc.life))); diff != "" {
				t.Errorf("%s\nrenewal() -want +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func TestUnmountEndsWatches(t *testing.T) {
	f := newFixture(t, configMapOf("1", nil))
	p := pod(vol(v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "cm"}}}))
	other := p.DeepCopy()
	other.UID = "uid-2"
	f.mount(p)
	f.mount(other)
	f.watching("configmaps")
	if err := f.Unmount(t.Context(), p.UID); err != nil {
		t.Fatal(err)
	}
	select {
	case r := <-f.watches:
		t.Errorf("a second watch of %s: both Pods share one", r)
	default:
	}
	// The other Pod still hears of changes.
	if _, err := f.client.CoreV1().ConfigMaps("ns").Update(t.Context(), configMapOf("2", nil), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if uid := f.nextChanged(); uid != other.UID {
		t.Errorf("Changed(%s), want %s", uid, other.UID)
	}
}

//go:build linux

package volumes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"flyball.dev/internal/mounts"
	"flyball.dev/kubelet/volumes/internal/mounter"
)

// Answers of a driver to a call.
const (
	succeeds = iota
	fails    // and has done nothing
	lost     // has done it, but says that it failed
	half     // has made the directory, and nothing else
	hangs    // until the caller gives up, and has done nothing
	late     // until the caller gives up, and has done it
	twice    // gets the call again before it answers
)

// driver is a StagingPlugin whose mounts are directories with a file of data in them: what is
// removed while it is there would be lost data. Its state survives the Manager, as that of a driver
// does.
type driver struct {
	mu                sync.Mutex
	answers           []int              // to the next calls; then it succeeds
	giveUp            context.CancelFunc // ends the context of the callers
	staged, published map[string]string  // handles, by path
	running           map[types.UID]bool // Pods whose containers may use their volumes
	broken            []string           // rules
}

func (*driver) Name() string { return "example.com/driver" }

func (*driver) CanSupport(s Spec) bool { return s.PersistentVolume != nil }

func (d *driver) Identify(_ context.Context, s Spec) (Volume, error) {
	handle := s.PersistentVolume.Spec.CSI.VolumeHandle
	return Volume{
		Name: v1.UniqueVolumeName(d.Name() + "/" + handle), Stage: !strings.HasPrefix(handle, "unstaged"),
		Attributes: map[string]string{"handle": handle},
	}, nil
}

// call has the effect, or not.
func (d *driver) call(ctx context.Context, path string, effect func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	answer := succeeds
	if len(d.answers) > 0 {
		answer, d.answers = d.answers[0], d.answers[1:]
	}
	switch answer {
	case fails:
		return errCrash
	case half:
		return errors.Join(os.MkdirAll(path, 0o750), errCrash)
	case hangs:
		d.giveUp()
		return context.Cause(ctx)
	case twice:
		if err := effect(); err != nil {
			return err
		}
	}
	err := effect()
	switch answer {
	case lost:
		return errCrash
	case late:
		d.giveUp()
		return context.Cause(ctx)
	}
	return err
}

func (d *driver) rulef(kept bool, format string, args ...any) {
	if !kept {
		d.broken = append(d.broken, fmt.Sprintf(format, args...))
	}
}

// mountAt and unmountAt are idempotent.
func (d *driver) mountAt(all map[string]string, path, handle string) error {
	all[path] = handle
	return errors.Join(os.MkdirAll(path, 0o750), os.WriteFile(filepath.Join(path, "data"), []byte(handle), 0o600))
}

func (d *driver) unmountAt(all map[string]string, path string) error {
	delete(all, path)
	if err := os.Remove(filepath.Join(path, "data")); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (d *driver) Stage(ctx context.Context, _ Spec, v Volume, path string) error {
	return d.call(ctx, path, func() error { return d.mountAt(d.staged, path, v.Attributes["handle"]) })
}

func (d *driver) Publish(ctx context.Context, s Spec, v Volume, paths Paths) (Published, error) {
	out := Published{Mounted: Mounted{HostPath: paths.Target, Device: s.Block()}}
	return out, d.call(ctx, paths.Target, func() error {
		handle := v.Attributes["handle"]
		d.rulef(!v.Stage || d.staged[paths.Staging] == handle, "%s is published before it is staged", handle)
		for path, other := range d.published {
			same := d.pod(path) == s.Pod.UID
			d.rulef(!v.Exclusive || other != handle || same, "%s is published twice", handle)
		}
		return d.mountAt(d.published, paths.Target, handle)
	})
}

func (d *driver) Unpublish(ctx context.Context, v Volume, target string) error {
	return d.call(ctx, target, func() error {
		d.rulef(!d.running[d.pod(target)], "%s is unpublished under a running Pod", target)
		return d.unmountAt(d.published, target)
	})
}

func (d *driver) Unstage(ctx context.Context, v Volume, path string) error {
	return d.call(ctx, path, func() error {
		handle := v.Attributes["handle"]
		d.rulef(!slices.Contains(slices.Collect(maps.Values(d.published)), handle), "%s is unstaged while it is published", handle)
		return d.unmountAt(d.staged, path)
	})
}

// pod is the one that a target belongs to.
func (d *driver) pod(target string) types.UID {
	_, rest, _ := strings.Cut(target, "/pods/")
	uid, _, _ := strings.Cut(rest, "/")
	return types.UID(uid)
}

// check returns which rules were broken, and what data was removed while it was mounted.
func (d *driver) check() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, all := range []map[string]string{d.staged, d.published} {
		for path, handle := range all {
			d.rulef(contentOf(path, "data") == handle, "the data of %s at %s was removed", handle, path)
		}
	}
	return d.broken
}

// claimsOf makes Pods by UID, and a claim for each volume that they name.
func claimsOf(pods map[types.UID][]string) (map[types.UID]*v1.Pod, *fake.Clientset) {
	client, made := fake.NewClientset(), map[types.UID]*v1.Pod{}
	for uid, handles := range pods {
		p := pod()
		p.UID = uid
		c := &p.Spec.Containers[0]
		for _, handle := range handles {
			source := &v1.PersistentVolumeClaimVolumeSource{ClaimName: handle}
			p.Spec.Volumes = append(p.Spec.Volumes, v1.Volume{
				Name: "v-" + handle, VolumeSource: v1.VolumeSource{PersistentVolumeClaim: source},
			})
			pair := newClaim(v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{VolumeHandle: handle}})
			pair.claim.Name, pair.claim.Spec.VolumeName, pair.pv.Name = handle, "pv-"+handle, "pv-"+handle
			switch handle {
			case "block", "other-block":
				pair.pv.Spec.VolumeMode = ptr.To(v1.PersistentVolumeBlock)
				c.VolumeDevices = append(c.VolumeDevices, v1.VolumeDevice{Name: "v-" + handle})
			case "exclusive":
				pair.pv.Spec.AccessModes = []v1.PersistentVolumeAccessMode{v1.ReadWriteOncePod}
				fallthrough
			default:
				c.VolumeMounts = append(c.VolumeMounts, v1.VolumeMount{Name: "v-" + handle})
			}
			_ = client.Tracker().Add(pair.claim) // the second time it is there
			_ = client.Tracker().Add(pair.pv)
		}
		made[uid] = p
	}
	return made, client
}

// agent is a Manager that crashes. Its worker for idle volumes is called by the test.
type agent struct {
	*Manager
	driver *driver
	pods   map[types.UID]*v1.Pod
	client *fake.Clientset
	root   string
	wanted map[types.UID]bool
	// leaving are Pods whose volumes are being removed: their workers do nothing else until that
	// succeeds.
	leaving map[types.UID]bool
}

func (a *agent) restart(t *rapid.T) {
	m, err := New(Config{
		RootDir: a.root, Client: a.client, NodeName: "node-1", Plugins: []Plugin{a.driver},
		Allocatable: func() v1.ResourceList { return nil }, Node: func() *v1.Node { return nil },
		InUseChanged: func() {}, Changed: func(types.UID) {}, Event: func(*v1.Pod, string, string, string) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	a.Manager, a.leaving = m, map[types.UID]bool{}
}

// sync brings one Pod to what is wanted, as its worker does, and says whether that has succeeded.
func (a *agent) sync(uid types.UID) bool {
	ctx := a.call()
	if !a.wanted[uid] {
		a.driver.running[uid] = false // its containers have ended
		a.leaving[uid] = a.Unmount(ctx, uid) != nil
		return !a.leaving[uid]
	}
	_, err := a.Mount(ctx, a.pods[uid])
	a.driver.running[uid] = a.driver.running[uid] || err == nil
	return err == nil
}

// call returns a context that ends when the driver hangs.
func (a *agent) call() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	a.driver.giveUp = cancel
	return ctx
}

// unstage works off the queue of idle volumes.
func (a *agent) unstage() bool {
	a.mu.Lock()
	names := slices.Collect(maps.Keys(a.volumes))
	a.mu.Unlock()
	done := true
	for _, name := range names {
		done = a.unstageIdle(a.call(), name) == nil && done
	}
	return done
}

// settle syncs everything without failures: the Pods that the API server has, those that only have
// files, and volumes that no Pod has.
func (a *agent) settle(t *rapid.T) {
	a.driver.answers = nil
	uids, err := a.ListPods()
	if err != nil {
		t.Fatal(err)
	}
	for _, uid := range slices.Concat(uids, slices.Collect(maps.Keys(a.wanted)), uids) {
		if !a.sync(uid) && !a.wanted[uid] {
			t.Fatalf("Pod %s cannot be unmounted", uid)
		}
	}
	if !a.unstage() {
		t.Fatal("a volume cannot be unstaged")
	}
}

// TestRandomCrashes drives Pods that share volumes through crashes of the agent at any moment, and
// through all that a driver may answer. In the end every Pod has its volumes, and nothing else is on
// the node.
func TestRandomCrashes(t *testing.T) {
	pods, client := claimsOf(map[types.UID][]string{
		"a": {"shared", "block", "other-block", "exclusive"}, "b": {"shared", "block", "unstaged"}, "c": {"exclusive"},
	})
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	root, runs := t.TempDir(), 0
	if err := mounter.Tmpfs(root, 0, nil); err != nil { // records are synced to the disk
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mounts.Unmount(root) })
	rapid.Check(t, func(t *rapid.T) {
		runs++
		d := &driver{staged: map[string]string{}, published: map[string]string{}, running: map[types.UID]bool{}}
		a := &agent{driver: d, pods: pods, client: client, root: filepath.Join(root, fmt.Sprint(runs)), wanted: map[types.UID]bool{}}
		a.restart(t)
		uid := rapid.SampledFrom(slices.Sorted(maps.Keys(pods)))
		answers := rapid.SliceOfN(rapid.IntRange(succeeds, twice), 0, 6)
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				if broken := d.check(); len(broken) > 0 {
					t.Fatal(strings.Join(broken, "\n"))
				}
			},
			"comes": func(t *rapid.T) {
				d.answers = answers.Draw(t, "answers")
				u := uid.Draw(t, "uid")
				if a.leaving[u] {
					t.Skip("it would be another Pod")
				}
				a.wanted[u] = true
				a.sync(u)
			},
			"goes": func(t *rapid.T) {
				d.answers = answers.Draw(t, "answers")
				u := uid.Draw(t, "uid")
				delete(a.wanted, u)
				a.sync(u)
			},
			"unstage": func(t *rapid.T) {
				d.answers = answers.Draw(t, "answers")
				a.unstage()
			},
			"crash": func(t *rapid.T) { a.restart(t) },
			// The Pod was deleted while the node was away: nobody syncs it but the search for orphans.
			"deleted": func(t *rapid.T) {
				delete(a.wanted, uid.Draw(t, "uid"))
				a.restart(t)
			},
			"settle": func(t *rapid.T) { a.settle(t) },
		})
		a.settle(t)
		a.expect(t)
		clear(a.wanted)
		a.settle(t)
		a.expect(t)
	})
}

// expect compares what is on the node with what the Pods want.
func (a *agent) expect(t *rapid.T) {
	published, staged := map[string]string{}, map[string]bool{}
	exclusive := a.exclusiveTo()
	for uid := range a.wanted {
		for _, v := range a.pods[uid].Spec.Volumes {
			handle := v.PersistentVolumeClaim.ClaimName
			staged[handle] = true
			path := filepath.Join(a.Manager.pods, string(uid), "volumes", "example.com~driver", "pv-"+handle, "mount")
			switch handle {
			case "exclusive":
				if uid != exclusive {
					continue
				}
			case "block", "other-block":
				path = filepath.Join(a.Manager.pods, string(uid), "volumeDevices", "example.com~driver", "pv-"+handle)
			case "unstaged":
				delete(staged, handle)
			}
			published[path] = handle
		}
	}
	if diff := cmp.Diff(published, a.driver.published); diff != "" {
		t.Fatalf("published -want +got:\n%s", diff)
	}
	got := map[string]bool{}
	for _, handle := range a.driver.staged {
		got[handle] = true
	}
	if diff := cmp.Diff(staged, got); diff != "" {
		t.Fatalf("staged -want +got:\n%s", diff)
	}
	records, err := a.records.read()
	if err != nil || len(records) != len(published)+len(staged) {
		t.Fatalf("%d records for %d and %d volumes, %v", len(records), len(published), len(staged), err)
	}
	uids, err := a.ListPods()
	if diff := cmp.Diff(slices.Sorted(maps.Keys(a.wanted)), uids); diff != "" && len(uids)+len(a.wanted) > 0 {
		t.Fatalf("%v, Pods with files -want +got:\n%s", err, diff)
	}
}

// exclusiveTo is the Pod that has the exclusive volume; if several want it, it may be any of them.
func (a *agent) exclusiveTo() types.UID {
	for path, handle := range a.driver.published {
		if handle == "exclusive" {
			return a.driver.pod(path)
		}
	}
	return ""
}

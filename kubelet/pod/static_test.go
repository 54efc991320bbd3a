package pod

import (
	"context"
	"slices"
	"sync"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	kubetypes "k8s.io/kubernetes/pkg/kubelet/types"
)

// staticSource adds one static Pod to a watch of the API server.
type staticSource struct {
	watched

	mu      sync.Mutex
	pod     *v1.Pod
	handler cache.ResourceEventHandler
}

func (s *staticSource) Run(ctx context.Context, handler cache.ResourceEventHandler, synced func()) error {
	s.mu.Lock()
	s.handler = handler
	handler.OnAdd(s.pod, true)
	s.mu.Unlock()
	return s.watched.Run(ctx, handler, synced)
}

func (s *staticSource) static() *v1.Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pod
}

func (s *staticSource) Pods() []*v1.Pod {
	if static := s.static(); static != nil {
		return append(s.watched.Pods(), static)
	}
	return s.watched.Pods()
}

func (s *staticSource) Pod(namespace, name string) (*v1.Pod, bool) {
	if static := s.static(); static != nil && static.Namespace == namespace && static.Name == name {
		return static, true
	}
	return s.watched.Pod(namespace, name)
}

func (s *staticSource) remove() {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.pod
	s.pod = nil
	s.handler.OnDelete(old)
}

// mirror creates the mirror Pod of a static Pod with the given hash.
func (r *rig) mirror(uid types.UID, hash string) {
	r.t.Helper()
	r.create(func(p *v1.Pod) {
		p.UID = uid
		p.Annotations = map[string]string{kubetypes.ConfigSourceAnnotationKey: "file", kubetypes.ConfigMirrorAnnotationKey: hash}
	})
}

func TestStaticPod(t *testing.T) {
	r := newRig(t)
	source := &staticSource{watched: newWatched(r.api, "n1"), pod: testPod(func(p *v1.Pod) {
		p.UID, p.Spec.NodeName = "static", "n1"
		p.Annotations = map[string]string{kubetypes.ConfigSourceAnnotationKey: "file", kubetypes.ConfigHashAnnotationKey: "static"}
	})}
	r.pods = source
	r.start()
	r.eventually("the Pod runs although the API server does not know it", func() bool { return r.runtime.startCount() == 1 })

	r.mirror("mirror", "static")
	r.eventually("the mirror Pod has the status", r.phase(v1.PodRunning))
	if uid := r.pod().UID; uid != "mirror" {
		t.Errorf("the status was written to the UID %s", uid)
	}
	uids := func() (list []types.UID) {
		for _, p := range r.manager.Pods() {
			list = append(list, p.UID)
		}
		return list
	}
	if got := uids(); !slices.Equal(got, []types.UID{"static"}) {
		t.Errorf("the node has the Pods %v", got)
	}
	if p, ok := r.manager.Pod("default", "web"); !ok || p.UID != "static" || p.Status.Phase != v1.PodRunning {
		t.Errorf("the Pod is %+v", p)
	}

	r.delete(30)
	r.eventually("the mirror Pod is gone", func() bool { return r.pod() == nil })
	r.mirror("mirror2", "static")
	r.eventually("the next mirror Pod has the status", r.phase(v1.PodRunning))
	r.stop()
	r.pods = &staticSource{watched: newWatched(r.api, "n1"), pod: source.pod}
	r.start()
	r.eventually("the restarted agent knows the Pod", func() bool {
		p, ok := r.manager.Pod("default", "web")
		return ok && p.UID == "static" && p.Status.Phase == v1.PodRunning
	})
	if n := r.runtime.startCount(); n != 1 {
		t.Errorf("%d containers were started", n)
	}
	if len(r.runtime.pods) != 1 || r.runtime.pods["static"] == nil {
		t.Errorf("the runtime has %v", r.runtime.pods)
	}

	r.pods.(*staticSource).remove()
	r.nothingLeft()
}

// TestMirrorPodWithoutStaticPod has been left by an earlier static Pod, or was made by a user.
func TestMirrorPodWithoutStaticPod(t *testing.T) {
	r := newRig(t)
	r.mirror("mirror", "../../etc")
	r.start()
	r.nothingLeft()
	if n := r.runtime.startCount(); n != 0 {
		t.Errorf("%d containers were started", n)
	}
}

// TestAnnotationMakesNoStaticPod: a Pod of the API server may have any annotation.
func TestAnnotationMakesNoStaticPod(t *testing.T) {
	r := newRig(t)
	r.start()
	r.create(func(p *v1.Pod) {
		p.Annotations = map[string]string{kubetypes.ConfigSourceAnnotationKey: "file"}
	})
	r.eventually("the Pod runs", r.phase(v1.PodRunning))
	r.delete(1)
	r.nothingLeft()
}

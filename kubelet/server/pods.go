package server

import (
	"cmp"
	"maps"
	"net/http"
	"slices"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"flyball.dev/kubelet/cri"
)

// servePods lists the Pods of this node, with their status.
func (s *Server) servePods(w http.ResponseWriter, _ *http.Request) {
	writePods(w, lo.FromSlicePtr(s.cfg.Pods.Pods()))
}

// serveRunningPods lists all Pods that the runtime runs, also those of others. They have only a
// name and containers: the runtime knows no more.
func (s *Server) serveRunningPods(w http.ResponseWriter, r *http.Request) {
	running := &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}
	list, err := s.cfg.Runtime.ListContainers(r.Context(), &runtimeapi.ListContainersRequest{
		Filter: &runtimeapi.ContainerFilter{State: running},
	})
	if err != nil {
		http.Error(w, "listing containers: "+err.Error(), http.StatusInternalServerError)
		return
	}
	pods := map[types.UID]v1.Pod{}
	for _, c := range list.Containers {
		uid := types.UID(c.Labels[cri.LabelPodUID])
		p := pods[uid]
		p.Name, p.Namespace, p.UID = c.Labels[cri.LabelPodName], c.Labels[cri.LabelPodNamespace], uid
		p.Spec.Containers = append(p.Spec.Containers, v1.Container{
			Name: c.Labels[cri.LabelContainerName], Image: c.GetImage().GetImage(),
		})
		pods[uid] = p
	}
	writePods(w, slices.SortedFunc(maps.Values(pods), func(a, b v1.Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	}))
}

func writePods(w http.ResponseWriter, items []v1.Pod) {
	writeJSON(w, v1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Items: items})
}

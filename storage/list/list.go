// Package list reads which volumes a cluster has: each PersistentVolume with its claim, the Pods
// that use it, where it lies and how full it is. It reads the API server only, and so works from any
// host.
package list

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/samber/lo"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-helpers/storage/ephemeral"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Volume is a PersistentVolume.
type Volume struct {
	Name string `json:"name"`
	// Namespace and Claim name the claim that has it; empty if none has.
	Namespace string `json:"namespace,omitempty"`
	Claim     string `json:"claim,omitempty"`
	// Pods are the names of the Pods that use it, in Namespace.
	Pods []string `json:"pods,omitempty"`
	// Node is the node whose disk has it; empty if it is not on one node.
	Node string `json:"node,omitempty"`
	// Kind is directory or image for volumes of local.flyball.dev, and for others the CSI driver
	// or the kind of volume.
	Kind string `json:"kind"`
	// Size is its capacity in bytes, and Used how many of them are in use. Used is nil while no Pod
	// has it, or if the node does not say.
	Size int64   `json:"size"`
	Used *uint64 `json:"used,omitempty"`
	// Path is where it lies on the node, if that is known.
	Path string `json:"path,omitempty"`
}

// Heading is the row above those of volumes. Columns are separated by tabs.
const Heading = "NAME\tNAMESPACE\tCLAIM\tPOD\tNODE\tKIND\tSIZE\tUSED\tPATH"

// Row shows a volume.
func (v Volume) Row() string {
	used := "-"
	if v.Used != nil {
		used = human(int64(*v.Used))
	}
	cells := []string{v.Name, v.Namespace, v.Claim, strings.Join(v.Pods, ","), v.Node, v.Kind, human(v.Size), used, v.Path}
	return strings.Join(lo.Map(cells, func(c string, _ int) string { return cmp.Or(c, "-") }), "\t")
}

// human rounds up to whole mebibytes.
func human(bytes int64) string {
	q := resource.NewQuantity(bytes, resource.BinarySI)
	if bytes%(1<<20) != 0 {
		q.Set((bytes>>20 + 1) << 20)
	}
	return q.String()
}

// claim is the key of a claim.
type claim struct{ namespace, name string }

// Volumes returns all volumes, by name.
func Volumes(ctx context.Context, client kubernetes.Interface) ([]Volume, error) {
	volumes, err := client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing PersistentVolumes: %w", err)
	}
	pods, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing Pods: %w", err)
	}
	users := usersOf(pods.Items)
	used := usage(ctx, client, lo.Uniq(lo.FlatMap(lo.Values(users), func(pods []corev1.Pod, _ int) []string {
		return lo.Map(pods, func(p corev1.Pod, _ int) string { return p.Spec.NodeName })
	})))
	list := lo.Map(volumes.Items, func(volume corev1.PersistentVolume, _ int) Volume {
		v := describe(&volume)
		if ref := volume.Spec.ClaimRef; ref != nil {
			v.Namespace, v.Claim = ref.Namespace, ref.Name
			key := claim{ref.Namespace, ref.Name}
			v.Pods = lo.Map(users[key], func(p corev1.Pod, _ int) string { return p.Name })
			if volume.Status.Phase == corev1.VolumeBound {
				v.Used = used[key]
			}
		}
		return v
	})
	slices.SortFunc(list, func(a, b Volume) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// usersOf returns the Pods on nodes by the claims that they use.
func usersOf(pods []corev1.Pod) map[claim][]corev1.Pod {
	users := map[claim][]corev1.Pod{}
	for _, p := range pods {
		if p.Spec.NodeName == "" || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		for _, v := range p.Spec.Volumes {
			switch {
			case v.PersistentVolumeClaim != nil:
				key := claim{p.Namespace, v.PersistentVolumeClaim.ClaimName}
				users[key] = append(users[key], p)
			case v.Ephemeral != nil:
				key := claim{p.Namespace, ephemeral.VolumeClaimName(&p, &v)}
				users[key] = append(users[key], p)
			}
		}
	}
	return users
}

// usage asks the kubelets of nodes how full their Pods' claims are. A node that does not answer has
// none.
func usage(ctx context.Context, client kubernetes.Interface, nodes []string) map[claim]*uint64 {
	used := map[claim]*uint64{}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(16)
	for _, node := range nodes {
		g.Go(func() error {
			data, err := client.CoreV1().RESTClient().Get().Resource("nodes").Name(node).SubResource("proxy").Suffix("stats", "summary").DoRaw(ctx)
			var summary stats.Summary
			if err != nil || json.Unmarshal(data, &summary) != nil {
				return nil // the volume is shown without it
			}
			mu.Lock()
			defer mu.Unlock()
			for _, p := range summary.Pods {
				for _, v := range p.VolumeStats {
					if v.PVCRef != nil && v.UsedBytes != nil {
						used[claim{v.PVCRef.Namespace, v.PVCRef.Name}] = v.UsedBytes
					}
				}
			}
			return nil
		})
	}
	_ = g.Wait() // no function returns an error
	return used
}

// describe says what a PersistentVolume is and where.
func describe(volume *corev1.PersistentVolume) Volume {
	v := Volume{Name: volume.Name, Size: volume.Spec.Capacity.Storage().Value(), Node: nodeOf(volume)}
	switch s := volume.Spec.PersistentVolumeSource; {
	case s.CSI != nil:
		v.Kind, v.Path = cmp.Or(s.CSI.VolumeAttributes["type"], s.CSI.Driver), s.CSI.VolumeAttributes["path"]
		if s.CSI.Driver != "local.flyball.dev" {
			v.Kind, v.Path = s.CSI.Driver, ""
		}
	case s.Local != nil:
		v.Kind, v.Path = "local", s.Local.Path
	case s.HostPath != nil:
		v.Kind, v.Path = "hostPath", s.HostPath.Path
	default:
		v.Kind = "other"
	}
	return v
}

// nodeOf is the one node that a PersistentVolume can be used on; empty if there may be several.
func nodeOf(volume *corev1.PersistentVolume) string {
	if volume.Spec.NodeAffinity == nil || volume.Spec.NodeAffinity.Required == nil {
		return ""
	}
	for _, term := range volume.Spec.NodeAffinity.Required.NodeSelectorTerms {
		for _, e := range term.MatchExpressions {
			one := e.Operator == corev1.NodeSelectorOpIn && len(e.Values) == 1
			if one && (e.Key == "topology.local.flyball.dev/node" || e.Key == corev1.LabelHostname) {
				return e.Values[0]
			}
		}
	}
	return ""
}

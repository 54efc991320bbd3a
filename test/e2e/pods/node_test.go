package pods

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"flyball.dev/test/e2e/internal/cluster"
)

// TestNode compares what the Node says with what it should.
func TestNode(t *testing.T) {
	nodes, err := cluster.Client(t).CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) != 1 {
		t.Fatalf("there are %d nodes, %v", len(nodes.Items), err)
	}
	n := nodes.Items[0]
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourcePods, corev1.ResourceEphemeralStorage} {
		capacity, allocatable := n.Status.Capacity[name], n.Status.Allocatable[name]
		if capacity.IsZero() || allocatable.IsZero() || allocatable.Cmp(capacity) > 0 {
			t.Errorf("%s: capacity %s, allocatable %s", name, &capacity, &allocatable)
		}
	}
	info := n.Status.NodeInfo
	if info.KubeletVersion != "v1.37.2+flyball" || !strings.HasPrefix(info.ContainerRuntimeVersion, "containerd://") || info.KernelVersion == "" || info.OperatingSystem != "linux" {
		t.Errorf("the node's info is %+v", info)
	}
	for _, label := range []string{corev1.LabelHostname, corev1.LabelOSStable, corev1.LabelArchStable} {
		if n.Labels[label] == "" {
			t.Errorf("the node has no label %s", label)
		}
	}
	lease, err := cluster.Client(t).CoordinationV1().Leases("kube-node-lease").Get(t.Context(), n.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	first := lease.Spec.RenewTime
	cluster.Eventually(t, cluster.Soon, func() error {
		lease, err := cluster.Client(t).CoordinationV1().Leases("kube-node-lease").Get(t.Context(), n.Name, metav1.GetOptions{})
		if err != nil || lease.Spec.RenewTime.Equal(first) {
			return fmt.Errorf("the Lease was not renewed: %w", err)
		}
		return nil
	})
}

// TestStats asks the node agent for its figures.
func TestStats(t *testing.T) {
	ns := cluster.Namespace(t)
	cluster.Run(t, ns, "measured", pod(container("sleep", "inf")))
	node := cluster.Await(t, ns, "measured", cluster.Ready).Spec.NodeName
	proxy := "/api/v1/nodes/" + node + "/proxy"
	cluster.Eventually(t, cluster.Soon, func() error {
		var summary struct {
			Pods []struct {
				PodRef struct {
					Name      string `json:"name"`
					Namespace string `json:"namespace"`
				} `json:"podRef"`
			} `json:"pods"`
		}
		if err := json.Unmarshal([]byte(cluster.Kubectl(t, "get", "--raw", proxy+"/stats/summary")), &summary); err != nil {
			return err
		}
		for _, p := range summary.Pods {
			if p.PodRef.Namespace == ns && p.PodRef.Name == "measured" {
				return nil
			}
		}
		return errors.New("the summary lacks the Pod")
	})
	if got := cluster.Kubectl(t, "get", "--raw", proxy+"/healthz"); strings.TrimSpace(got) != "ok" {
		t.Errorf("/healthz answers %q", got)
	}
	if got := cluster.Kubectl(t, "get", "--raw", proxy+"/metrics"); !strings.Contains(got, "# TYPE") {
		t.Errorf("/metrics answers %q", got)
	}
}

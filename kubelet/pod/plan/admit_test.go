package plan

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// list is a ResourceList of names and quantities.
func list(pairs ...string) v1.ResourceList {
	out := v1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		out[v1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return out
}

func asking(pairs ...string) func(*v1.Pod) {
	return func(p *v1.Pod) { p.Spec.Containers[0].Resources.Requests = list(pairs...) }
}

func onPort(port int32, ip string) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Spec.Containers[0].Ports = []v1.ContainerPort{{HostPort: port, HostIP: ip, Protocol: v1.ProtocolTCP}}
	}
}

func TestAdmit(t *testing.T) {
	cases := map[string]struct {
		reason string
		pod    func(*v1.Pod)
		others []func(*v1.Pod)
		want   *Termination
	}{
		"Fits":        {reason: "to the last drop", pod: asking("cpu", "500m", "memory", "1Gi"), others: []func(*v1.Pod){asking("cpu", "500m")}},
		"CPU":         {reason: "in thousandths, as upstream says it", pod: asking("cpu", "501m"), others: []func(*v1.Pod){asking("cpu", "500m")}, want: Refuse("OutOfcpu", "Node didn't have enough resource: cpu, requested: 501, used: 500, capacity: 1000")},
		"Memory":      {reason: "in bytes", pod: asking("memory", "2Gi"), want: Refuse("OutOfmemory", "Node didn't have enough resource: memory, requested: 2147483648, used: 0, capacity: 1073741824")},
		"Hugepages":   {reason: "pages that the node does not have are not there", pod: asking("hugepages-2Mi", "2Mi"), want: Refuse("OutOfhugepages-2Mi", "Node didn't have enough resource: hugepages-2Mi, requested: 2097152, used: 0, capacity: 0")},
		"Extended":    {reason: "what the node does not count it does not refuse", pod: asking("example.com/licence", "1")},
		"Devices":     {reason: "what it does count it does", pod: asking("example.com/device", "2"), want: Refuse("OutOfexample.com/device", "Node didn't have enough resource: example.com/device, requested: 2, used: 0, capacity: 1")},
		"Pods":        {reason: "the number of Pods comes first", pod: asking("cpu", "9"), others: []func(*v1.Pod){nil, nil, nil}, want: Refuse("OutOfpods", "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3")},
		"Modest":      {reason: "who asks for nothing fits into a node that is overcommitted", others: []func(*v1.Pod){asking("cpu", "2")}},
		"Selector":    {reason: "the label has another value", pod: func(p *v1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "slow"} }, want: Refuse("NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector")},
		"Selected":    {reason: "the label is there", pod: func(p *v1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "fast"} }},
		"Port":        {reason: "one port, one Pod", pod: onPort(80, ""), others: []func(*v1.Pod){onPort(80, "192.0.2.1")}, want: Refuse("NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports")},
		"OtherIP":     {reason: "but per address", pod: onPort(80, "192.0.2.2"), others: []func(*v1.Pod){onPort(80, "192.0.2.1")}},
		"OtherPort":   {reason: "and port", pod: onPort(81, ""), others: []func(*v1.Pod){onPort(80, "")}},
		"OtherSystem": {reason: "there are no Windows containers here", pod: func(p *v1.Pod) { p.Spec.OS = &v1.PodOS{Name: v1.Windows} }, want: Refuse("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")},
		"Groups": {reason: "a runtime that cannot keep the promise must not run the Pod", pod: func(p *v1.Pod) {
			p.Spec.SecurityContext = &v1.PodSecurityContext{SupplementalGroupsPolicy: ptr.To(v1.SupplementalGroupsPolicyStrict)}
		}, want: Refuse("SupplementalGroupsPolicyNotSupported", "SupplementalGroupsPolicy=Strict is not supported in this node")},
	}
	node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"disk": "fast"}}}
	allocatable := list("cpu", "1", "memory", "1Gi", "pods", "3", "example.com/device", "1")
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var others []*v1.Pod
			for _, change := range tc.others {
				others = append(others, testPod(change))
			}
			if diff := cmp.Diff(tc.want, Admit(testPod(tc.pod), node, allocatable, others)); diff != "" {
				t.Errorf("%s\nAdmit() -want +got:\n%s", tc.reason, diff)
			}
		})
	}
}

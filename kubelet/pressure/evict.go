package pressure

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/kubernetes/pkg/kubelet/eviction/api"

	"flyball.dev/kubelet/pod/plan"
)

// hardGracePeriodSeconds is what a Pod gets to end when a hard threshold is met.
const hardGracePeriodSeconds int64 = 1

// termination is what a Pod is ended with: upstream's reason, message and annotations, which users
// and tools read.
func (c Config) termination(t api.Threshold, o Observation, p Pod) plan.Termination {
	name, amount, grace := meanings[t.Signal].resource, o.Signals[t.Signal], hardGracePeriodSeconds
	if t.GracePeriod > 0 {
		grace = c.MaxPodGracePeriodSeconds
	}
	annotations := map[string]string{"starved_resource": string(name)}
	message := fmt.Sprintf("The node was low on resource: %s. Threshold quantity: %s, available: %s. ",
		name, quantity(name, limit(t, amount.Capacity, false)), quantity(name, amount.Available))
	larger := func(kind, who string, usage int64, request v1.ResourceList) bool {
		q := request[name]
		if usage <= q.Value() {
			return false
		}
		message += fmt.Sprintf("%s %s was using %s, request is %s, has larger consumption of %s. ",
			kind, who, quantity(name, usage), &q, name)
		return true
	}
	if p.Usage != nil {
		if name == v1.ResourceMemory && resourcehelper.IsPodLevelResourcesSet(p.Pod) &&
			larger("Pod", p.Name, p.Usage.Memory, p.Spec.Resources.Requests) {
			annotations["offending_pod"], annotations["offending_pod_usage"] = p.Name, quantity(name, p.Usage.Memory).String()
		}
		var names, usages []string
		for _, cu := range p.Usage.Containers {
			usage := cu.Memory
			if name == v1.ResourceEphemeralStorage {
				usage = cu.Rootfs.Bytes + cu.Logs.Bytes
			}
			// Ephemeral containers cannot request anything: they are not blamed.
			for c := range podutil.ContainerIter(&p.Spec, podutil.InitContainers|podutil.Containers) {
				if c.Name == cu.Name && name != inodes && name != pids && larger("Container", c.Name, usage, c.Resources.Requests) {
					names, usages = append(names, c.Name), append(usages, quantity(name, usage).String())
				}
			}
		}
		annotations["offending_containers"] = strings.Join(names, ",")
		annotations["offending_containers_usage"] = strings.Join(usages, ",")
	}
	return plan.Termination{
		Reason: "Evicted", Message: message, Disruption: message, GracePeriodSeconds: &grace, Annotations: annotations,
	}
}

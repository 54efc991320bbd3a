package pod

import (
	"errors"
	"testing"

	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestRuntimeClass(t *testing.T) {
	r := newRig(t)
	r.start()
	pod := r.create(func(p *v1.Pod) { p.Spec.RuntimeClassName = new("sandboxed") })
	r.event(`Warning FailedCreatePodSandBox Failed to create pod sandbox: runtimeclasses.node.k8s.io "sandboxed" not found`)
	class := &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "sandboxed"}, Handler: "gvisor"}
	if _, err := r.api.NodeV1().RuntimeClasses().Create(t.Context(), class, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.eventually("the Pod runs", r.phase(v1.PodRunning))
	seen, _ := r.runtime.Observe(t.Context(), pod.UID)
	if got := seen.Sandboxes[0].Handler; got != "gvisor" {
		t.Errorf("the sandbox was made by %q", got)
	}
	r.delete(1)
	r.nothingLeft()
}

func TestSandboxEvents(t *testing.T) {
	noNetwork := errors.New("container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:cni plugin not initialized")
	for name, tc := range map[string]struct {
		reason       string
		change       func(*v1.Pod)
		refusal      error
		networkError error
		want         string
	}{
		"Runtime":     {reason: "the runtime's own words", refusal: errors.New("no such handler"), want: "Warning FailedCreatePodSandBox Failed to create pod sandbox: no such handler"},
		"Network":     {reason: "upstream's reason for a node that has no network yet", refusal: errors.New("setup network"), networkError: noNetwork, want: "Warning NetworkNotReady network is not ready: " + noNetwork.Error()},
		"HostNetwork": {reason: "that is not why a Pod on the host's network fails", change: func(p *v1.Pod) { p.Spec.HostNetwork = true }, refusal: errors.New("disk full"), networkError: noNetwork, want: "Warning FailedCreatePodSandBox Failed to create pod sandbox: disk full"},
		"DNS": {
			reason: "an Event says what is missing in the Pod's DNS, and the Pod runs all the same",
			change: func(p *v1.Pod) {
				p.Spec.DNSPolicy = v1.DNSNone
				p.Spec.DNSConfig = &v1.PodDNSConfig{Nameservers: []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"}}
			},
			want: "Warning DNSConfigForming Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: 192.0.2.1 192.0.2.2 192.0.2.3",
		},
		"NoClusterDNS": {
			reason: "so is a node without cluster DNS", change: func(p *v1.Pod) { p.Spec.DNSPolicy = v1.DNSClusterFirst },
			want: `Warning MissingClusterDNS pod: "web_default(u1)". kubelet does not have ClusterDNS IP configured and cannot create Pod using "ClusterFirst" policy. Falling back to "Default" policy.`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Log(tc.reason)
			r := newRig(t)
			r.runtime.refusal, r.runtime.networkError = tc.refusal, tc.networkError
			r.start()
			r.create(tc.change)
			r.event(tc.want)
			if tc.refusal == nil {
				r.eventually("the Pod runs", r.phase(v1.PodRunning))
			}
			r.stop()
		})
	}
}

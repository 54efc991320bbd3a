package cluster

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Run creates a Pod and returns it. It need not have started.
func Run(t testing.TB, ns, name string, spec corev1.PodSpec) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}}, Spec: spec}
	return Create(t, ns, pod)
}

// Create creates a Pod. Its containers get a name and an image, where they have none, and end at once when told to.
func Create(t testing.TB, ns string, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	for i := range pod.Spec.Containers {
		complete(&pod.Spec.Containers[i], fmt.Sprintf("c%d", i))
	}
	for i := range pod.Spec.InitContainers {
		complete(&pod.Spec.InitContainers[i], fmt.Sprintf("init%d", i))
	}
	if pod.Spec.TerminationGracePeriodSeconds == nil {
		one := int64(1)
		pod.Spec.TerminationGracePeriodSeconds = &one
	}
	pod, err := Client(t).CoreV1().Pods(ns).Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

func complete(c *corev1.Container, name string) {
	if c.Name == "" {
		c.Name = name
	}
	if c.Image == "" {
		c.Image = Toolbox
	}
}

// Await returns the Pod once check returns nil for it.
func Await(t testing.TB, ns, name string, check func(*corev1.Pod) error) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	Eventually(t, Soon, func() error {
		var err error
		if pod, err = Client(t).CoreV1().Pods(ns).Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			return err
		}
		if err := check(pod); err != nil {
			return fmt.Errorf("pod %s: %w; its status is %s", name, err, describe(pod))
		}
		return nil
	})
	return pod
}

// Ready is a check: the Pod is Ready.
func Ready(pod *corev1.Pod) error {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return nil
		}
	}
	return errors.New("it is not Ready")
}

// Phase is a check: the Pod is in the phase.
func Phase(phase corev1.PodPhase) func(*corev1.Pod) error {
	return func(pod *corev1.Pod) error {
		if pod.Status.Phase != phase {
			return fmt.Errorf("it is %s, not %s", pod.Status.Phase, phase)
		}
		return nil
	}
}

// WaitingFor is a check: a container of the Pod waits for this reason.
func WaitingFor(reason string) func(*corev1.Pod) error {
	return func(pod *corev1.Pod) error {
		for _, s := range append(pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses...) {
			if s.State.Waiting != nil && s.State.Waiting.Reason == reason {
				return nil
			}
		}
		return fmt.Errorf("no container waits for %s", reason)
	}
}

// AwaitEvent returns once the Pod has an Event with the reason.
func AwaitEvent(t testing.TB, ns, pod, reason string) {
	t.Helper()
	Eventually(t, Soon, func() error {
		events, err := Client(t).CoreV1().Events(ns).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + pod})
		if err != nil {
			return err
		}
		var have []string
		for _, e := range events.Items {
			if e.Reason == reason {
				return nil
			}
			have = append(have, e.Reason)
		}
		return fmt.Errorf("pod %s has no Event %s, only %s", pod, reason, strings.Join(have, ", "))
	})
}

// Output runs a Pod to its end and returns what it printed.
func Output(t testing.TB, ns, name string, spec corev1.PodSpec) string {
	t.Helper()
	spec.RestartPolicy = corev1.RestartPolicyNever
	Run(t, ns, name, spec)
	Await(t, ns, name, Phase(corev1.PodSucceeded))
	return Kubectl(t, "logs", "-n", ns, name, "--all-containers")
}

func describe(pod *corev1.Pod) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", pod.Status.Phase, pod.Status.Reason)
	for _, s := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		fmt.Fprintf(&b, "; %s ready=%t restarts=%d", s.Name, s.Ready, s.RestartCount)
		switch {
		case s.State.Waiting != nil:
			fmt.Fprintf(&b, " waiting: %s %s", s.State.Waiting.Reason, s.State.Waiting.Message)
		case s.State.Terminated != nil:
			fmt.Fprintf(&b, " terminated: %s %d %s", s.State.Terminated.Reason, s.State.Terminated.ExitCode, s.State.Terminated.Message)
		}
	}
	return b.String()
}

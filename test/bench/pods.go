package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
)

const benchLabel = "bench"

type client struct {
	kubernetes.Interface
	image string
}

func (c *client) pod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{benchLabel: ""}},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: ptr.To[int64](0),
			Containers:                    []corev1.Container{{Name: "pause", Image: c.image, ImagePullPolicy: corev1.PullIfNotPresent}},
		},
	}
}

func (c *client) create(ctx context.Context, name string) error {
	_, err := c.CoreV1().Pods(corev1.NamespaceDefault).Create(ctx, c.pod(name), metav1.CreateOptions{})
	return err
}

// firstPod asks for a Pod until the API takes it, since a young cluster refuses Pods until the default service
// account is there, and says when it runs.
func (c *client) firstPod(ctx context.Context, runs func()) error {
	events, err := c.CoreV1().Pods(corev1.NamespaceDefault).Watch(ctx, metav1.ListOptions{LabelSelector: benchLabel})
	if err != nil {
		return fmt.Errorf("watching Pods: %w", err)
	}
	defer events.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for err := c.create(ctx, "first"); err != nil; err = c.create(ctx, "first") {
		select {
		case <-ctx.Done():
			return fmt.Errorf("creating the first Pod: %w", err)
		case <-tick.C:
		}
	}
	if err := until(ctx, events, "first", running); err != nil {
		return err
	}
	runs()
	return c.delete(ctx, events, "first")
}

func (c *client) delete(ctx context.Context, events watch.Interface, name string) error {
	if err := c.CoreV1().Pods(corev1.NamespaceDefault).Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("deleting Pod %s: %w", name, err)
	}
	return until(ctx, events, name, gone)
}

func (c *client) untilNodeReady(ctx context.Context) error {
	// resourceVersion 0 delivers the nodes that exist as ADDED events first.
	events, err := c.CoreV1().Nodes().Watch(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return fmt.Errorf("watching Nodes: %w", err)
	}
	defer events.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for a Ready node: %w", ctx.Err())
		case event, ok := <-events.ResultChan():
			if !ok {
				return fmt.Errorf("waiting for a Ready node: the watch ended")
			}
			node, isNode := event.Object.(*corev1.Node)
			if isNode && nodeReady(node) {
				return nil
			}
		}
	}
}

func nodeReady(node *corev1.Node) bool {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// podLatency starts and deletes n Pods, one after the other.
func (c *client) podLatency(ctx context.Context, n int, f *figures) error {
	events, err := c.CoreV1().Pods(corev1.NamespaceDefault).Watch(ctx, metav1.ListOptions{LabelSelector: benchLabel})
	if err != nil {
		return fmt.Errorf("watching Pods: %w", err)
	}
	defer events.Stop()
	for i := range n {
		name := fmt.Sprintf("one-%d", i)
		began := time.Now()
		if err := c.create(ctx, name); err != nil {
			return fmt.Errorf("creating Pod %s: %w", name, err)
		}
		if err := until(ctx, events, name, running); err != nil {
			return err
		}
		f.podStart = append(f.podStart, time.Since(began))
		began = time.Now()
		if err := c.delete(ctx, events, name); err != nil {
			return err
		}
		f.podEnd = append(f.podEnd, time.Since(began))
	}
	return nil
}

// burst creates n Pods at once and waits until the last is Running, then deletes them.
func (c *client) burst(ctx context.Context, n int, f *figures) error {
	events, err := c.CoreV1().Pods(corev1.NamespaceDefault).Watch(ctx, metav1.ListOptions{LabelSelector: benchLabel})
	if err != nil {
		return fmt.Errorf("watching Pods: %w", err)
	}
	defer events.Stop()
	began := time.Now()
	if err := c.runAll(ctx, events, "burst", n); err != nil {
		return err
	}
	f.burst = time.Since(began)
	if err := c.CoreV1().Pods(corev1.NamespaceDefault).DeleteCollection(ctx, metav1.DeleteOptions{},
		metav1.ListOptions{LabelSelector: benchLabel}); err != nil {
		return fmt.Errorf("deleting a burst of Pods: %w", err)
	}
	return untilAll(ctx, events, n, gone)
}

// runPods starts n Pods and leaves them running.
func (c *client) runPods(ctx context.Context, prefix string, n int) error {
	events, err := c.CoreV1().Pods(corev1.NamespaceDefault).Watch(ctx, metav1.ListOptions{LabelSelector: benchLabel})
	if err != nil {
		return fmt.Errorf("watching Pods: %w", err)
	}
	defer events.Stop()
	return c.runAll(ctx, events, prefix, n)
}

func (c *client) runAll(ctx context.Context, events watch.Interface, prefix string, n int) error {
	for i := range n {
		if err := c.create(ctx, fmt.Sprintf("%s-%d", prefix, i)); err != nil {
			return fmt.Errorf("creating %d Pods: %w", n, err)
		}
	}
	return untilAll(ctx, events, n, running)
}

func running(event watch.Event, pod *corev1.Pod) bool {
	return event.Type != watch.Deleted && pod.Status.Phase == corev1.PodRunning
}

func gone(event watch.Event, _ *corev1.Pod) bool { return event.Type == watch.Deleted }

func until(ctx context.Context, events watch.Interface, name string, reached func(watch.Event, *corev1.Pod) bool) error {
	return untilAll(ctx, events, 1, func(event watch.Event, pod *corev1.Pod) bool { return pod.Name == name && reached(event, pod) })
}

// untilAll waits until n different Pods have reached something.
func untilAll(ctx context.Context, events watch.Interface, n int, reached func(watch.Event, *corev1.Pod) bool) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	done := map[string]bool{}
	for len(done) < n {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for Pods, %d of %d done: %w", len(done), n, ctx.Err())
		case event, ok := <-events.ResultChan():
			if !ok {
				return fmt.Errorf("waiting for Pods, %d of %d done: the watch ended", len(done), n)
			}
			if pod, isPod := event.Object.(*corev1.Pod); isPod && reached(event, pod) {
				done[pod.Name] = true
			}
		}
	}
	return nil
}

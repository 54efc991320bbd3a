package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

const (
	namespace = metav1.NamespaceDefault
	node      = "simulated"
	// parallel is how many Pods the simulated kubelet treats at a time.
	parallel = 32
	// patience is how long a figure may take.
	patience = 5 * time.Minute
)

// cluster is an API server with a simulated kubelet.
type cluster struct{ kubernetes.Interface }

// simulate makes every Pod Ready once it is seen, and removes it once it is deleted. Pods are created with their node, so
// that no scheduler's time is in the figures.
func (c *cluster) simulate(ctx context.Context) {
	work := make(chan *corev1.Pod, 1<<16) //nolint:mnd // more than there are Pods: an informer must not wait
	factory := informers.NewSharedInformerFactory(c, 0)
	handle := func(object any) {
		pod, ok := object.(*corev1.Pod)
		if !ok {
			return
		}
		// With no grace left the API server is about to remove it.
		ends := pod.DeletionTimestamp != nil && *pod.DeletionGracePeriodSeconds > 0
		if ends || pod.DeletionTimestamp == nil && pod.Status.Phase == corev1.PodPending {
			work <- pod
		}
	}
	_, _ = factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: handle, UpdateFunc: func(_, object any) { handle(object) },
	})
	factory.Start(ctx.Done())
	for range parallel {
		go func() {
			for {
				select {
				case <-ctx.Done():
					return
				case pod := <-work:
					c.treat(ctx, pod)
				}
			}
		}()
	}
}

// treat ignores errors: a Pod that changed comes again.
func (c *cluster) treat(ctx context.Context, pod *corev1.Pod) {
	if pod.DeletionTimestamp != nil {
		_ = c.CoreV1().Pods(namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
		return
	}
	patch := fmt.Sprintf(`{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True","lastTransitionTime":%q}]}}`, metav1.Now().UTC().Format(time.RFC3339))
	_, _ = c.CoreV1().Pods(namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
}

// deploy creates a Deployment and returns how long it took until all of its Pods were available.
func (c *cluster) deploy(ctx context.Context, name string, pods int) (time.Duration, error) {
	labels := map[string]string{"app": name}
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(pods)), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "image:1"}}},
			},
		},
	}
	return c.time(ctx, name, int32(pods), func() error {
		_, err := c.AppsV1().Deployments(namespace).Create(ctx, d, metav1.CreateOptions{})
		return err
	})
}

// roll changes the template and returns how long it took until all Pods were new and available.
func (c *cluster) roll(ctx context.Context, name string) (time.Duration, error) {
	d, err := c.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return 0, fmt.Errorf("reading Deployment %s: %w", name, err)
	}
	return c.time(ctx, name, *d.Spec.Replicas, func() error {
		patch := `{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"image:2"}]}}}}`
		_, err := c.AppsV1().Deployments(namespace).Patch(ctx, name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
		return err
	})
}

// remove scales a Deployment to nothing, so that its Pods weigh on no later figure.
func (c *cluster) remove(ctx context.Context, name string) error {
	_, err := c.time(ctx, name, 0, func() error {
		_, err := c.AppsV1().Deployments(namespace).Patch(ctx, name, types.MergePatchType, []byte(`{"spec":{"replicas":0}}`), metav1.PatchOptions{})
		return err
	})
	return err
}

// time does something to a Deployment and returns how long it took until its status says that all is done.
func (c *cluster) time(ctx context.Context, name string, pods int32, do func() error) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	began := time.Now()
	if err := do(); err != nil {
		return 0, fmt.Errorf("changing Deployment %s: %w", name, err)
	}
	selector := fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	events, err := c.AppsV1().Deployments(namespace).Watch(ctx, metav1.ListOptions{FieldSelector: selector})
	if err != nil {
		return 0, fmt.Errorf("watching Deployment %s: %w", name, err)
	}
	defer events.Stop()
	var last appsv1.DeploymentStatus
	for {
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("waiting for Deployment %s: %w; its status: %+v", name, context.Cause(ctx), last)
		case event, open := <-events.ResultChan():
			if !open {
				return 0, errors.New("waiting for Deployment " + name + ": the watch ended")
			}
			d, ok := event.Object.(*appsv1.Deployment)
			if !ok {
				continue
			}
			last = d.Status
			if s := d.Status; s.ObservedGeneration >= d.Generation && s.UpdatedReplicas == pods && s.Replicas == pods && s.AvailableReplicas == pods {
				return time.Since(began), nil
			}
		}
	}
}

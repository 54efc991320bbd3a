package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"flyball.dev/flyballtest"
)

// restored is a cluster that is taken back between tests, and how long that took.
type restored struct {
	name    string
	options []flyballtest.Option
	pods    bool // there are nodes
	// checkpoint was taken once, restore is measured each time after something has happened.
	checkpoint, restore []time.Duration
}

// measure starts the cluster, and takes it back as often as runs says.
func (r *restored) measure(ctx context.Context, flyball string, runs int) (err error) {
	cluster, err := flyballtest.New(append(r.options, flyballtest.WithProgram(flyball))...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	client, err := kubernetes.NewForConfig(cluster.Config())
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	began := time.Now()
	fresh, err := cluster.Checkpoint()
	if err != nil {
		return err
	}
	r.checkpoint = append(r.checkpoint, time.Since(began))
	for i := range runs {
		fmt.Fprintf(os.Stderr, "envtest: %s: restore %d of %d\n", r.name, i+1, runs)
		if err := r.use(ctx, client); err != nil {
			return err
		}
		began := time.Now()
		if err := cluster.Restore(fresh); err != nil {
			return err
		}
		r.restore = append(r.restore, time.Since(began))
	}
	return nil
}

// use does to the cluster what a test would: a namespace, a few objects, Pods that run where there are nodes.
func (r *restored) use(ctx context.Context, client kubernetes.Interface) error {
	const namespace = "used"
	labels, replicas := map[string]string{"app": "web"}, int32(3)
	_, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("using the cluster: %w", err)
	}
	for i := range 10 {
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("settings-%d", i)}}
		if _, err := client.CoreV1().ConfigMaps(namespace).Create(ctx, object, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("using the cluster: %w", err)
		}
	}
	deployments := client.AppsV1().Deployments(namespace)
	_, err = deployments.Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web"}}},
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("using the cluster: %w", err)
	}
	if !r.pods {
		return nil
	}
	err = wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		d, err := deployments.Get(ctx, "web", metav1.GetOptions{})
		return err == nil && d.Status.AvailableReplicas == replicas, err
	})
	if err != nil {
		return fmt.Errorf("waiting for Pods: %w", err)
	}
	return nil
}

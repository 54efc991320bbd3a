package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// claimSize is what each claim asks for.
const claimSize = "64Mi"

// claims are the figures of volumes from the default StorageClass.
type claims struct {
	bound []time.Duration // from the creation of a claim to its Pod Running, one at a time
	burst time.Duration   // until the last of many Pods, each with a claim, is Running
}

// watchClaims measures claims, which only a side with a default StorageClass has.
func (s *side) watchClaims(ctx context.Context, c *client, o options, f *figures) error {
	if !s.claims {
		return nil
	}
	progressf("%s: %d claims one at a time, then %d at once", s.name, o.claims, o.burst)
	f.claims = &claims{}
	if err := c.claimLatency(ctx, o.claims, f.claims); err != nil {
		return err
	}
	return c.claimBurst(ctx, o.burst, f.claims)
}

// claimLatency makes n claims, one after the other, and a Pod that uses each.
func (c *client) claimLatency(ctx context.Context, n int, f *claims) error {
	return c.onClaims(ctx, func(pods, volumes watch.Interface) error {
		for i := range n {
			name := fmt.Sprintf("claim-%d", i)
			began := time.Now()
			if err := c.createClaimed(ctx, name); err != nil {
				return err
			}
			if err := until(ctx, pods, name, running); err != nil {
				return err
			}
			f.bound = append(f.bound, time.Since(began))
			if err := c.deleteClaimed(ctx, pods, volumes, 1); err != nil {
				return err
			}
		}
		return nil
	})
}

// claimBurst creates n Pods with a claim each at once, and waits until the last is Running.
func (c *client) claimBurst(ctx context.Context, n int, f *claims) error {
	return c.onClaims(ctx, func(pods, volumes watch.Interface) error {
		began := time.Now()
		for i := range n {
			if err := c.createClaimed(ctx, fmt.Sprintf("claims-%d", i)); err != nil {
				return err
			}
		}
		if err := untilAll(ctx, pods, n, running); err != nil {
			return err
		}
		f.burst = time.Since(began)
		return c.deleteClaimed(ctx, pods, volumes, n)
	})
}

// onClaims does something with a watch of Pods and one of PersistentVolumes.
func (c *client) onClaims(ctx context.Context, do func(pods, volumes watch.Interface) error) error {
	pods, err := c.CoreV1().Pods(corev1.NamespaceDefault).Watch(ctx, metav1.ListOptions{LabelSelector: benchLabel})
	if err != nil {
		return fmt.Errorf("watching Pods: %w", err)
	}
	defer pods.Stop()
	volumes, err := c.CoreV1().PersistentVolumes().Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("watching PersistentVolumes: %w", err)
	}
	defer volumes.Stop()
	return do(pods, volumes)
}

// createClaimed creates a claim on the default StorageClass, and a Pod that uses it.
func (c *client) createClaimed(ctx context.Context, name string) error {
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{benchLabel: ""}},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(claimSize)}},
		},
	}
	if _, err := c.CoreV1().PersistentVolumeClaims(corev1.NamespaceDefault).Create(ctx, claim, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating claim %s: %w", name, err)
	}
	pod := c.pod(name)
	pod.Spec.Volumes = []corev1.Volume{{
		Name:         "data",
		VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}},
	}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	if _, err := c.CoreV1().Pods(corev1.NamespaceDefault).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating Pod %s: %w", name, err)
	}
	return nil
}

// deleteClaimed deletes all Pods and claims of the bench, and waits until their n volumes are gone.
func (c *client) deleteClaimed(ctx context.Context, pods, volumes watch.Interface, n int) error {
	all := metav1.ListOptions{LabelSelector: benchLabel}
	if err := c.CoreV1().Pods(corev1.NamespaceDefault).DeleteCollection(ctx, metav1.DeleteOptions{}, all); err != nil {
		return fmt.Errorf("deleting Pods with claims: %w", err)
	}
	if err := c.CoreV1().PersistentVolumeClaims(corev1.NamespaceDefault).DeleteCollection(ctx, metav1.DeleteOptions{}, all); err != nil {
		return fmt.Errorf("deleting claims: %w", err)
	}
	if err := untilAll(ctx, pods, n, gone); err != nil {
		return err
	}
	return untilDeleted(ctx, volumes, n)
}

// untilDeleted waits until n different objects are gone.
func untilDeleted(ctx context.Context, events watch.Interface, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for done := 0; done < n; {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for PersistentVolumes to go, %d of %d gone: %w", done, n, ctx.Err())
		case event, ok := <-events.ResultChan():
			if !ok {
				return fmt.Errorf("waiting for PersistentVolumes to go, %d of %d gone: the watch ended", done, n)
			}
			if event.Type == watch.Deleted {
				done++
			}
		}
	}
	return nil
}

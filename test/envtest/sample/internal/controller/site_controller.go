// Package controller has the controller of Sites.
package controller

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	webv1 "flyball.dev/test/envtest/sample/api/v1"
)

// cleanupFinalizer holds a Site until the Job has cleaned up behind it.
const cleanupFinalizer = "web.example.com/cleanup"

// conditionAvailable is that of the Site's Deployment.
const conditionAvailable = "Available"

// SiteReconciler reconciles a Site object.
type SiteReconciler struct {
	client.Client

	Scheme *runtime.Scheme
}

// +kubebuilder:rbac:groups=web.example.com,resources=sites,verbs=get;list;watch;create;update;patch;delete
// +kubebuilder:rbac:groups=web.example.com,resources=sites/status,verbs=get;update;patch
// +kubebuilder:rbac:groups=web.example.com,resources=sites/finalizers,verbs=update
// +kubebuilder:rbac:groups=apps,resources=deployments,verbs=get;list;watch;create;update;patch;delete
// +kubebuilder:rbac:groups=batch,resources=jobs,verbs=get;list;watch;create;update;patch;delete
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=get;list;watch;create;update;patch;delete

// Reconcile makes a ConfigMap and a Deployment for a Site, and cleans up behind it with a Job.
func (r *SiteReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	site := &webv1.Site{}
	if err := r.Get(ctx, req.NamespacedName, site); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !site.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, r.cleanUp(ctx, site)
	}
	if controllerutil.AddFinalizer(site, cleanupFinalizer) {
		if err := r.Update(ctx, site); err != nil {
			return ctrl.Result{}, fmt.Errorf("adding the finalizer: %w", err)
		}
	}
	if err := r.page(ctx, site); err != nil {
		return ctrl.Result{}, err
	}
	deployment, err := r.serve(ctx, site)
	if err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{}, r.report(ctx, site, deployment)
}

// page keeps the ConfigMap with the page.
func (r *SiteReconciler) page(ctx context.Context, site *webv1.Site) error {
	page := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: site.Name, Namespace: site.Namespace}}
	_, err := controllerutil.CreateOrUpdate(ctx, r.Client, page, func() error {
		page.Data = map[string]string{"index.html": site.Spec.Page}
		return controllerutil.SetControllerReference(site, page, r.Scheme)
	})
	if err != nil {
		return fmt.Errorf("writing the page: %w", err)
	}
	return nil
}

// serve keeps the Deployment that shows the page.
func (r *SiteReconciler) serve(ctx context.Context, site *webv1.Site) (*appsv1.Deployment, error) {
	labels := map[string]string{"site": site.Name}
	deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: site.Name, Namespace: site.Namespace}}
	_, err := controllerutil.CreateOrUpdate(ctx, r.Client, deployment, func() error {
		deployment.Spec.Replicas = &site.Spec.Replicas
		deployment.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
		deployment.Spec.Template.Labels = labels
		if len(deployment.Spec.Template.Spec.Containers) == 0 {
			deployment.Spec.Template.Spec.Containers = []corev1.Container{{Name: "server", Image: "example.com/server:1"}}
			deployment.Spec.Template.Spec.Volumes = []corev1.Volume{{
				Name: "page", VolumeSource: corev1.VolumeSource{
					ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: site.Name}},
				},
			}}
		}
		return controllerutil.SetControllerReference(site, deployment, r.Scheme)
	})
	if err != nil {
		return nil, fmt.Errorf("writing the Deployment: %w", err)
	}
	return deployment, nil
}

// report writes the status.
func (r *SiteReconciler) report(ctx context.Context, site *webv1.Site, deployment *appsv1.Deployment) error {
	condition := metav1.Condition{Type: conditionAvailable, Status: metav1.ConditionFalse, Reason: "Starting", ObservedGeneration: site.Generation}
	for _, c := range deployment.Status.Conditions {
		if c.Type == appsv1.DeploymentAvailable && c.Status == corev1.ConditionTrue && deployment.Status.AvailableReplicas == site.Spec.Replicas {
			condition.Status, condition.Reason = metav1.ConditionTrue, "Serving"
		}
	}
	if !meta.SetStatusCondition(&site.Status.Conditions, condition) {
		return nil
	}
	if err := r.Status().Update(ctx, site); err != nil {
		return fmt.Errorf("writing the status: %w", err)
	}
	return nil
}

// cleanUp lets the Site go when the Job has completed.
func (r *SiteReconciler) cleanUp(ctx context.Context, site *webv1.Site) error {
	if !controllerutil.ContainsFinalizer(site, cleanupFinalizer) {
		return nil
	}
	job := &batchv1.Job{}
	key := client.ObjectKey{Namespace: site.Namespace, Name: site.Name + "-cleanup"}
	switch err := r.Get(ctx, key, job); {
	case apierrors.IsNotFound(err):
		job = &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Name: key.Name, Namespace: key.Namespace},
			Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever,
				Containers:    []corev1.Container{{Name: "cleanup", Image: "example.com/cleanup:1"}},
			}}},
		}
		if err := controllerutil.SetControllerReference(site, job, r.Scheme); err != nil {
			return fmt.Errorf("owning the Job: %w", err)
		}
		if err := r.Create(ctx, job); err != nil {
			return fmt.Errorf("starting the Job: %w", err)
		}
		return nil
	case err != nil:
		return fmt.Errorf("looking for the Job: %w", err)
	case job.Status.CompletionTime == nil:
		return nil // its change will tell
	}
	controllerutil.RemoveFinalizer(site, cleanupFinalizer)
	if err := r.Update(ctx, site); err != nil {
		return fmt.Errorf("removing the finalizer: %w", err)
	}
	return nil
}

// SetupWithManager sets up the controller with the Manager.
func (r *SiteReconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		For(&webv1.Site{}).
		Owns(&corev1.ConfigMap{}).
		Owns(&appsv1.Deployment{}).
		Owns(&batchv1.Job{}).
		Named("site").
		Complete(r)
}

package programs

import (
	"context"
	"fmt"
	"io"
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1conversion "k8s.io/kubernetes/pkg/apis/core/v1"
)

const podAdmission = "flyball.dev/PodAnnotations"

// PodCheck validates the annotations of a Pod for the loops that run behind the server.
type PodCheck func(*corev1.Pod) error

// register lets the server reject Pods that fail the check, when they are created and when their
// annotations change.
func (check PodCheck) register(o *options.ServerRunOptions) {
	o.Admission.GenericAdmission.Plugins.Register(podAdmission, func(io.Reader) (admission.Interface, error) {
		return &podValidator{admission.NewHandler(admission.Create, admission.Update), check}, nil
	})
	o.Admission.GenericAdmission.RecommendedPluginOrder = append(o.Admission.GenericAdmission.RecommendedPluginOrder, podAdmission)
}

type podValidator struct {
	*admission.Handler
	check PodCheck
}

// Validate implements admission.ValidationInterface.
func (v *podValidator) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod, ok := a.GetObject().(*core.Pod)
	if !ok || a.GetSubresource() != "" {
		return nil
	}
	if old, ok := a.GetOldObject().(*core.Pod); ok && maps.Equal(old.Annotations, pod.Annotations) {
		return nil
	}
	versioned := &corev1.Pod{}
	if err := corev1conversion.Convert_core_Pod_To_v1_Pod(pod, versioned, nil); err != nil {
		return fmt.Errorf("reading Pod %s: %w", pod.Name, err)
	}
	if err := v.check(versioned); err != nil {
		return admission.NewForbidden(a, err)
	}
	return nil
}

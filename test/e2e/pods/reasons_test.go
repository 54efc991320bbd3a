package pods

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"flyball.dev/test/e2e/internal/cluster"
)

// TestReasons has Pods that cannot start, and what they say.
func TestReasons(t *testing.T) {
	ns := cluster.Namespace(t)
	missing := container("true")
	missing.Env = []corev1.EnvVar{{Name: "X", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "nosuch"}, Key: "x"}}}}
	never := corev1.Container{Image: "flyball.dev/nosuch:1", ImagePullPolicy: corev1.PullNever}
	unknown := corev1.Container{Command: []string{"/nosuch"}}
	root := container("true")
	yes := true
	root.SecurityContext = &corev1.SecurityContext{RunAsNonRoot: &yes}
	tests := map[string]struct {
		container corev1.Container
		reason    string
		event     string
	}{
		"config":  {missing, "CreateContainerConfigError", "Failed"},
		"nonroot": {root, "CreateContainerConfigError", "Failed"},
		"never":   {never, "ErrImageNeverPull", "ErrImageNeverPull"},
		"name":    {corev1.Container{Image: "Not:An:Image"}, "InvalidImageName", "InspectFailed"},
		"command": {unknown, "CrashLoopBackOff", "BackOff"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			cluster.Run(t, ns, name, pod(tc.container))
			cluster.Await(t, ns, name, cluster.WaitingFor(tc.reason))
			cluster.AwaitEvent(t, ns, name, tc.event)
		})
	}
	t.Run("volume", func(t *testing.T) {
		spec := pod(container("true"))
		spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "nosuch"}}}}
		spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
		cluster.Run(t, ns, "volume", spec)
		cluster.AwaitEvent(t, ns, "volume", "FailedMount")
		cluster.Await(t, ns, "volume", cluster.WaitingFor("ContainerCreating"))
	})
}

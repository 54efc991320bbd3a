package pods

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"flyball.dev/test/e2e/internal/cluster"
	"flyball.dev/test/images"
)

// TestPull pulls from a registry that asks who is there.
func TestPull(t *testing.T) {
	ns := cluster.Namespace(t)
	registry, err := images.NewRegistry("user", "secret")
	if err != nil {
		t.Fatal(err)
	}
	defer registry.Close()
	_, img, err := images.Build(t.Context(), "toolbox")
	if err != nil {
		t.Fatal(err)
	}
	ref, err := registry.Push("team/toolbox:"+ns, img)
	if err != nil {
		t.Fatal(err)
	}
	c := corev1.Container{Image: ref, Args: []string{"echo", "pulled"}}

	cluster.Run(t, ns, "anonymous", pod(c))
	cluster.Await(t, ns, "anonymous", func(p *corev1.Pod) error {
		if cluster.WaitingFor("ErrImagePull")(p) == nil {
			return nil
		}
		return cluster.WaitingFor("ImagePullBackOff")(p)
	})
	cluster.Await(t, ns, "anonymous", cluster.WaitingFor("ImagePullBackOff"))
	cluster.AwaitEvent(t, ns, "anonymous", "Failed")
	cluster.AwaitEvent(t, ns, "anonymous", "BackOff")

	pullSecret(t, ns, "pull", registry.Host)
	spec := pod(c)
	spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
	has(t, cluster.Output(t, ns, "allowed", spec), "pulled")
	cluster.AwaitEvent(t, ns, "allowed", "Pulled")
	private(t, registry, ref)

	// What is there is not asked for again, even with the registry gone.
	registry.SetDown(true)
	c.ImagePullPolicy = corev1.PullIfNotPresent
	spec = pod(c)
	spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
	has(t, cluster.Output(t, ns, "cached", spec), "pulled")
	c.ImagePullPolicy = corev1.PullAlways
	spec = pod(c)
	spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
	cluster.Run(t, ns, "always", spec)
	cluster.Await(t, ns, "always", cluster.WaitingFor("ImagePullBackOff"))
}

// private checks who may use an image that is on the node and was pulled with credentials: nobody without them, whatever
// the namespace, and whoever has them, with the registry gone.
func private(t *testing.T, registry *images.Registry, ref string) {
	t.Helper()
	registry.SetDown(true)
	defer registry.SetDown(false)
	ns := cluster.Namespace(t)
	pullSecret(t, ns, "another", registry.Host)
	for name, policy := range map[string]corev1.PullPolicy{"if-not-present": corev1.PullIfNotPresent, "never": corev1.PullNever} {
		c := corev1.Container{Image: ref, ImagePullPolicy: policy, Args: []string{"echo", "pulled"}}
		cluster.Run(t, ns, name, pod(c))
		reason := "ImagePullBackOff"
		if policy == corev1.PullNever {
			reason = "ErrImageNeverPull"
		}
		cluster.Await(t, ns, name, cluster.WaitingFor(reason))
		spec := pod(c)
		spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "another"}}
		has(t, cluster.Output(t, ns, name+"-allowed", spec), "pulled")
	}
}

func pullSecret(t *testing.T, ns, name, host string) {
	t.Helper()
	_, err := cluster.Client(t).CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Type: corev1.SecretTypeDockerConfigJson,
		StringData: map[string]string{corev1.DockerConfigJsonKey: fmt.Sprintf(`{"auths":{%q:{"username":"user","password":"secret"}}}`, host)},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

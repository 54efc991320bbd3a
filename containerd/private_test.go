//go:build linux

package containerd

import (
	"context"
	"errors"
	"fmt"
	"testing"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	kubeletimages "flyball.dev/kubelet/images"
	"flyball.dev/test/images"
)

// onlySecret is the same Secret, under the name pull, in two namespaces that have it.
type onlySecret struct{ secret *v1.Secret }

func (s onlySecret) Secret(_ context.Context, namespace, name string) (*v1.Secret, error) {
	if name != "pull" || namespace == "none" {
		return nil, apierrors.NewNotFound(v1.Resource("secrets"), name)
	}
	secret := s.secret.DeepCopy()
	secret.Namespace, secret.Name, secret.UID = namespace, name, types.UID(namespace)
	return secret, nil
}

// TestPrivateImages: what the node agent takes for the name, the ID and the owner of an image is
// what containerd says.
func TestPrivateImages(t *testing.T) {
	c := newTestConfig(t)
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	running := c
	running.Ready = func() { close(ready) }
	go func() { done <- Run(ctx, running) }()
	defer func() { cancel(); <-done }()
	select {
	case <-ready:
	case err := <-done:
		done <- err
		t.Fatal(err)
	}
	registry, err := images.NewRegistry("user", "secret")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = registry.Close() }()
	img := sample(t)
	ref, err := registry.Push("team/app:1", img)
	if err != nil {
		t.Fatal(err)
	}
	digest, _ := img.Digest()
	id, _ := img.ConfigName()
	conn, err := dialCRI(c.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	service, dir := runtimeapi.NewImageServiceClient(conn), t.TempDir()
	secrets := onlySecret{&v1.Secret{Type: v1.SecretTypeDockerConfigJson, Data: map[string][]byte{
		v1.DockerConfigJsonKey: fmt.Appendf(nil, `{"auths":{%q:{"username":"user","password":"secret"}}}`, registry.Host),
	}}}
	// Each is a node agent that has just started.
	ensure := func(namespace, image string, policy v1.PullPolicy) string {
		access, err := kubeletimages.NewAccess(ctx, kubeletimages.AccessConfig{Dir: dir, Images: service})
		if err != nil {
			t.Fatal(err)
		}
		m := kubeletimages.New(kubeletimages.Config{Images: service, Secrets: secrets, Access: access})
		pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "p", UID: types.UID(namespace)}}
		pod.Spec.ImagePullSecrets = []v1.LocalObjectReference{{Name: "pull"}}
		_, err = m.Ensure(ctx, pod, &v1.Container{Image: image, ImagePullPolicy: policy}, nil, func(_, _, _ string) {})
		if e, ok := errors.AsType[*kubeletimages.Error](err); ok {
			return e.Reason
		}
		if err != nil {
			t.Fatal(err)
		}
		return ""
	}
	steps := []struct {
		reason, namespace, image string
		policy                   v1.PullPolicy
		down                     bool
		imports                  string
		want                     string
	}{
		{reason: "it is not there yet", namespace: "a", image: ref, policy: v1.PullNever, want: "ErrImageNeverPull"},
		{reason: "the registry wants credentials", namespace: "none", image: ref, policy: v1.PullIfNotPresent, want: "ErrImagePull"},
		{reason: "the registry accepts these", namespace: "a", image: ref, policy: v1.PullIfNotPresent},
		{reason: "the same Secret", namespace: "a", image: ref, policy: v1.PullNever, down: true},
		{reason: "the same credentials", namespace: "b", image: ref, policy: v1.PullIfNotPresent, down: true},
		{reason: "none", namespace: "none", image: ref, policy: v1.PullIfNotPresent, want: "ErrImagePull"},
		{reason: "none", namespace: "none", image: ref, policy: v1.PullNever, want: "ErrImageNeverPull"},
		{reason: "another name", namespace: "none", image: registry.Host + "/team/app@" + digest.String(), policy: v1.PullNever, want: "ErrImageNeverPull"},
		{reason: "the ID", namespace: "none", image: id.String(), policy: v1.PullNever, want: "ErrImageNeverPull"},
		{reason: "by digest, with credentials", namespace: "b", image: registry.Host + "/team/app@" + digest.String(), policy: v1.PullNever, down: true},
		{reason: "the same content under a name of its own", namespace: "none", image: "example.com/imported:1", policy: v1.PullNever, imports: "example.com/imported:1"},
		{reason: "a short name", namespace: "none", image: "short", policy: v1.PullNever, imports: "short:latest"},
		{reason: "which changes nothing", namespace: "none", image: ref, policy: v1.PullNever, want: "ErrImageNeverPull"},
	}
	for i, step := range steps {
		if step.imports != "" {
			if _, err := load(ctx, c.Socket, archives(t, step.imports, img)["OCI layout"], false); err != nil {
				t.Fatal(err)
			}
		}
		registry.SetDown(step.down)
		if got := ensure(step.namespace, step.image, step.policy); got != step.want {
			t.Errorf("step %d, %s: %q, want %q", i, step.reason, got, step.want)
		}
	}
}

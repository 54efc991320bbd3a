package images

import (
	"context"
	"fmt"
	"strings"

	dockerref "github.com/distribution/reference"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/credentialprovider"
	credentialsecrets "k8s.io/kubernetes/pkg/credentialprovider/secrets"
)

// credentials returns the credentials of the Pod for the image. It reads them at the first call for
// a request.
func (m *Manager) credentials(ctx context.Context, r *request) ([]credentialprovider.TrackedAuthConfig, error) {
	if !r.read {
		r.found, r.findErr = m.findCredentials(ctx, r)
		r.read = true
	}
	return r.found, r.findErr
}

// findCredentials returns those in the Pod's pull secrets that match the image's registry, the best
// match first, each with its secret. A missing secret is an Event and no error: the image may be
// public.
func (m *Manager) findCredentials(ctx context.Context, r *request) ([]credentialprovider.TrackedAuthConfig, error) {
	var secrets []v1.Secret
	var missing []string
	for _, ref := range r.pod.Spec.ImagePullSecrets {
		if ref.Name == "" { // the API accepts it
			continue
		}
		secret, err := m.cfg.Secrets.Secret(ctx, r.pod.Namespace, ref.Name)
		if err != nil {
			klog.FromContext(ctx).V(2).Info("Pull secret is missing",
				"pod", klog.KObj(r.pod), "secret", ref.Name, "err", err)
			missing = append(missing, ref.Name)
			continue
		}
		secrets = append(secrets, *secret)
	}
	if len(missing) > 0 {
		r.record(v1.EventTypeWarning, "FailedToRetrieveImagePullSecret", fmt.Sprintf(
			"Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.",
			strings.Join(missing, ", ")))
	}
	if len(secrets) == 0 {
		return nil, nil
	}
	keyring, err := credentialsecrets.MakeDockerKeyring(secrets, &credentialprovider.BasicDockerKeyring{})
	if err != nil {
		return nil, fmt.Errorf("reading pull secrets: %w", err)
	}
	named, err := dockerref.ParseNormalizedNamed(r.name)
	if err != nil {
		return nil, fmt.Errorf("parsing image name %q: %w", r.name, err)
	}
	found, _ := keyring.Lookup(named.Name())
	return found, nil
}

// authConfig converts credentials for CRI; nil stays nil.
func authConfig(c *credentialprovider.TrackedAuthConfig) *runtimeapi.AuthConfig {
	if c == nil {
		return nil
	}
	return &runtimeapi.AuthConfig{
		Username: c.Username, Password: c.Password, Auth: c.Auth,
		ServerAddress: c.ServerAddress, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken,
	}
}

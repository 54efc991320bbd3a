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

// credentials are those of the Pod's pull secrets that match the image's registry, the best match
// first, each with the secret that it is from. A secret that is missing is told and not fatal: the
// image may be public.
func (m *Manager) credentials(
	ctx context.Context, r request, name string,
) ([]credentialprovider.TrackedAuthConfig, error) {
	var secrets []v1.Secret
	var missing []string
	for _, ref := range r.pod.Spec.ImagePullSecrets {
		if ref.Name == "" { // the API lets them pass
			continue
		}
		secret, err := m.cfg.Secrets.Secret(ctx, r.pod.Namespace, ref.Name)
		if err != nil {
			klog.FromContext(ctx).V(2).Info("Pull secret is not there", "pod", klog.KObj(r.pod), "secret", ref.Name, "err", err)
			missing = append(missing, ref.Name)
			continue
		}
		secrets = append(secrets, *secret)
	}
	if len(missing) > 0 {
		r.record(v1.EventTypeWarning, eventNoSecret, fmt.Sprintf(
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
	named, err := dockerref.ParseNormalizedNamed(name)
	if err != nil {
		return nil, fmt.Errorf("parsing image name %q: %w", name, err)
	}
	found, _ := keyring.Lookup(named.Name())
	return found, nil
}

// authConfig is what the runtime shows to the registry; nil without credentials.
func authConfig(c *credentialprovider.TrackedAuthConfig) *runtimeapi.AuthConfig {
	if c == nil {
		return nil
	}
	return &runtimeapi.AuthConfig{
		Username: c.Username, Password: c.Password, Auth: c.Auth,
		ServerAddress: c.ServerAddress, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken,
	}
}

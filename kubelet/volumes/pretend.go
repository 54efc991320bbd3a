package volumes

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// tokenTimeout bounds a request whose caller sets no bound.
const tokenTimeout = 10 * time.Second

// tokens are the service account tokens of Pods.
type tokens interface {
	GetServiceAccountToken(namespace, name string, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error)
	DeleteServiceAccountToken(podUID types.UID)
}

// unkept asks for tokens, which nobody reads, and forgets them.
type unkept struct{ client kubernetes.Interface }

func (u unkept) GetServiceAccountToken(namespace, name string, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	ctx, cancel := context.WithTimeout(context.Background(), tokenTimeout)
	defer cancel()
	answer, err := u.client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, request, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("failed to fetch token: %w", err) // upstream's words
	}
	return answer, nil
}

func (unkept) DeleteServiceAccountToken(types.UID) {}

// pretend finds out whether a volume could be mounted. What would be in it is
// collected as for any other node, so that a missing object or key keeps the Pod
// from running; what is on the host is not looked at.
func (m *Manager) pretend(ctx context.Context, pod *v1.Pod, vol *v1.Volume) (result, error) {
	done := result{Mounted: Mounted{HostPath: filepath.Join(m.volumesDir(pod.UID), vol.Name)}}
	switch s := vol.VolumeSource; {
	case s.ConfigMap != nil, s.Secret != nil, s.DownwardAPI != nil, s.Projected != nil:
		v, err := m.volumeFor(pod, withoutCertificates(vol))
		if err != nil {
			return done, err
		}
		c, ok := v.(content)
		if !ok {
			return done, fmt.Errorf("volume kind %s has no content to collect", kindOf(s))
		}
		done.ReadOnly = true
		_, done.next, err = c.collect(ctx)
		return done, err
	case s.HostPath != nil:
		done.HostPath = s.HostPath.Path
	}
	return done, nil
}

// withoutCertificates leaves out the certificates of a Pod: a key that nobody uses
// is not worth a signature.
func withoutCertificates(vol *v1.Volume) *v1.Volume {
	if vol.Projected == nil {
		return vol
	}
	projected := *vol.Projected
	projected.Sources = slices.DeleteFunc(slices.Clone(projected.Sources), func(s v1.VolumeProjection) bool { return s.PodCertificate != nil })
	return &v1.Volume{Name: vol.Name, VolumeSource: v1.VolumeSource{Projected: &projected}}
}

// pretendFiles names the files of a container without making any.
func (m *Manager) pretendFiles(pod *v1.Pod, mounted map[string]Mounted, spec FilesSpec) (Files, error) {
	var files Files
	if spec.Hosts != nil {
		files.EtcHosts = filepath.Join(m.podDir(pod.UID), "etc-hosts")
	}
	if spec.TerminationLog {
		files.TerminationLog = m.TerminationLog(pod.UID, spec.Container, spec.Attempt)
	}
	for index, sub := range spec.SubPaths {
		vol, ok := mounted[sub.Volume]
		if !ok {
			return files, fmt.Errorf("cannot find volume %q to mount into container %q", sub.Volume, spec.Container)
		}
		if files.SubPaths == nil {
			files.SubPaths = map[int]string{}
		}
		files.SubPaths[index] = filepath.Join(vol.HostPath, sub.Path)
	}
	return files, nil
}

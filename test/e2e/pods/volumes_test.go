package pods

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"flyball.dev/test/e2e/internal/cluster"
)

func TestVolumes(t *testing.T) {
	ns := cluster.Namespace(t)
	sources(t, ns)
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "file"), []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	settings := corev1.LocalObjectReference{Name: "settings"}
	mode := int32(0o400)
	spec := pod(container("sleep", "inf"))
	spec.Volumes = []corev1.Volume{
		{Name: "empty", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "memory", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}},
		{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: host}}},
		{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: settings, Items: []corev1.KeyToPath{{Key: "color", Path: "deep/color"}}}}},
		{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "secrets", DefaultMode: &mode}}},
		{Name: "downward", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}}},
		{Name: "projected", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: settings}},
			{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "secrets"}}},
		}}}},
	}
	second := container("sleep", "inf")
	for _, v := range spec.Volumes {
		m := corev1.VolumeMount{Name: v.Name, MountPath: "/" + v.Name, ReadOnly: v.Name == "host"}
		spec.Containers[0].VolumeMounts = append(spec.Containers[0].VolumeMounts, m)
		second.VolumeMounts = append(second.VolumeMounts, m)
	}
	spec.Containers = append(spec.Containers, second)
	cluster.Run(t, ns, "volumes", spec)
	cluster.Await(t, ns, "volumes", cluster.Ready)
	run := func(container string, args ...string) string {
		return cluster.Kubectl(t, append([]string{"exec", "-n", ns, "volumes", "-c", container, "--"}, args...)...)
	}
	cat := func(file string) string { return strings.TrimSpace(run("c0", "cat", file)) }

	run("c0", "toolbox", "write", "/empty/file", "shared")
	has(t, run("c1", "cat", "/empty/file"), "shared")
	has(t, run("c0", "cat", "/host/file", "/config/deep/color", "/secret/password", "/projected/size", "/projected/password"),
		"from the host")
	for file, want := range map[string]string{"/config/deep/color": "red", "/secret/password": "hunter2", "/projected/size": "large", "/downward/labels": `app="volumes"`} {
		if got := cat(file); got != want {
			t.Errorf("%s holds %q, want %q", file, got, want)
		}
	}
	if _, err := cluster.TryKubectl(t, "", "exec", "-n", ns, "volumes", "-c", "c0", "--", "toolbox", "write", "/host/new", "x"); err == nil {
		t.Error("a read-only mount was written to")
	}

	// Changes arrive while the Pod runs.
	cm, err := cluster.Client(t).CoreV1().ConfigMaps(ns).Get(t.Context(), "settings", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cm.Data["color"] = "blue"
	if _, err := cluster.Client(t).CoreV1().ConfigMaps(ns).Update(t.Context(), cm, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	cluster.Kubectl(t, "label", "-n", ns, "pod", "volumes", "new=label")
	cluster.Eventually(t, cluster.Soon, func() error {
		if cat("/config/deep/color") != "blue" || !strings.Contains(cat("/downward/labels"), `new="label"`) {
			return errors.New("the files are as they were")
		}
		return nil
	})
}

// TestServiceAccount asks the API server with the token that a Pod has.
func TestServiceAccount(t *testing.T) {
	ns := cluster.Namespace(t)
	const dir = "/var/run/secrets/kubernetes.io/serviceaccount/"
	cluster.Run(t, ns, "token", pod(container("sleep", "inf")))
	cluster.Await(t, ns, "token", cluster.Ready)
	read := func(file string) string {
		return strings.TrimSpace(cluster.Kubectl(t, "exec", "-n", ns, "token", "--", "cat", dir+file))
	}
	if got := read("namespace"); got != ns {
		t.Errorf("the namespace file holds %q", got)
	}
	cfg := rest.AnonymousClientConfig(cluster.RESTConfig(t))
	cfg.BearerToken = read("token")
	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	review, err := c.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if want := "system:serviceaccount:" + ns + ":default"; review.Status.UserInfo.Username != want {
		t.Errorf("the token is that of %s, want %s", review.Status.UserInfo.Username, want)
	}
}

package config_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const helm = "../bin/tools/helm"

// TestChartInstallsWhatKustomizeDoes: the chart and config/default differ in names and labels, not in what the loops may
// do or how they are started.
func TestChartInstallsWhatKustomizeDoes(t *testing.T) {
	if _, err := os.Stat(helm); err != nil {
		t.Fatal("rendering the chart needs helm: make bin/tools/helm")
	}
	out, err := exec.CommandContext(t.Context(), helm, "template", "flyball", "helm/flyball", "--namespace", "flyball-system").Output()
	if err != nil {
		t.Fatal(err)
	}
	chart := byKind(t, out)
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), "default")
	if err != nil {
		t.Fatal(err)
	}
	manifests, err := built.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	kustomize := byKind(t, manifests)

	for _, kind := range []string{"CustomResourceDefinition", "ClusterRoleBinding", "Role", "RoleBinding", "ServiceAccount", "Deployment"} {
		if len(chart[kind]) != len(kustomize[kind]) || len(chart[kind]) == 0 {
			t.Errorf("%s: %d in the chart, %d in config/default", kind, len(chart[kind]), len(kustomize[kind]))
		}
	}
	for i, crd := range chart["CustomResourceDefinition"] {
		if crd.GetAnnotations()["helm.sh/resource-policy"] != "keep" {
			t.Errorf("uninstalling the chart would delete %s, and every object of it", crd.GetName())
		}
		if diff := cmp.Diff(kustomize["CustomResourceDefinition"][i].Object["spec"], crd.Object["spec"]); diff != "" {
			t.Errorf("%s differs (-kustomize +chart):\n%s", crd.GetName(), diff)
		}
	}
	if diff := cmp.Diff(typed[rbacv1.ClusterRole](t, kustomize["ClusterRole"][0]).Rules, typed[rbacv1.ClusterRole](t, chart["ClusterRole"][0]).Rules); diff != "" {
		t.Errorf("ClusterRole (-kustomize +chart):\n%s", diff)
	}
	if diff := cmp.Diff(typed[rbacv1.Role](t, kustomize["Role"][0]).Rules, typed[rbacv1.Role](t, chart["Role"][0]).Rules); diff != "" {
		t.Errorf("Role (-kustomize +chart):\n%s", diff)
	}
	want, got := typed[appsv1.Deployment](t, kustomize["Deployment"][0]).Spec.Template.Spec, typed[appsv1.Deployment](t, chart["Deployment"][0]).Spec.Template.Spec
	if diff := cmp.Diff(slices.Sorted(slices.Values(want.Containers[0].Args)), slices.Sorted(slices.Values(got.Containers[0].Args))); diff != "" {
		t.Errorf("arguments (-kustomize +chart):\n%s", diff)
	}
	if diff := cmp.Diff(want.SecurityContext, got.SecurityContext); diff != "" {
		t.Errorf("securityContext (-kustomize +chart):\n%s", diff)
	}
	if diff := cmp.Diff(want.Containers[0].SecurityContext, got.Containers[0].SecurityContext); diff != "" {
		t.Errorf("the container's securityContext (-kustomize +chart):\n%s", diff)
	}
}

// TestChartWithHelm installs, upgrades and uninstalls the chart with the real helm on a real API server. Nothing runs
// there; the release has to fit into a Secret, and everything in it has to be valid.
func TestChartWithHelm(t *testing.T) {
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		assets = "../bin/envtest"
	}
	for _, program := range []string{helm, filepath.Join(assets, "kube-apiserver"), filepath.Join(assets, "etcd")} {
		if _, err := os.Stat(program); err != nil {
			t.Fatal("installing the chart needs helm, kube-apiserver and etcd: make bin/tools/helm bin/envtest/kube-apiserver bin/envtest/etcd")
		}
	}
	ctrl.SetLogger(logr.Discard()) // envtest's
	cluster := &envtest.Environment{BinaryAssetsDirectory: assets, ControlPlaneStartTimeout: 2 * time.Minute}
	if _, err := cluster.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cluster.Stop() }()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, cluster.KubeConfig, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), helm, append(args, "--namespace", "flyball-system", "--kubeconfig", kubeconfig)...)
		cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+t.TempDir(), "HELM_CONFIG_HOME="+t.TempDir(), "HELM_DATA_HOME="+t.TempDir())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("helm %v: %v\n%s", args, err, out)
		}
	}
	c, err := client.New(cluster.Config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	key := client.ObjectKey{Namespace: "flyball-system", Name: "flyball"}
	var d appsv1.Deployment
	run("install", "flyball", "helm/flyball", "--create-namespace")
	if err := c.Get(t.Context(), key, &d); err != nil {
		t.Fatal(err)
	}
	run("upgrade", "flyball", "helm/flyball", "--set", "replicas=2,metrics.enabled=false,image.tag=x")
	if err := c.Get(t.Context(), key, &d); err != nil || *d.Spec.Replicas != 2 || d.Spec.Template.Spec.Containers[0].Image != "flyball.dev/flyball:x" {
		t.Errorf("after the upgrade: %v %+v", err, d.Spec)
	}
	run("uninstall", "flyball")
	if err := c.Get(t.Context(), key, &d); !apierrors.IsNotFound(err) {
		t.Errorf("after uninstalling, the Deployment: %v", err)
	}
	crd := &unstructured.Unstructured{}
	crd.SetAPIVersion("apiextensions.k8s.io/v1")
	crd.SetKind("CustomResourceDefinition")
	if err := c.Get(t.Context(), client.ObjectKey{Name: "deployments.apps.flyball.dev"}, crd); err != nil || crd.GetDeletionTimestamp() != nil {
		t.Errorf("uninstalling took the CRD: %v", err)
	}
}

func byKind(t *testing.T, manifests []byte) map[string][]*unstructured.Unstructured {
	t.Helper()
	const buffer = 4096
	kinds := map[string][]*unstructured.Unstructured{}
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifests), buffer)
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return kinds
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(object.Object) > 0 {
			kinds[object.GetKind()] = append(kinds[object.GetKind()], object)
		}
	}
}

func typed[T any](t *testing.T, object *unstructured.Unstructured) T {
	t.Helper()
	var out T
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, &out, true); err != nil {
		t.Fatal(object.GetKind(), err)
	}
	return out
}

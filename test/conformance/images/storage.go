package images

import (
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	suite "k8s.io/kubernetes/test/utils/image"
)

// sidecars begins the packages of upstream's CSI sidecars.
const sidecars = "github.com/kubernetes-csi/"

// ours begins the packages of programs that are in this folder.
const ours = "flyball.dev/test/conformance/images/"

// storage returns what the suite deploys its mock CSI driver with: the sidecars from their modules, and programs of ours in
// place of two whose source is in no Go module.
func storage() map[string]Spec {
	specs := map[string]Spec{}
	for name, pkg := range map[string]string{
		"csi-attacher":              sidecars + "external-attacher/v4/cmd/csi-attacher",
		"csi-provisioner":           sidecars + "external-provisioner/v6/cmd/csi-provisioner",
		"csi-resizer":               sidecars + "external-resizer/v2/cmd/csi-resizer",
		"csi-snapshotter":           sidecars + "external-snapshotter/v8/cmd/csi-snapshotter",
		"csi-node-driver-registrar": ours + "registrar",
		"hostpathplugin":            ours + "hostpathplugin",
	} {
		specs[name] = Spec{
			Ref: manifestRef("registry.k8s.io/sig-storage/", name), Bare: true, Programs: map[string]string{name: pkg},
			Config: v1.Config{Entrypoint: []string{"/" + name}},
		}
	}
	// Older than the busybox that the tests themselves run.
	specs["busybox-mock"] = Spec{Ref: manifestRef("registry.k8s.io/e2e-test-images/", "busybox"), Base: "busybox", Config: v1.Config{Cmd: []string{"sh"}}}
	return specs
}

// manifestRef is what the suite's manifests call an image. The suite reads them, and has no names for their entries.
func manifestRef(repository, name string) string {
	for id, c := range suite.GetOriginalImageConfigs() {
		full := c.GetE2EImage()
		if id > suite.SampleDevicePlugin && strings.HasPrefix(full, repository+name+":") {
			return full
		}
	}
	return repository + name + ":none" // no manifest asks for it
}

// isSidecar tells whether an image is built with the versions of the sidecars.
func isSidecar(spec Spec) bool {
	for _, pkg := range spec.Programs {
		if strings.HasPrefix(pkg, sidecars) {
			return true
		}
	}
	return false
}

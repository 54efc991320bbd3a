// Package programs runs upstream's own kube-apiserver and etcd commands out of this program, with upstream's flags, for test
// suites that start them themselves: controller-runtime's envtest looks for programs of these names in KUBEBUILDER_ASSETS.
// Flyball's own control plane does not use it; see package controlplane. kubectl, the third such program, is the command
// line's.
package programs

import (
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"

	_ "flyball.dev/controlplane/version" // they report the version that they are
)

// KubeAPIServer is the command kube-apiserver: args are what follows its name. It ends at SIGTERM.
func KubeAPIServer(args []string) error {
	cmd := app.NewAPIServerCommand()
	cmd.SetArgs(args)
	return cli.RunNoErrOutput(cmd)
}

// Etcd is the command etcd: args are what follows its name. It ends the process at SIGTERM, and if it cannot start.
func Etcd(args []string) error {
	etcdmain.Main(append([]string{"etcd"}, args...))
	return nil
}

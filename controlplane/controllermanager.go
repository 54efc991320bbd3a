package controlplane

import (
	"context"
	"fmt"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	"k8s.io/kubernetes/cmd/kube-controller-manager/names"
)

func controllerManagerFlags(cfg Config, c *credentials) []string {
	mask := "--node-cidr-mask-size-ipv4="
	if cfg.ClusterCIDR.Addr().Is6() {
		mask = "--node-cidr-mask-size-ipv6="
	}
	return []string{
		"--kubeconfig=" + c.controllerManager,
		// Everything that is on by default, except for the two whose work package controllers does; and what removes the
		// tokens that machines join with when they have expired.
		"--controllers=*," + names.TokenCleanerController + ",-" + names.ReplicaSetController + ",-" + names.DeploymentController,
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + c.serviceAccountKey,
		"--root-ca-file=" + c.ca.CertPath,
		"--cluster-signing-cert-file=" + c.ca.CertPath,
		"--cluster-signing-key-file=" + c.ca.Path,
		"--allocate-node-cidrs=true",
		"--cluster-cidr=" + cfg.ClusterCIDR.String(),
		"--service-cluster-ip-range=" + cfg.ServiceCIDR.String(),
		mask + strconv.Itoa(cfg.nodeCIDRBits()),
		"--leader-elect=false", // there is one; and losing an election ends the process
		"--secure-port=0",      // its metrics are in kube-apiserver's, since they share this process
		"--profiling=false",
		"--kube-api-qps=" + unthrottledQPS, "--kube-api-burst=" + unthrottledQPS,
		// It makes this directory; by default outside of ours, in /usr/libexec.
		"--flex-volume-plugin-dir=" + cfg.server("flexvolume"),
		// Some controllers sit in a watch when they are told to end and only notice when kube-apiserver is gone.
		"--controller-shutdown-timeout=500ms",
	}
}

func parseControllerManager(flags []string) (*options.KubeControllerManagerOptions, error) {
	o, err := options.NewKubeControllerManagerOptions()
	if err != nil {
		return nil, fmt.Errorf("configuring kube-controller-manager: %w", err)
	}
	known, off, aliases := app.KnownControllers(), app.ControllersDisabledByDefault(), app.ControllerAliases()
	if err := parse(o.Flags(known, off, aliases), flags); err != nil {
		return nil, fmt.Errorf("configuring kube-controller-manager: %w", err)
	}
	return o, nil
}

// runControllerManager runs upstream's controllers until ctx ends. up is called once one of them has made the service account
// that Pods of the namespace "default" need, after which Pods are admitted; the others have started together with it.
func runControllerManager(ctx context.Context, o *options.KubeControllerManagerOptions, up func()) error {
	config, err := o.Config(ctx, app.KnownControllers(), app.ControllersDisabledByDefault(), app.ControllerAliases())
	if err != nil {
		return fmt.Errorf("configuring kube-controller-manager: %w", err)
	}
	completed := config.Complete()
	go func() {
		if waitServiceAccount(ctx, completed.Client) {
			up()
		}
	}()
	if err := app.Run(ctx, completed); err != nil {
		return fmt.Errorf("running kube-controller-manager: %w", err)
	}
	return nil
}

// waitServiceAccount returns true when the service account default/default exists, and false when ctx ends.
func waitServiceAccount(ctx context.Context, client kubernetes.Interface) bool {
	for ctx.Err() == nil {
		w, err := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=default"})
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		event := <-w.ResultChan() // a watch without a version begins with what exists
		w.Stop()
		if event.Type == watch.Added {
			return true
		}
	}
	return false
}

package controlplane

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/samber/lo"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
	kcmconfig "k8s.io/kubernetes/cmd/kube-controller-manager/app/config"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	"k8s.io/kubernetes/cmd/kube-controller-manager/names"
)

func controllerManagerFlags(cfg Config, c *credentials) []string {
	flags := append(ClientFlags(cfg.kubeconfig(PartControllerManager), unthrottledQPS), []string{
		// All that are on by default, except for the two that package controllers replaces, and the
		// one that removes expired bootstrap tokens.
		"--controllers=*," + names.TokenCleanerController + ",-" + names.ReplicaSetController + ",-" + names.DeploymentController,
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + c.serviceAccountKey,
		"--root-ca-file=" + c.ca.CertPath,
		"--cluster-signing-cert-file=" + c.ca.CertPath,
		"--cluster-signing-key-file=" + c.ca.Path,
		"--allocate-node-cidrs=true",
		"--cluster-cidr=" + commas(cfg.ClusterCIDRs),
		"--service-cluster-ip-range=" + commas(cfg.ServiceCIDRs),
		// It creates this directory, by default outside of DataDir, in /usr/libexec.
		"--flex-volume-plugin-dir=" + cfg.server("flexvolume"),
		// Some controllers block in a watch until kube-apiserver is gone.
		"--controller-shutdown-timeout=500ms",
	}...)
	for _, cidr := range cfg.ClusterCIDRs {
		family := lo.Ternary(cidr.Addr().Is6(), "6", "4")
		flags = append(flags, "--node-cidr-mask-size-ipv"+family+"="+strconv.Itoa(nodeCIDRBits(cidr)))
	}
	return flags
}

func (s *server) runControllerManager(ctx context.Context, up func()) error {
	return ControllerManager(ctx, controllerManagerFlags(s.cfg, s.creds), up)
}

// ControllerManager runs upstream's controllers with upstream's flags until ctx ends. It calls up
// once one of them has created the service account that Pods of the namespace "default" need: from
// then on Pods are admitted, and the other controllers have started.
func ControllerManager(ctx context.Context, flags []string, up func()) error {
	known, off, aliases := app.KnownControllers(), app.ControllersDisabledByDefault(), app.ControllerAliases()
	o, err := options.NewKubeControllerManagerOptions()
	if err == nil {
		err = parse(o.Flags(known, off, aliases), flags)
	}
	var config *kcmconfig.Config
	if err == nil {
		config, err = o.Config(ctx, known, off, aliases)
	}
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

// waitServiceAccount returns true when the service account default/default exists, and false when
// ctx ends.
func waitServiceAccount(ctx context.Context, client kubernetes.Interface) bool {
	return wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		w, err := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=default"})
		if err != nil {
			return false, nil
		}
		defer w.Stop()
		event := <-w.ResultChan() // a watch without a resource version begins with the objects that exist
		return event.Type == watch.Added, nil
	}) == nil
}

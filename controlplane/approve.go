package controlplane

import (
	"context"
	"fmt"
	"net/netip"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"flyball.dev/controlplane/approver"
)

// runApprover runs the approver of kubelets' serving certificates until ctx ends. No kubelet may have a certificate for
// what kube-apiserver's is for, nor for an address that Pods and Services get.
func runApprover(ctx context.Context, cfg Config, c *credentials, up func()) error {
	rc, err := loadKubeconfig(c.approver)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(rest.AddUserAgent(rc, PartApprover))
	if err != nil {
		return fmt.Errorf("connecting to kube-apiserver: %w", err)
	}
	api := servingLeaf(cfg)
	return approver.Run(ctx, approver.Config{
		Client: client, Ready: up,
		Protected: approver.Protected{
			Names: api.DNSNames, Addresses: api.Addresses, Ranges: []netip.Prefix{cfg.ClusterCIDR, cfg.ServiceCIDR},
		},
	})
}

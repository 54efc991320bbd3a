package controlplane

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"flyball.dev/controlplane/approver"
	"flyball.dev/internal/kubeconfig"
)

// runApprover approves kubelets' serving certificates. No kubelet may have a certificate for a name
// or address of kube-apiserver, nor for an address of a Pod or Service.
func (s *server) runApprover(ctx context.Context, up func()) error {
	rc, err := kubeconfig.Client(s.cfg.kubeconfig(PartApprover))
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(rest.AddUserAgent(rc, PartApprover))
	if err != nil {
		return fmt.Errorf("connecting to kube-apiserver: %w", err)
	}
	api := servingLeaf(s.cfg)
	return approver.Run(ctx, approver.Config{
		Client: client, Ready: up,
		Protected: approver.Protected{
			Names: api.DNSNames, Addresses: api.Addresses, Ranges: slices.Concat(s.cfg.ClusterCIDRs, s.cfg.ServiceCIDRs),
		},
	})
}

package controlplane

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"flyball.dev/controlplane/approver"
)

// csrApprover is the component that approves kubelets' serving certificates. No kubelet may have a
// certificate for a name or address of kube-apiserver, nor for an address of a Pod or Service.
type csrApprover struct {
	cfg        Config
	kubeconfig string
}

func (csrApprover) name() string { return PartApprover }

func (a csrApprover) run(ctx context.Context, up func()) error {
	rc, err := loadKubeconfig(a.kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(rest.AddUserAgent(rc, PartApprover))
	if err != nil {
		return fmt.Errorf("connecting to kube-apiserver: %w", err)
	}
	api := servingLeaf(a.cfg)
	return approver.Run(ctx, approver.Config{
		Client: client, Ready: up,
		Protected: approver.Protected{
			Names: api.DNSNames, Addresses: api.Addresses, Ranges: slices.Concat(a.cfg.ClusterCIDRs, a.cfg.ServiceCIDRs),
		},
	})
}

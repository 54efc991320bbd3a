package controlplane

import (
	"context"
	"time"

	"k8s.io/klog/v2"

	"flyball.dev/controlplane/pki"
)

// renewEvery is the longest time between two checks of the certificates.
const renewEvery = time.Hour

// certificates is the component that renews what ensureCredentials has issued: a server may run for
// longer than a certificate is valid. Its clients read the files again, kube-apiserver within a
// minute and client-go within five.
type certificates struct {
	cfg   Config
	store pki.Store
}

func (certificates) name() string { return PartCertificates }

func (c certificates) run(ctx context.Context, up func()) error {
	up()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(renewEvery, c.store.Life/100)):
		}
		if _, err := ensureCredentials(c.cfg, c.store); err != nil {
			klog.FromContext(ctx).Error(err, "Renewing certificates failed, trying again")
			c.cfg.progress(PartCertificates, StateUp, err)
		}
	}
}

package controlplane

import (
	"context"
	"time"

	"k8s.io/klog/v2"
)

// renewEvery is the longest time between two checks of the certificates.
const renewEvery = time.Hour

// renewCertificates renews what ensureCredentials has issued: a server may run for longer than a
// certificate is valid. Its clients read the files again, kube-apiserver within a minute and
// client-go within five.
func (s *server) renewCertificates(ctx context.Context, up func()) error {
	up()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(renewEvery, s.store.Life/100)):
		}
		if _, err := ensureCredentials(s.cfg, s.store); err != nil {
			klog.FromContext(ctx).Error(err, "Renewing certificates failed, trying again")
			s.cfg.progress(PartCertificates, StateUp, err)
		}
	}
}

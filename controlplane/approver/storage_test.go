package approver

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
)

// TestPlanStorage: a node gets the certificate of its own storage driver and of no other.
func TestPlanStorage(t *testing.T) {
	type spec = certificatesv1.CertificateSigningRequestSpec
	type template = x509.CertificateRequest
	for name, tc := range map[string]struct {
		reason string
		change func(*template, *spec)
		want   Verdict
	}{
		"Own":         {"the driver acts on this node", nil, Approve},
		"ForAnother":  {"a node may not reach the volumes of another", func(_ *template, s *spec) { s.Username = "system:node:n3" }, Leave},
		"NotANode":    {"a user that may make requests is no node", func(_ *template, s *spec) { s.Username = "alice" }, Leave},
		"NotInGroup":  {"the name alone makes no node", func(_ *template, s *spec) { s.Groups = nil }, Leave},
		"MoreGroups":  {"a group more is a right more", func(c *template, _ *spec) { c.Subject.Organization = append(c.Subject.Organization, "system:masters") }, Leave},
		"OtherGroup":  {"the policy counts on the group", func(c *template, _ *spec) { c.Subject.Organization = []string{"other"} }, Leave},
		"Names":       {"it is a client's", func(c *template, _ *spec) { c.DNSNames = []string{"n2"} }, Leave},
		"Serving":     {"it is a client's", func(_ *template, s *spec) { s.Usages = append(s.Usages, certificatesv1.UsageServerAuth) }, Leave},
		"OtherUser":   {"somebody else's request is not ours to judge", func(c *template, _ *spec) { c.Subject.CommonName = "alice" }, Ignore},
		"OtherSigner": {"upstream approves those of kubelets", func(_ *template, s *spec) { s.SignerName = certificatesv1.KubeAPIServerClientKubeletSignerName }, Ignore},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(t, func(c *template, s *spec) {
				c.Subject = pkix.Name{CommonName: StorageUserPrefix + "n2", Organization: []string{StorageGroup}}
				c.DNSNames, c.IPAddresses = nil, nil
				s.SignerName = certificatesv1.KubeAPIServerClientSignerName
				s.Usages = []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}
				if tc.change != nil {
					tc.change(c, s)
				}
			})
			if got := plan(State{Request: r}); got.Do != tc.want {
				t.Errorf("%s: it is %q (%s), want %q", tc.reason, got.Do, got.Reason, tc.want)
			}
		})
	}
}

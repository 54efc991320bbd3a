package approver

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/samber/lo"
	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/kubernetes/pkg/apis/certificates"
)

// Protected are names and addresses that a kubelet's certificate must never carry: with one, a node
// could impersonate the API server or a Service.
type Protected struct {
	Names     []string
	Addresses []netip.Addr
	Ranges    []netip.Prefix
}

// State is the input of plan.
type State struct {
	Request   *certificatesv1.CertificateSigningRequest
	Nodes     []*v1.Node
	Protected Protected
	Now       time.Time
}

// Verdict is the decision about a request.
type Verdict string

// The verdicts.
const (
	Ignore  Verdict = "ignore" // it is for another signer, or decided
	Approve Verdict = "approve"
	Wait    Verdict = "wait"  // a change of a Node may make it right
	Leave   Verdict = "leave" // to an administrator
)

// Action is the verdict, with the reason.
type Action struct {
	Do     Verdict
	Reason string
	// Report the reason in an Event.
	Report bool
	// RequeueAfter is when to reconcile again if nothing changes before; zero means never.
	RequeueAfter time.Duration
}

// reportAfter is how long a request waits before an Event says so: a kubelet makes it some seconds
// before its Node exists.
const reportAfter = 15 * time.Second

const (
	nodeUserPrefix = "system:node:"
	nodesGroup     = "system:nodes"
)

// The storage driver of a node has a user of its own, named after the node, because a node may not
// write claims. config/storage says what the group may do, and to whose objects.
const (
	StorageUserPrefix = "system:flyball:storage:"
	StorageGroup      = "system:flyball:storage"
)

// plan decides about a request, and whether to report that.
func plan(s State) Action {
	a := judge(s)
	quiet := s.Request.CreationTimestamp.Add(reportAfter).Sub(s.Now)
	switch {
	case a.Do == Leave, a.Do == Wait && quiet <= 0:
		a.Report = true
	case a.Do == Wait:
		a.RequeueAfter = quiet
	}
	return a
}

func judge(s State) Action {
	r := s.Request
	if decided(r) {
		return Action{Do: Ignore}
	}
	switch r.Spec.SignerName {
	case certificatesv1.KubeletServingSignerName:
		return judgeServing(s)
	case certificatesv1.KubeAPIServerClientSignerName:
		return judgeStorage(r)
	}
	return Action{Do: Ignore}
}

// judgeStorage decides about the client certificate of a node's storage driver: a node gets its own.
// Other client certificates are nobody's to approve here.
func judgeStorage(r *certificatesv1.CertificateSigningRequest) Action {
	request, err := certificates.ParseCSR(r.Spec.Request)
	if err != nil {
		return Action{Do: Ignore}
	}
	name, isStorage := strings.CutPrefix(request.Subject.CommonName, StorageUserPrefix)
	switch {
	case !isStorage:
		return Action{Do: Ignore}
	case name == "" || r.Spec.Username != nodeUserPrefix+name || !slices.Contains(r.Spec.Groups, nodesGroup):
		return Action{Do: Leave, Reason: fmt.Sprintf("%s asks for the certificate of %s", r.Spec.Username, request.Subject.CommonName)}
	case request.CheckSignature() != nil || !slices.Equal(request.Subject.Organization, []string{StorageGroup}) ||
		len(request.DNSNames)+len(request.IPAddresses)+len(request.EmailAddresses)+len(request.URIs) > 0 ||
		!slices.Contains(r.Spec.Usages, certificatesv1.UsageClientAuth) || slices.Contains(r.Spec.Usages, certificatesv1.UsageServerAuth):
		return Action{Do: Leave, Reason: "it is not a request for a storage driver's client certificate"}
	}
	return Action{Do: Approve, Reason: fmt.Sprintf("node %s asks for the certificate of its own storage driver", name)}
}

func judgeServing(s State) Action {
	r := s.Request
	leave := func(format string, args ...any) Action {
		return Action{Do: Leave, Reason: fmt.Sprintf(format, args...)}
	}
	request, err := certificates.ParseCSR(r.Spec.Request)
	if err != nil {
		return leave("the request cannot be read: %v", err)
	}
	if err := request.CheckSignature(); err != nil {
		return leave("its signature is not that of its key: %v", err)
	}
	usages := lo.Map(r.Spec.Usages, func(u certificatesv1.KeyUsage, _ int) string { return string(u) })
	if err := certificates.ValidateKubeletServingCSR(request, sets.NewString(usages...)); err != nil {
		return leave("it is not a request for a kubelet's serving certificate: %v", err)
	}
	name, isNode := strings.CutPrefix(r.Spec.Username, nodeUserPrefix)
	switch {
	case !isNode || name == "" || !slices.Contains(r.Spec.Groups, nodesGroup):
		return leave("it was made by %s, which is not a node", r.Spec.Username)
	case request.Subject.CommonName != r.Spec.Username:
		return leave("%s asks for the certificate of %s", r.Spec.Username, request.Subject.CommonName)
	}
	return planNames(s, name, request)
}

func decided(r *certificatesv1.CertificateSigningRequest) bool {
	return len(r.Status.Certificate) > 0 || slices.ContainsFunc(r.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
		return c.Type == certificatesv1.CertificateApproved || c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed
	})
}

// planNames compares the names and addresses that a request asks for with those that the Node
// called name reports. Faults that cannot be mended come first.
func planNames(s State, name string, request *x509.CertificateRequest) Action {
	leave := func(asked, why string) Action {
		return Action{Do: Leave, Reason: fmt.Sprintf("node %s asks for %s, which %s", name, asked, why)}
	}
	wait := func(format string, args ...any) Action { return Action{Do: Wait, Reason: fmt.Sprintf(format, args...)} }
	asked := slices.Clone(request.DNSNames)
	for _, ip := range request.IPAddresses {
		asked = append(asked, ip.String())
	}
	for _, a := range asked {
		if why := s.Protected.forbid(a); why != "" {
			return leave(a, why)
		}
	}
	// A node has only one name: all others in its Node's status, the kubelet itself has written.
	for _, dns := range request.DNSNames {
		if dns != name {
			return leave("the name "+dns, "is not its own")
		}
	}
	i := slices.IndexFunc(s.Nodes, func(n *v1.Node) bool { return n.Name == name })
	if i < 0 {
		return wait("there is no Node %s yet", name)
	}
	own := reported(s.Nodes[i])
	for _, a := range asked {
		if !slices.Contains(own, a) {
			return wait("node %s asks for %s, and its Node reports %s", name, a, strings.Join(own, ", "))
		}
		if others := othersReporting(s.Nodes, name, a); len(others) > 0 {
			return wait("node %s asks for %s, which Node %s reports too", name, a, strings.Join(others, ", "))
		}
	}
	return Action{Do: Approve, Reason: fmt.Sprintf("node %s asks for what its Node reports: %s", name, strings.Join(asked, ", "))}
}

// othersReporting returns the other Nodes that report a name or address too, sorted: the same State
// gives the same reason.
func othersReporting(nodes []*v1.Node, name, asked string) []string {
	others := lo.FilterMap(nodes, func(n *v1.Node, _ int) (string, bool) {
		return n.Name, n.Name != name && slices.Contains(reported(n), asked)
	})
	slices.Sort(others)
	return others
}

func reported(n *v1.Node) []string {
	addresses := lo.Map(n.Status.Addresses, func(a v1.NodeAddress, _ int) string { return a.Address })
	return lo.Uniq(append([]string{n.Name}, addresses...))
}

// forbid returns why no node may have a name or an address; "" if one may.
func (p Protected) forbid(asked string) string {
	if slices.ContainsFunc(p.Names, func(n string) bool { return strings.EqualFold(n, asked) }) || strings.Contains(asked, "*") {
		return "is a name of the API server, or a wildcard"
	}
	if lower := strings.ToLower(asked) + "."; strings.Contains(lower, ".svc.") {
		return "is a name of a Service"
	}
	a, err := netip.ParseAddr(asked)
	if err != nil {
		return ""
	}
	a = a.Unmap()
	switch {
	case a.IsLoopback() || a.IsUnspecified() || a.IsMulticast():
		return "is not an address of one host"
	case slices.Contains(p.Addresses, a):
		return "is an address of the API server"
	case slices.ContainsFunc(p.Ranges, func(r netip.Prefix) bool { return r.Contains(a) }):
		return "is an address of a Pod or a Service"
	}
	return ""
}

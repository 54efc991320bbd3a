package join

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// choose returns the certificate that matches the pin. The others are not trusted: an impostor may
// have added them.
func choose(server string, certs []*x509.Certificate, pin string) (*x509.Certificate, error) {
	var found []string
	for _, c := range certs {
		if have := Pin(c); have != pin {
			found = append(found, have)
			continue
		}
		return c, nil
	}
	return nil, fmt.Errorf("trusting the server at %s: the CA of its cluster has the hash %s, --token has %s: one of the two belongs to another cluster; create a token on that server with `flyball token create`, or correct --server",
		server, strings.Join(found, ", "), pin)
}

// nameTaken returns an error if a node with these addresses may not join with the name of the Node.
// A Node that is not Ready is taken over, since its host may have been replaced. A Node with one of
// the addresses is this host, which joins again.
func nameTaken(node *v1.Node, addresses List) error {
	var at string
	for _, a := range node.Status.Addresses {
		if a.Type == v1.NodeInternalIP {
			if slices.Contains(addresses, a.Address) {
				return nil
			}
			at = a.Address
		}
	}
	for _, c := range node.Status.Conditions {
		if c.Type == v1.NodeReady && c.Status == v1.ConditionTrue {
			return fmt.Errorf("joining as %s: a node with this name at %s is Ready; choose another name with --node-name, or delete that Node (`flyball kubectl delete node %s` on the server) if its host no longer exists",
				node.Name, at, node.Name)
		}
	}
	return nil
}

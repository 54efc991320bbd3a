package join

import (
	"crypto/x509"
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// choose returns the one certificate that the pin is of. Others beside it are not trusted: whoever answers may have added
// them.
func choose(server string, certs []*x509.Certificate, pin string) (*x509.Certificate, error) {
	var found []string
	for _, c := range certs {
		if have := Pin(c); have != pin {
			found = append(found, have)
			continue
		}
		return c, nil
	}
	return nil, fmt.Errorf("trusting the server at %s: the authority of its cluster has the hash %s, --token is for %s: one of the two belongs to another cluster; make a token on that server with `flyball token create`, or correct --server",
		server, strings.Join(found, ", "), pin)
}

// nameTaken says why a machine with this address may not join by the name of the Node; nil if it may. A Node that is not
// Ready is taken over, as when a machine was replaced; one at the same address is this machine, which joins anew.
func nameTaken(node *v1.Node, address string) error {
	var at string
	for _, a := range node.Status.Addresses {
		if a.Type == v1.NodeInternalIP {
			if a.Address == address {
				return nil
			}
			at = a.Address
		}
	}
	for _, c := range node.Status.Conditions {
		if c.Type == v1.NodeReady && c.Status == v1.ConditionTrue {
			return fmt.Errorf("joining as %s: a machine of this name at %s is Ready; choose another name with --node-name, or delete that Node (`flyball kubectl delete node %s` on the server) if the machine is gone",
				node.Name, at, node.Name)
		}
	}
	return nil
}

package simulated

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
)

// Config is what Run needs. Client and Nodes are required.
type Config struct {
	// Client reaches the API server. It is an administrator's: it must be allowed to impersonate
	// nodes, and to read Pods, Nodes, Services, ConfigMaps and Secrets. Its rate limits are not
	// used.
	Client *rest.Config
	// Nodes is the number of nodes, 0 to 10000.
	Nodes int
	// Prefix of their names, "simulated-" by default: the nodes are simulated-0, simulated-1 and so
	// on.
	Prefix string
	// Ready is called once, when Awaited of the Nodes are Ready. May be nil.
	Ready func()
	// Awaited is how many Nodes Ready waits for; 0 means all.
	Awaited int
}

func (c Config) complete() (Config, error) {
	c.Prefix = cmp.Or(c.Prefix, "simulated-")
	c.Awaited = min(cmp.Or(c.Awaited, c.Nodes), c.Nodes)
	var errs []error
	if c.Client == nil {
		errs = append(errs, errors.New("there is no client of the API server"))
	}
	if c.Nodes < 0 || c.Nodes > 10000 {
		errs = append(errs, fmt.Errorf("%d nodes are out of range: from 0 to 10000", c.Nodes))
	}
	// The label kubernetes.io/hostname of a Node is its name.
	last := c.Prefix + strconv.Itoa(max(c.Nodes-1, 0))
	for _, text := range append(validation.IsDNS1123Subdomain(last), validation.IsValidLabelValue(last)...) {
		errs = append(errs, fmt.Errorf("the prefix %q does not begin the name of a node, %s: %s", c.Prefix, last, text))
	}
	if err := errors.Join(errs...); err != nil {
		return c, fmt.Errorf("checking the configuration of simulated nodes: %w", err)
	}
	return c, nil
}

// capacity of each node.
func capacity() v1.ResourceList {
	return v1.ResourceList{
		v1.ResourceCPU: resource.MustParse("8"), v1.ResourceMemory: resource.MustParse("32Gi"),
		v1.ResourceEphemeralStorage: resource.MustParse("100Gi"),
		v1.ResourcePods:             *resource.NewQuantity(maxPods, resource.DecimalSI),
	}
}

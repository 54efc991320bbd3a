// Package config turns a configuration file, flags and what the machine offers into one validated configuration.
package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/samber/lo"
	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"
	sigsyaml "sigs.k8s.io/yaml"

	"flyball.dev/apis/config/v1alpha1"
)

// Config is a validated configuration, its addresses parsed.
type Config struct {
	v1alpha1.FlyballConfiguration

	NodeAddr, BindAddr, DNSAddr netip.Addr
	ClusterPrefix               netip.Prefix
	ServicePrefix               netip.Prefix
	// ControllerKinds are Controllers.Kinds.
	ControllerKinds []schema.GroupVersion
}

// Decode reads a configuration file strictly: an unknown or repeated field is an error that names it and its line.
func Decode(data []byte) (*v1alpha1.FlyballConfiguration, error) {
	c := &v1alpha1.FlyballConfiguration{}
	raw, err := sigsyaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, fmt.Errorf("parsing YAML: %w", err)
	}
	strict, err := kjson.UnmarshalStrict(raw, c)
	if err != nil {
		return nil, fmt.Errorf("decoding: %w", err)
	}
	if c.APIVersion != v1alpha1.GroupVersion || c.Kind != v1alpha1.Kind {
		return nil, fmt.Errorf("decoding: the file must begin with \"apiVersion: %s\" and \"kind: %s\", it says %q and %q",
			v1alpha1.GroupVersion, v1alpha1.Kind, c.APIVersion, c.Kind)
	}
	if len(strict) > 0 {
		return nil, fmt.Errorf("decoding: %w", errors.Join(withLines(strict, data)...))
	}
	return c, nil
}

// Load reads the file at path (none if empty), lets override set what flags say, fills in defaults and validates.
func Load(path string, override func(*v1alpha1.FlyballConfiguration) error) (*Config, error) {
	c := &v1alpha1.FlyballConfiguration{}
	if path != "" {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading the configuration file: %w", err)
		}
		if c, err = Decode(data); err != nil {
			return nil, fmt.Errorf("reading the configuration file %s: %w", path, err)
		}
	}
	if err := override(c); err != nil {
		return nil, err
	}
	server := c.Server
	if c.NodeIP != "" {
		server = "" // no need to look its name up
	}
	host, unknown := hostDefaults(net.DefaultResolver, lookUpWithin, server)
	v1alpha1.SetDefaults(c, host)
	if err := v1alpha1.Validate(c).ToAggregate(); err != nil {
		return nil, fmt.Errorf("validating the configuration: %w", err)
	}
	if unknown != nil {
		return nil, unknown
	}
	return parse(c), nil
}

// parse is called with a valid configuration only.
func parse(c *v1alpha1.FlyballConfiguration) *Config {
	c.DataDir, c.Server = filepath.Clean(c.DataDir), strings.TrimRight(c.Server, "/")
	kinds := lo.Map(c.Controllers.Kinds, func(kind string, _ int) schema.GroupVersion { return lo.Must(schema.ParseGroupVersion(kind)) })
	return &Config{
		ControllerKinds:      kinds,
		FlyballConfiguration: *c,
		NodeAddr:             netip.MustParseAddr(c.NodeIP),
		BindAddr:             netip.MustParseAddr(c.BindAddress),
		DNSAddr:              netip.MustParseAddr(c.ClusterDNS),
		ClusterPrefix:        netip.MustParsePrefix(c.ClusterCIDR),
		ServicePrefix:        netip.MustParsePrefix(c.ServiceCIDR),
	}
}

// withLines adds to each strict decoding error the line of the field that it names.
func withLines(errs []error, data []byte) []error {
	var doc yaml.Node
	if yaml.Unmarshal(data, &doc) != nil || len(doc.Content) == 0 {
		return errs
	}
	out := make([]error, 0, len(errs))
	for _, err := range errs {
		// The decoder has no typed error for this; the path stands in quotes.
		_, rest, _ := strings.Cut(err.Error(), `"`)
		path, _, _ := strings.Cut(rest, `"`)
		if line := lineOf(doc.Content[0], strings.Split(path, ".")); line > 0 {
			err = fmt.Errorf("line %d: %w", line, err)
		}
		out = append(out, err)
	}
	return out
}

// lineOf finds the line of the key at path; 0 if there is none.
func lineOf(node *yaml.Node, path []string) int {
	if node.Kind != yaml.MappingNode {
		return 0
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value != path[0] {
			continue
		}
		if len(path) == 1 {
			return node.Content[i].Line
		}
		return lineOf(node.Content[i+1], path[1:])
	}
	return 0
}

// Command chart writes what the installation into a cluster that is not Flyball's shares with
// Flyball itself: the roles, without apps/v1, which that cluster's own controllers keep, and the
// CRDs, as config/helm/flyball packs them.
//
// Usage: chart CONFIG OUT, where CONFIG is config/ with what controller-gen wrote, and OUT the
// config/ to write into.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	yamlwriter "sigs.k8s.io/yaml"
)

// namespace is where config/default installs the loops.
const namespace = "flyball-system"

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: chart CONFIG OUT")
		os.Exit(1)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

func run(config, out string) error {
	cluster, role, err := roles(filepath.Join(config, "rbac", "role.yaml"))
	if err != nil {
		return err
	}
	cluster.Rules = withoutApps(cluster.Rules)
	role.Namespace = namespace
	var manifest bytes.Buffer
	for _, object := range []any{cluster, role} {
		data, err := yamlwriter.Marshal(object)
		if err != nil {
			return fmt.Errorf("rendering a role: %w", err)
		}
		manifest.WriteString("---\n")
		manifest.Write(data)
	}
	files := map[string][]byte{"rbac/role_installed.yaml": manifest.Bytes()}
	for name, rules := range map[string][]rbacv1.PolicyRule{"clusterrole": cluster.Rules, "role": role.Rules} {
		data, err := yamlwriter.Marshal(map[string]any{"rules": rules})
		if err != nil {
			return fmt.Errorf("rendering rules: %w", err)
		}
		files["helm/flyball/files/"+name+".yaml"] = data
	}
	crds, err := filepath.Glob(filepath.Join(config, "crd", "bases", "*.yaml"))
	if err != nil {
		return fmt.Errorf("finding the CRDs: %w", err)
	}
	for _, crd := range crds {
		data, err := os.ReadFile(crd)
		if err != nil {
			return fmt.Errorf("reading a CRD: %w", err)
		}
		// Uninstalling the chart must not delete everybody's Deployments with their kind.
		kept := bytes.Replace(data, []byte("  annotations:\n"), []byte("  annotations:\n    helm.sh/resource-policy: keep\n"), 1)
		if bytes.Equal(kept, data) {
			return fmt.Errorf("marking %s as to be kept: it has no annotations", crd)
		}
		files["helm/flyball/files/crds/"+filepath.Base(crd)] = kept
	}
	for name, data := range files {
		path := filepath.Join(out, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
	}
	return nil
}

// roles reads the ClusterRole and the Role that controller-gen wrote.
func roles(file string) (cluster rbacv1.ClusterRole, role rbacv1.Role, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return cluster, role, fmt.Errorf("reading the roles: %w", err)
	}
	const buffer = 4096
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), buffer)
	for _, into := range []any{&cluster, &role} {
		if err := decoder.Decode(into); err != nil && !errors.Is(err, io.EOF) {
			return cluster, role, fmt.Errorf("parsing %s: %w", file, err)
		}
	}
	if cluster.Kind != "ClusterRole" || role.Kind != "Role" {
		return cluster, role, fmt.Errorf("parsing %s: want a ClusterRole and a Role, found %s and %s", file, cluster.Kind, role.Kind)
	}
	return cluster, role, nil
}

func withoutApps(rules []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	var kept []rbacv1.PolicyRule
	for _, rule := range rules {
		rule.APIGroups = slices.DeleteFunc(rule.APIGroups, func(group string) bool { return group == "apps" })
		if len(rule.APIGroups) > 0 {
			kept = append(kept, rule)
		}
	}
	return kept
}

package network

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"flyball.dev/internal/atomicfile"
)

const (
	// conflistName sorts before what distributions bring: a runtime takes the first file. The file
	// of the previous name, 10-flyball.conflist, lay only where the bundled runtime looks: among
	// the run-time files, which the teardown removes with all that is in them.
	conflistName = "00-flyball.conflist"
	networkName  = "flyball"
	// resultsDir is where libcni, in the runtime, keeps what plugins answered. The runtime gives no
	// choice of it.
	resultsDir = "/var/lib/cni/results"
)

// The part of the CNI configuration format that we use.
type (
	networkList struct {
		CNIVersion string         `json:"cniVersion"`
		Name       string         `json:"name"`
		Plugins    []bridgePlugin `json:"plugins"`
	}
	bridgePlugin struct {
		Type        string `json:"type"`
		Bridge      string `json:"bridge"`
		IsGateway   bool   `json:"isGateway"`
		HairpinMode bool   `json:"hairpinMode"`
		MTU         int    `json:"mtu"`
		IPAM        ipam   `json:"ipam"`
	}
	ipam struct {
		Type    string                `json:"type"`
		DataDir string                `json:"dataDir"`
		Ranges  [][]map[string]string `json:"ranges"`
		Routes  []map[string]string   `json:"routes"`
	}
)

// conflist returns the CNI configuration for Pods of this node. One plugin and its IPAM are all
// that runs for a Pod: masquerading is in our own nftables table, host ports are the proxy's, and
// the plugins for both would execute programs of the host. prefix is what the names of the plugins
// begin with.
func conflist(w Wanted, ipamDir, prefix string) []byte {
	addresses := ipam{Type: prefix + "host-local", DataDir: ipamDir}
	for i, cidr := range w.PodCIDRs {
		addresses.Ranges = append(addresses.Ranges, []map[string]string{
			{"subnet": cidr.String(), "gateway": w.Gateways[i].Addr().String()},
		})
		everywhere := netip.PrefixFrom(cidr.Addr(), 0).Masked()
		addresses.Routes = append(addresses.Routes, map[string]string{"dst": everywhere.String()})
	}
	list := networkList{CNIVersion: "1.0.0", Name: networkName, Plugins: []bridgePlugin{{
		Type: prefix + "bridge", Bridge: Bridge, IsGateway: true, MTU: w.MTU,
		// A Pod that reaches itself through a Service.
		HairpinMode: true,
		IPAM:        addresses,
	}}}
	out, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		panic(err) // plain strings and numbers
	}
	return append(out, '\n')
}

// configureCNI makes the runtime give Pods of this node our network. It returns an error if the
// runtime would take another one.
func configureCNI(cfg Config, w Wanted) error {
	prefix := ""
	if cfg.CNIBinDir != "" {
		prefix = linkPrefix
		if err := linkPlugins(cfg.CNIBinDir, cfg.PluginDir); err != nil {
			return err
		}
	}
	if err := checkFirst(cfg.CNIConfDir); err != nil {
		return err
	}
	return writeConflist(cfg.CNIConfDir, conflist(w, cfg.IPAMDir, prefix))
}

// checkFirst returns an error if the runtime would find another program's configuration before
// ours. libcni, in the runtime, takes the files with one of three endings, and the runtime the
// first of them by name.
func checkFirst(dir string) error {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the CNI configuration: %w", err)
	}
	for _, e := range entries {
		switch ext := filepath.Ext(e.Name()); {
		case e.Name() >= conflistName:
			return nil
		case !e.IsDir() && slices.Contains([]string{".conf", ".conflist", ".json"}, ext):
			return fmt.Errorf("writing the CNI configuration: the container runtime takes %s before our %s, "+
				"and Pods would get another network; rename or remove it",
				filepath.Join(dir, e.Name()), conflistName)
		}
	}
	return nil
}

// isOurConflist says whether we may replace a file of that name. After a crash of the host it may
// be empty.
func isOurConflist(content []byte) bool {
	var list networkList
	return len(content) == 0 || json.Unmarshal(content, &list) == nil && list.Name == networkName
}

// removeConflist removes the CNI configuration if it is ours. Its directory may be everybody's and
// stays.
func removeConflist(dir string) error {
	file := filepath.Join(dir, conflistName)
	content, err := os.ReadFile(file)
	if err == nil && isOurConflist(content) {
		err = os.Remove(file)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// writeConflist replaces the file at once, so that the runtime, which watches the directory, never
// reads half of it. It does not touch a file that is right, and returns an error if another
// program's has the name.
func writeConflist(dir string, content []byte) error {
	file := filepath.Join(dir, conflistName)
	switch old, err := os.ReadFile(file); {
	case err == nil && bytes.Equal(old, content):
		return nil
	case err == nil && !isOurConflist(old):
		return fmt.Errorf("writing the CNI configuration: %s is there already and not of the network %q; "+
			"rename or remove it", file, networkName)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("writing the CNI configuration: %w", err)
	}
	return atomicfile.Write(file, content, 0o644)
}

// removeResults removes what libcni kept of Pods of ours for which the runtime did not call the
// plugins at the end.
func removeResults(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, networkName+"-*-eth0"))
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range files {
		if err := os.Remove(f); err != nil && !os.IsNotExist(err) {
			errs = append(errs, err)
		}
	}
	// Both are there because of us, unless another program has something in them.
	_, _ = os.Remove(dir), os.Remove(filepath.Dir(dir))
	return errors.Join(errs...)
}

package network

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

const (
	conflistName = "10-flyball.conflist"
	networkName  = "flyball"
	// resultsDir is where libcni, in the runtime, keeps what plugins answered. The runtime gives no choice of it.
	resultsDir = "/var/lib/cni/results"
)

// ipamDir is where host-local notes the addresses that are taken: beside the configuration, because both are of no use
// after a reboot.
func ipamDir(confDir string) string { return filepath.Join(confDir, "networks") }

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

// conflist returns the CNI configuration for Pods of this node. One plugin and its IPAM are all that runs for a Pod:
// masquerading is in our own nftables table, host ports are the proxy's, and the plugins for both would execute programs
// of the host.
func conflist(w Wanted, ipamDir string) []byte {
	list := networkList{CNIVersion: "1.0.0", Name: networkName, Plugins: []bridgePlugin{{
		Type: "bridge", Bridge: Bridge, IsGateway: true, MTU: w.MTU,
		// A Pod that reaches itself through a Service.
		HairpinMode: true,
		IPAM: ipam{
			Type: "host-local", DataDir: ipamDir,
			Ranges: [][]map[string]string{{{"subnet": w.PodCIDR.String(), "gateway": w.Gateway.Addr().String()}}},
			Routes: []map[string]string{{"dst": "0.0.0.0/0"}},
		},
	}}}
	out, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		panic(err) // plain strings and numbers
	}
	return append(out, '\n')
}

// writeConflist replaces the file at once, so that the runtime, which watches the directory, never reads half of it. It
// does not touch a file that is right.
func writeConflist(dir string, content []byte) error {
	file := filepath.Join(dir, conflistName)
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, content) {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("writing the CNI configuration: %w", err)
	}
	// A name that the runtime does not take for a configuration.
	tmp := filepath.Join(dir, "."+conflistName+".tmp")
	if err := os.WriteFile(tmp, content, 0o644); err != nil {
		return fmt.Errorf("writing the CNI configuration: %w", err)
	}
	if err := os.Rename(tmp, file); err != nil {
		return fmt.Errorf("writing the CNI configuration: %w", err)
	}
	return nil
}

// removeResults removes what libcni kept of Pods of ours whose end the plugins were not told.
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
	// Both are there because of us, unless somebody else has something in them.
	_, _ = os.Remove(dir), os.Remove(filepath.Dir(dir))
	return errors.Join(errs...)
}

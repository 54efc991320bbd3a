//go:build linux

package containerd

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
)

// Config is containerd's configuration. Every path is absolute.
type Config struct {
	// BinDir holds containerd, containerd-shim-runc-v2 and runc.
	BinDir string
	// RootDir is containerd's persistent root: content, snapshots, metadata.
	RootDir string
	// StateDir holds run-time files: the configuration, the sockets of the shims, mounts, network
	// namespaces. Stop removes it. It has at most 40 characters, because a shim's socket beneath it
	// must fit into a socket address.
	StateDir string
	// Socket is the path on which containerd serves its own API and CRI.
	Socket string
	// CNIBinDir holds the CNI plugins, CNIConfDir the network configuration, which package network
	// writes.
	CNIBinDir, CNIConfDir string
	// LogFile receives the output of containerd and its shims. It takes at most about 20 MiB,
	// including one old file.
	LogFile string
	// SandboxImage is the image of the container that holds a Pod's namespaces. It is never
	// garbage-collected.
	SandboxImage string
	// RegistryHosts is the directory of per-registry settings in containerd's hosts.toml format
	// ("certs.d"); it may be absent. Read for each pull.
	RegistryHosts string
	// Proxy are the environment variables, as NAME=VALUE, of the proxy for image pulls: HTTP_PROXY,
	// HTTPS_PROXY, NO_PROXY. Those of this process are not used.
	Proxy []string
	// Ready, if set, is called each time CRI answers: after the first start and after each restart.
	Ready func()
	// Down, if set, is called with the reason each time containerd has ended or cannot be
	// restarted.
	Down func(err error)
}

// maxStateDir leaves space for "/s/", a SHA-256 in hex and a NUL in the 108 bytes of a unix socket
// address.
const maxStateDir = 108 - len("/s/") - 64 - 1

func (c Config) validate() error {
	for name, path := range map[string]string{
		"BinDir": c.BinDir, "RootDir": c.RootDir, "StateDir": c.StateDir, "Socket": c.Socket,
		"CNIBinDir": c.CNIBinDir, "CNIConfDir": c.CNIConfDir, "LogFile": c.LogFile,
	} {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("checking the container runtime's configuration: %s must be an absolute path, not %q", name, path)
		}
	}
	if len(c.StateDir) > maxStateDir {
		return fmt.Errorf("checking the container runtime's configuration: the run-time directory %s is too long by %d characters for the unix sockets in it; choose a shorter one",
			c.StateDir, len(c.StateDir)-maxStateDir)
	}
	return nil
}

// Names of programs in BinDir, by which their processes are found.
const (
	program     = "containerd"
	shimProgram = "containerd-shim-runc-v2"
)

func (c Config) configFile() string { return filepath.Join(c.StateDir, "config.toml") }
func (c Config) pidFile() string    { return filepath.Join(c.StateDir, "containerd.pid") }
func (c Config) binary() string     { return filepath.Join(c.BinDir, program) }

// host has the properties of the host that the configuration depends on.
type host struct {
	// RestrictOOMScore is set where this process may not lower an oom_score_adj, so containerd may
	// not either.
	RestrictOOMScore bool
}

// detectHost tries to lower the oom_score_adj: the capability for that counts only in the initial
// user namespace, which /proc does not show.
func detectHost() host {
	const file = "/proc/self/oom_score_adj"
	old, err := os.ReadFile(file)
	if err != nil {
		return host{RestrictOOMScore: true}
	}
	score, err := strconv.Atoi(strings.TrimSpace(string(old)))
	if err != nil || score <= -1000 {
		return host{RestrictOOMScore: err != nil}
	}
	if err := os.WriteFile(file, []byte(strconv.Itoa(score-1)), 0); err != nil {
		return host{RestrictOOMScore: true}
	}
	_ = os.WriteFile(file, old, 0) // raising it again is always allowed
	return host{}
}

//go:embed config.toml.tmpl
var configTemplate string

// render returns containerd's configuration file.
func render(c Config, h host) ([]byte, error) {
	t, err := template.New("config.toml").Funcs(template.FuncMap{"join": filepath.Join, "q": tomlString}).Parse(configTemplate)
	if err != nil {
		return nil, fmt.Errorf("parsing containerd's configuration template: %w", err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, struct {
		Config
		Host host
	}{c, h}); err != nil {
		return nil, fmt.Errorf("rendering containerd's configuration: %w", err)
	}
	return out.Bytes(), nil
}

// tomlString quotes s as a TOML basic string.
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

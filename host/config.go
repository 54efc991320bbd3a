//go:build linux

package host

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"flyball.dev/apis/config"
	"flyball.dev/apis/config/v1alpha1"
	"flyball.dev/host/instance"
	"flyball.dev/host/progress"
	"flyball.dev/join"
)

// Source is where the configuration of this host comes from.
type Source struct {
	// File is the configuration file; none if empty.
	File string
	// Flags override the file where they are set.
	Flags v1alpha1.FlyballConfiguration
}

// readJoined returns the cluster that the host with this configuration has joined; nil if it has
// joined none.
func readJoined(c v1alpha1.FlyballConfiguration) (*join.Cluster, error) {
	return join.Read(filepath.Join(cmp.Or(c.DataDir, v1alpha1.DefaultDataDir), "agent"))
}

// Load reads the configuration file, overrides it by the flags, fills in what a joined cluster
// decides and the defaults, and validates. It also returns the cluster that this host has joined;
// nil if it has joined none.
func (s Source) Load() (*config.Config, *join.Cluster, error) {
	c, err := v1alpha1.ReadFile(s.File)
	if err != nil {
		return nil, nil, err
	}
	c.Override(s.Flags)
	joined, err := readJoined(c)
	if err == nil {
		err = joined.Complete(&c)
	}
	if err != nil {
		return nil, nil, err
	}
	completed, err := Complete(c)
	return completed, joined, err
}

// LoadToStart is Load for a role that is about to start. A node agent joins its cluster here,
// before anything is started.
func (s Source) LoadToStart(ctx context.Context, role instance.Role, runDir string) (*config.Config, *join.Cluster, error) {
	c, joined, err := s.Load()
	if err != nil {
		return nil, nil, err
	}
	agentDir := filepath.Join(c.DataDir, "agent")
	switch {
	case role != instance.Agent && joined != nil:
		return nil, nil, fmt.Errorf("starting `flyball %s`: this machine is node %s of the cluster at %s (%s); `flyball agent` starts it, `flyball down --purge` makes it leave",
			role, joined.NodeName, joined.Server, agentDir)
	case role != instance.Agent && c.Server != "":
		return nil, nil, fmt.Errorf("starting `flyball %s`: the configuration says that this machine joins the cluster at %s, which `flyball agent` does; remove server and token from it to make a cluster here",
			role, c.Server)
	case role != instance.Agent || c.Server == "" || len(instance.Running(runDir, role)) > 0:
		return c, joined, nil
	}
	began := time.Now()
	now, err := join.Ensure(ctx, joined, join.Config{
		Dir: agentDir, Server: c.Server, NodeName: c.NodeName, NodeIPs: c.NodeAddrs,
	}, c.Token)
	if err != nil {
		return nil, nil, err
	}
	if now {
		progress.New(os.Stdout, began).Done("joined "+c.Server, time.Since(began))
	}
	// The cluster's ranges and names replace the defaults. The token is not needed any more.
	if c, joined, err = s.Load(); err == nil {
		c.Token = ""
	}
	return c, joined, err
}

// LoadInUse is Load for commands that remove or show what Flyball has made on this host. Without
// s.File, it returns the configuration that was last in use, which runDir records.
//
// It works on a host that has lost its network, and on one whose files are damaged: it warns of
// files that it cannot read. Only the data directory, the root directory, the container runtime
// and the directories of CNI matter. A file that was named and cannot be read is an error, because
// it may name another data directory.
func (s Source) LoadInUse(runDir string, warn func(error)) (*config.Config, error) {
	if s.File != "" {
		var completed *config.Config
		c, err := v1alpha1.ReadFile(s.File)
		if err == nil {
			completed, err = s.tolerant(c, warn)
		}
		if err != nil {
			err = fmt.Errorf("%w; without --config, the configuration that was last in use counts, and --data-dir", err)
		}
		return completed, err
	}
	recorded, err := instance.Recorded(runDir)
	if err != nil {
		warn(fmt.Errorf("%w; --data-dir finds what lies elsewhere than in %s", err, v1alpha1.DefaultDataDir))
	}
	completed, err := s.tolerant(recorded, warn)
	if err != nil && recorded.DataDir != "" {
		warn(fmt.Errorf("using the configuration that was last in use: %w", err))
		return s.tolerant(v1alpha1.FlyballConfiguration{
			DataDir: recorded.DataDir, CRIEndpoint: recorded.CRIEndpoint,
			CNIConfDir: recorded.CNIConfDir, CNIBinDir: recorded.CNIBinDir,
			Kubelet: v1alpha1.KubeletConfiguration{RootDir: recorded.Kubelet.RootDir},
		}, warn)
	}
	return completed, err
}

// tolerant completes c, if need be without the node's name and address: removing does not need
// them, and they may be unknown.
func (s Source) tolerant(c v1alpha1.FlyballConfiguration, warn func(error)) (*config.Config, error) {
	c.Override(s.Flags)
	joined, err := readJoined(c)
	if err != nil {
		warn(err)
	}
	_ = joined.Complete(&c) // if c contradicts the joined cluster, both are removed all the same
	c.NodeIP, c.NodeName = cmp.Or(c.NodeIP, "127.0.0.1"), cmp.Or(c.NodeName, "unknown")
	return Complete(c)
}

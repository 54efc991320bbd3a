package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// side is one of the two clusters that are compared.
type side struct {
	name       string
	server     string // base URL of the API
	kubeconfig string
	image      string // present on the node before the first Pod asks for it
	bin        string // directory of the programs whose memory and CPU count
	data       string // directory of what must survive
	claims     bool   // it has a default StorageClass
	up, stop   []string
	env        []string
}

func newFlyball(bin string) (*side, error) {
	exe := filepath.Join(bin, "flyball")
	if _, err := os.Stat(exe); err != nil {
		return nil, fmt.Errorf("looking for the binary: %w (build it with: make build)", err)
	}
	if out, err := exec.Command(exe, "down", "--purge").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("clearing an earlier cluster: %w: %s", err, out)
	}
	return &side{
		name: "flyball", server: "https://127.0.0.1:6443", kubeconfig: "/etc/flyball/kubeconfig", image: "flyball.dev/pause:1", bin: bin, data: "/var/lib/flyball", claims: true,
		up: []string{exe, "up", "--detach"}, stop: []string{exe, "down", "--purge"},
	}, nil
}

// newUpstream builds upstream's programs, if they are not there yet, with the yardstick's own script.
func newUpstream(ctx context.Context, dir string) (*side, error) {
	script, err := filepath.Abs(filepath.Join(dir, "upstream.sh"))
	if err != nil {
		return nil, fmt.Errorf("resolving %s: %w", dir, err)
	}
	yard := filepath.Join(os.TempDir(), "yardstick")
	s := &side{
		name: "upstream", server: "https://127.0.0.1:16443", kubeconfig: filepath.Join(yard, "kubeconfig"),
		image: "docker.io/yardstick/pause:1", bin: filepath.Join(yard, "bin"), data: yard,
		up: []string{"bash", script, "up"}, stop: []string{"bash", script, "down"}, env: append(os.Environ(), "YARD="+yard),
	}
	if _, err := os.Stat(filepath.Join(s.bin, "runc")); err == nil {
		return s, nil
	}
	progressf("upstream: building its programs, which takes minutes")
	return s, s.command(ctx, []string{"bash", script, "build"})
}

func (s *side) command(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = s.env
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running %v: %w: %s", args, err, out.Bytes())
	}
	return nil
}

// start brings the cluster up and takes the three times of a start.
func (s *side) start(ctx context.Context, f *figures) (*client, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	began := time.Now()
	up := make(chan error, 1)
	go func() { up <- s.command(ctx, s.up) }()
	if err := s.untilReadyz(ctx, up); err != nil {
		return nil, err
	}
	f.readyz = time.Since(began)
	config, err := clientcmd.BuildConfigFromFlags("", s.kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig of %s: %w", s.name, err)
	}
	config.QPS = -1
	clientset, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("building a client: %w", err)
	}
	c := &client{Interface: clientset, image: s.image}
	first := make(chan error, 1)
	go func() { first <- c.firstPod(ctx, func() { f.firstPod = time.Since(began) }) }()
	if err := c.untilNodeReady(ctx); err != nil {
		return nil, err
	}
	f.nodeReady = time.Since(began)
	if err := <-first; err != nil {
		return nil, err
	}
	return c, <-up
}

// untilReadyz probes every 10 ms, which is the resolution of the figure.
func (s *side) untilReadyz(ctx context.Context, up chan error) error {
	probe := &http.Client{Timeout: time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer probe.CloseIdleConnections()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if response, err := probe.Get(s.server + "/readyz"); err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s/readyz: %w", s.server, ctx.Err())
		case err := <-up:
			if err != nil {
				return err
			}
			up <- nil
		case <-tick.C:
		}
	}
}

func (s *side) down(ctx context.Context) error { return s.command(ctx, s.stop) }

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// side is who is measured: a program that is given a kubeconfig.
type side struct {
	name    string
	flyball string // the binary that also is kube-apiserver and etcd
	command func(kubeconfig string) []string
	once    bool // has one turn only
}

func sides(bin, upstream string) []side {
	flyball := filepath.Join(bin, "flyball")
	manager := filepath.Join(upstream, "kube-controller-manager")
	kcm := func(more ...string) func(string) []string {
		return func(kubeconfig string) []string {
			return append([]string{manager, "--kubeconfig", kubeconfig, "--controllers=deployment-controller,replicaset-controller", "--leader-elect=false"}, more...)
		}
	}
	all := []side{{name: "flyball", flyball: flyball, command: func(kubeconfig string) []string {
		return []string{flyball, "controllers", "--kubeconfig", kubeconfig, "--kinds=apps/v1"}
	}}}
	if _, err := os.Stat(manager); err != nil {
		return all
	}
	return append(all,
		side{name: "upstream, default limits", flyball: flyball, command: kcm(), once: true},
		side{name: "upstream, raised limits", flyball: flyball, command: kcm("--kube-api-qps=1000", "--kube-api-burst=1000")})
}

// start starts an API server, the simulated kubelet and the side. stop ends what was started, also after an error; fail is
// called if the side ends by itself.
func (s side) start(ctx context.Context, fail func(error)) (c *cluster, stop func(), err error) {
	var undo []func()
	stop = func() {
		for _, end := range slices.Backward(undo) {
			end()
		}
	}
	dir, err := os.MkdirTemp("", "bench-rollouts-")
	if err != nil {
		return nil, stop, fmt.Errorf("making a directory: %w", err)
	}
	undo = append(undo, func() { _ = os.RemoveAll(dir) })
	for _, program := range []string{"kube-apiserver", "etcd"} {
		if err := os.Symlink(s.flyball, filepath.Join(dir, program)); err != nil {
			return nil, stop, fmt.Errorf("naming the binary %s: %w", program, err)
		}
	}
	api := &envtest.Environment{BinaryAssetsDirectory: dir}
	cfg, err := api.Start()
	if err != nil {
		return nil, stop, fmt.Errorf("starting kube-apiserver and etcd: %w", err)
	}
	undo = append(undo, func() { _ = api.Stop() })
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := writeKubeconfig(kubeconfig, cfg); err != nil {
		return nil, stop, err
	}
	cfg.QPS = -1
	clientset, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, stop, fmt.Errorf("making a client: %w", err)
	}
	simulation, cancel := context.WithCancel(ctx)
	undo = append(undo, cancel)
	c = &cluster{clientset}
	c.simulate(simulation)

	ended, err := s.run(kubeconfig, filepath.Join(dir, "log"), fail)
	if err != nil {
		return nil, stop, err
	}
	undo = append(undo, ended)
	return c, stop, nil
}

// run starts the side's program and returns what ends it.
func (s side) run(kubeconfig, log string, fail func(error)) (end func(), err error) {
	args := s.command(kubeconfig)
	out, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("making a log: %w", err)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		_ = out.Close()
		return nil, fmt.Errorf("starting %s: %w", args[0], err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err := cmd.Wait()
		_ = out.Close()
		said, _ := os.ReadFile(log)
		const enough = 2000
		fail(fmt.Errorf("%s ended by itself: %w: %s", args[0], err, said[max(0, len(said)-enough):]))
	}()
	return func() {
		const patience = 10 * time.Second
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		<-ended
		kill.Stop()
	}, nil
}

func writeKubeconfig(file string, cfg *rest.Config) error {
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: cfg.Host, CertificateAuthorityData: cfg.CAData}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{ClientCertificateData: cfg.CertData, ClientKeyData: cfg.KeyData}
	config.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "x"
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		return fmt.Errorf("writing the kubeconfig: %w", err)
	}
	return nil
}

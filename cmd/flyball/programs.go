package main

import (
	"os"
	"path/filepath"
	"strings"

	"flyball.dev/cmd/flyball/internal/envtest"
	"flyball.dev/controlplane/programs"
)

// argv0 is what this program is when it is called by another name. envtest starts the first two with the flags of
// upstream's programs, and kubectl is what people type.
var argv0 = map[string]func(args []string) error{
	"kube-apiserver": kubeAPIServer,
	"etcd":           etcd,
	"kubectl":        kubectl,
}

// program is the one of argv0 that path names, on Windows with an extension.
func program(path string) (func(args []string) error, bool) {
	run, found := argv0[strings.TrimSuffix(filepath.Base(path), ".exe")]
	return run, found
}

func kubeAPIServer(args []string) error {
	mode, err := envtest.FromEnvironment()
	if err != nil {
		return err
	}
	if err := envtest.EndWithParent(args); err != nil {
		return err
	}
	return programs.KubeAPIServer(args, mode.Behind(), mode.PodCheck(), os.Getenv(envtest.TokenVariable))
}

// etcd does not care what works behind the API server, but it starts first: a mistake is to be found before anything has
// started.
func etcd(args []string) error {
	if _, err := envtest.FromEnvironment(); err != nil {
		return err
	}
	if err := envtest.EndWithParent(args); err != nil {
		return err
	}
	return programs.Etcd(args)
}

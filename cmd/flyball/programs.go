package main

import "flyball.dev/controlplane/programs"

// argv0 is what this program is when it is called by another name. envtest starts the first two with the flags of
// upstream's programs, and kubectl is what people type.
var argv0 = map[string]func(args []string) error{
	"kube-apiserver": programs.KubeAPIServer,
	"etcd":           programs.Etcd,
	"kubectl":        kubectl,
}

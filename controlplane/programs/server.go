package programs

import (
	"fmt"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

// ServerOf returns the Server that another process has started with args. client is an
// administrator's, with a bearer token.
func ServerOf(args []string, client *rest.Config) (Server, error) {
	o := options.NewServerRunOptions()
	flags := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	for _, set := range o.Flags().FlagSets {
		flags.AddFlagSet(set)
	}
	if err := flags.Parse(args); err != nil {
		return Server{}, fmt.Errorf("reading the flags of kube-apiserver: %w", err)
	}
	return Server{Client: client, Options: o}, nil
}

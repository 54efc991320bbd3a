package programs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"time"

	"github.com/spf13/cobra"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/flagz"
	"k8s.io/client-go/rest"
	"k8s.io/component-base/cli"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/cli/globalflag"
	basecompatibility "k8s.io/component-base/compatibility"
	"k8s.io/component-base/featuregate"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/component-base/term"
	"k8s.io/component-base/version/verflag"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"

	"flyball.dev/controlplane"
	_ "flyball.dev/controlplane/version" // it reports its version
)

// closeGrace is how long clients may take to close their connections. Most never do, and all
// requests have ended before.
const closeGrace = 20 * time.Millisecond

// Server is a kube-apiserver that is ready.
type Server struct {
	// Client is the server's own administrator.
	Client *rest.Config
	// Options are the flags that the server was started with.
	Options *options.ServerRunOptions
}

// ServerOf returns the Server that another process has started with args. client is an
// administrator's, with a bearer token.
func ServerOf(args []string, client *rest.Config) (Server, error) {
	o, err := controlplane.ParseAPIServer(args)
	return Server{Client: client, Options: o}, err
}

// Behind runs loops behind a kube-apiserver, in the same process, until ctx ends. It calls up once
// all of them are up; until then the server is not healthy. If it fails, the server ends.
type Behind func(ctx context.Context, server Server, up func()) error

// KubeAPIServer is the command kube-apiserver with these arguments. It ends at SIGTERM. behind and
// check are optional. Clients with the token take checkpoints of the cluster and restore them
// (CheckpointPath); without a token nobody can.
func KubeAPIServer(args []string, behind Behind, check PodCheck, token string) error {
	cmd := newAPIServerCommand(genericapiserver.SetupSignalContext(), behind, check, token)
	cmd.SetArgs(args)
	return cli.RunNoErrOutput(cmd)
}

// newAPIServerCommand has upstream's flags and help: envtest reads the help to decide which flags
// it passes.
func newAPIServerCommand(ctx context.Context, behind Behind, check PodCheck, token string) *cobra.Command {
	o := options.NewServerRunOptions()
	if check != nil {
		check.register(o)
	}
	cmd := &cobra.Command{
		Use:          "kube-apiserver",
		Long:         "Upstream's Kubernetes API server, for test suites.",
		SilenceUsage: true,
		Args:         cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			verflag.PrintAndExitIfRequested()
			return runAPIServer(cmd, o, behind, token)
		},
	}
	cmd.SetContext(ctx)
	sets := o.Flags()
	o.Flagz = flagz.NamedFlagSetsReader{FlagSets: sets}
	verflag.AddFlags(sets.FlagSet("global"))
	globalflag.AddGlobalFlags(sets.FlagSet("global"), cmd.Name(), logs.SkipLoggingConfigurationFlags())
	for _, set := range sets.FlagSets {
		cmd.Flags().AddFlagSet(set)
	}
	columns, _, _ := term.TerminalSize(cmd.OutOrStdout())
	cliflag.SetUsageAndHelpFunc(cmd, sets, columns)
	return cmd
}

func runAPIServer(cmd *cobra.Command, o *options.ServerRunOptions, behind Behind, token string) error {
	registry := o.GenericServerRunOptions.ComponentGlobalsRegistry
	if err := registry.Set(); err != nil {
		return fmt.Errorf("setting feature gates: %w", err)
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	gate := registry.FeatureGateFor(basecompatibility.DefaultKubeComponent)
	if err := logsapi.ValidateAndApply(o.Logs, gate); err != nil {
		return fmt.Errorf("configuring the log: %w", err)
	}
	cliflag.PrintFlags(cmd.Flags())
	if gate, ok := gate.(featuregate.MutableFeatureGate); ok {
		gate.AddMetrics()
	}
	registry.AddMetrics()

	ctx, fail := context.WithCancelCause(cmd.Context())
	defer fail(nil)
	context.AfterFunc(ctx, func() {
		time.Sleep(stopGrace)
		klog.Flush()
		if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
			fmt.Fprintln(os.Stderr, "Error:", cause)
			os.Exit(1)
		}
		os.Exit(0) // it was asked to end
	})
	health := &health{
		settle: delayGC(), stopped: ctx.Done(), loopback: make(chan *rest.Config, 1), opened: make(chan struct{}),
	}
	behindEnded := make(chan struct{})
	go func() {
		defer close(behindEnded)
		if err := health.open(ctx, o, behind); err != nil {
			fail(err)
		}
	}()
	checkpoints := &checkpoints{token: token, storage: o.Etcd.StorageConfig}
	wrap := func(loopback *rest.Config, handler http.Handler) http.Handler {
		return checkpoints.wrap(health.wrap(loopback, handler))
	}
	err := controlplane.APIServer{Options: o, CloseGrace: closeGrace, Wrap: wrap}.Run(ctx)
	fail(err)
	<-behindEnded // it has removed its temporary files then
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// startHeap is how large the heap may grow before the first garbage collections. A start allocates
// objects that live until the process ends, and scanning them again and again takes a third of the
// time.
const startHeap = 150 << 20

// delayGC delays garbage collection until the returned function is called: Go collects when the
// heap has doubled, and counts memory that is allocated and never touched.
func delayGC() (settle func()) {
	ballast := make([]byte, startHeap)
	return func() { runtime.KeepAlive(ballast) }
}

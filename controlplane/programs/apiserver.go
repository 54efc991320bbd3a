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
	_ "flyball.dev/controlplane/version" // it reports the version that it is
)

// closeGrace is how long clients may take to close their connections. Most do not, and requests have ended before.
const closeGrace = 20 * time.Millisecond

// Server is a kube-apiserver that answers.
type Server struct {
	// Client is the server's own, which may do everything. It is reached at the address that the server listens at.
	Client *rest.Config
	// Options are those that the server was started with.
	Options *options.ServerRunOptions
}

// Behind works behind a kube-apiserver, in the same process, and returns when ctx ends. It calls up once when all of it
// works; until then nobody is told that the server is healthy. If it fails, the server ends.
type Behind func(ctx context.Context, server Server, up func()) error

// KubeAPIServer is the command kube-apiserver: args are what follows its name. It ends at SIGTERM. behind and check are
// optional. Whoever has the token takes checkpoints of the cluster and restores them (CheckpointPath); nobody does if it is
// empty.
func KubeAPIServer(args []string, behind Behind, check PodCheck, token string) error {
	cmd := newAPIServerCommand(genericapiserver.SetupSignalContext(), behind, check, token)
	cmd.SetArgs(args)
	return cli.RunNoErrOutput(cmd)
}

// newAPIServerCommand has upstream's flags and help: envtest decides by the help which flags it passes.
func newAPIServerCommand(ctx context.Context, behind Behind, check PodCheck, token string) *cobra.Command {
	o := options.NewServerRunOptions()
	if check != nil {
		check.register(o)
	}
	cmd := &cobra.Command{
		Use:          "kube-apiserver",
		Long:         "The Kubernetes API server, upstream's, as it is started by test suites.",
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
		time.Sleep(stopPatience)
		klog.Flush()
		os.Exit(exitCode(context.Cause(ctx)))
	})
	health := newHealth(ctx, hurry())
	behindEnded := make(chan struct{})
	go func() {
		defer close(behindEnded)
		if err := health.open(ctx, o, behind); err != nil {
			fail(err)
		}
	}()
	control := &control{token: token, storage: o.Etcd.StorageConfig}
	wrap := func(loopback *rest.Config, handler http.Handler) http.Handler {
		return control.wrap(health.wrap(loopback, handler))
	}
	err := controlplane.APIServer{Options: o, CloseGrace: closeGrace, Wrap: wrap}.Run(ctx)
	fail(err)
	<-behindEnded // it removes its temporary files
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// exitCode is that of a process that was asked to end, or that ended because something failed.
func exitCode(cause error) int {
	if errors.Is(cause, context.Canceled) {
		return 0
	}
	fmt.Fprintln(os.Stderr, "Error:", cause)
	return 1
}

// startHeap is how much garbage may lie about while the server starts. Nearly all of what a start allocates lives until its
// end, and to look through it again and again takes a third of the time.
const startHeap = 150 << 20

// hurry lets garbage grow until the returned function is called: Go collects it when the heap has doubled, and counts memory
// that is allocated and never touched.
func hurry() (settle func()) {
	ballast := make([]byte, startHeap)
	return func() { runtime.KeepAlive(ballast) }
}

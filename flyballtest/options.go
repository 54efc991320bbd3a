package flyballtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// maxNodes is how many simulated nodes work on a host with two cores and 8 GB.
	maxNodes = 1000
	// defaultStartTimeout is long: many tests start at once on hosts with few cores.
	defaultStartTimeout = 2 * time.Minute
)

// Option configures a cluster.
type Option func(*options)

type options struct {
	controllers  bool
	nodes        int
	program      string
	crds         []source
	manifests    []source
	webhooks     []source
	conversions  map[string]bool
	flags        []string
	logDir       string
	verbosity    int
	startTimeout time.Duration
}

// source is a path or a file system with manifests.
type source struct {
	path string
	fsys fs.FS
}

func (s source) open() (fs.FS, string, error) {
	if s.fsys != nil {
		return s.fsys, ".", nil
	}
	info, err := os.Stat(s.path)
	if err != nil {
		return nil, "", fmt.Errorf("finding manifests: %w", err)
	}
	if info.IsDir() {
		return os.DirFS(s.path), ".", nil
	}
	return os.DirFS(filepath.Dir(s.path)), filepath.Base(s.path), nil
}

// displayName returns what errors call a file of the source.
func (s source) displayName(file string) string {
	switch {
	case s.fsys != nil:
		return file
	case filepath.Base(s.path) == file:
		if info, err := os.Stat(s.path); err == nil && !info.IsDir() {
			return s.path
		}
	}
	return filepath.Join(s.path, filepath.FromSlash(file))
}

func paths(list []string) []source {
	sources := make([]source, 0, len(list))
	for _, path := range list {
		sources = append(sources, source{path: path})
	}
	return sources
}

// WithNodes adds n simulated nodes, from 1 to 1000, named simulated-0, simulated-1 and so on. Start
// waits for at most a hundred of them. Without nodes, Pods stay Pending.
func WithNodes(n int) Option { return func(o *options) { o.nodes = n } }

// WithoutControllers omits controllers and scheduler: only the test acts on objects.
func WithoutControllers() Option { return func(o *options) { o.controllers = false } }

// WithCRDs installs the CustomResourceDefinitions in files, or in all files below directories, that
// end in .yaml, .yml or .json. Start returns when the API server serves them. It ignores other
// objects in these files, and kustomizations.
func WithCRDs(files ...string) Option {
	return func(o *options) { o.crds = append(o.crds, paths(files)...) }
}

// WithManifests applies all objects in files, or in all files below directories, that end in .yaml,
// .yml or .json, except for kustomizations: CRDs and namespaces first, admission webhooks
// and policies last, the others in their order.
func WithManifests(files ...string) Option {
	return func(o *options) { o.manifests = append(o.manifests, paths(files)...) }
}

// WithManifestsFS is WithManifests for a file system, such as an embed.FS.
func WithManifestsFS(fsys fs.FS) Option {
	return func(o *options) { o.manifests = append(o.manifests, source{fsys: fsys}) }
}

// WithWebhooks installs the webhook configurations in files or directories, as WithManifests does.
// The API server calls each webhook that has a Service at the address that Webhooks returns, with
// the path of the Service. Other objects in these files are ignored.
//
// The test serves there, with the certificate that Webhooks returns. Until it does, requests that
// need a webhook fail, unless its failurePolicy is Ignore.
func WithWebhooks(files ...string) Option {
	return func(o *options) { o.webhooks = append(o.webhooks, paths(files)...) }
}

// WithConversion lets the API server convert the objects of the named CRDs, such as
// widgets.example.com, with the webhook at the path /convert of the address that Webhooks returns.
// CRDs with a conversion webhook need not be named, if there is any WithWebhooks or
// WithConversion.
func WithConversion(crds ...string) Option {
	return func(o *options) {
		if o.conversions == nil {
			o.conversions = map[string]bool{}
		}
		for _, name := range crds {
			o.conversions[name] = true
		}
	}
}

// WithAPIServerFlags adds flags to those of kube-apiserver, for example
// --feature-gates=MutatingAdmissionPolicy=true. Flags for certificates, ports and etcd are not
// allowed.
func WithAPIServerFlags(flags ...string) Option {
	return func(o *options) { o.flags = append(o.flags, flags...) }
}

// WithProgram sets the path of the program flyball.
func WithProgram(path string) Option { return func(o *options) { o.program = path } }

// WithLogDir writes the logs into files in this directory, which is created if needed, even if the
// test succeeds. Each cluster needs a directory of its own.
func WithLogDir(dir string) Option { return func(o *options) { o.logDir = dir } }

// WithVerbosity sets the level of detail of the logs, from 0, the default, to 10.
func WithVerbosity(level int) Option { return func(o *options) { o.verbosity = level } }

// WithStartTimeout sets how long a start may take, without building the program; 2 minutes by
// default.
func WithStartTimeout(d time.Duration) Option { return func(o *options) { o.startTimeout = d } }

func collect(opts []Option) (*options, error) {
	o := &options{controllers: true, startTimeout: defaultStartTimeout}
	for _, option := range opts {
		option(o)
	}
	var errs []error
	if o.nodes < 0 || o.nodes > maxNodes {
		errs = append(errs, fmt.Errorf("%d nodes are out of range: from 0 to %d", o.nodes, maxNodes))
	}
	if o.nodes > 0 && !o.controllers {
		errs = append(errs, errors.New("nodes need controllers: leave out WithNodes or WithoutControllers"))
	}
	if o.verbosity < 0 || o.verbosity > 10 {
		errs = append(errs, fmt.Errorf("the verbosity %d is out of range: from 0 to 10", o.verbosity))
	}
	if o.startTimeout <= 0 {
		errs = append(errs, fmt.Errorf("the start timeout %s is not positive", o.startTimeout))
	}
	for _, flag := range o.flags {
		if name, ours := owned(flag); ours {
			errs = append(errs, fmt.Errorf("the package sets the flag %s itself", name))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("reading the options of the cluster: %w", err)
	}
	return o, nil
}

// ownFlags are flags that callers must not set.
var ownFlags = []string{
	"etcd-servers", "etcd-prefix", "secure-port", "bind-address", "cert-dir", "tls-cert-file", "tls-private-key-file", "client-ca-file",
	"token-auth-file",
}

func owned(flag string) (string, bool) {
	name, _, _ := strings.Cut(strings.TrimLeft(flag, "-"), "=")
	return "--" + name, slices.Contains(ownFlags, name)
}

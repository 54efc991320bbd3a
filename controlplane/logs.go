package controlplane

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	_ "unsafe" // for go:linkname

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"k8s.io/klog/v2"

	"flyball.dev/controlplane/space"
)

// LogTo sends the log of upstream's components to w instead of standard error, at the given
// verbosity. They log through klog, the process's one global logger, hundreds of lines at verbosity
// 0, including errors that are normal while a cluster starts. A terminal needs none of them, and
// debugging needs all. Only the message of a fatal error, after which klog ends the process, goes
// to standard error too. Call it once, before Run.
func LogTo(w io.Writer, verbosity int) error {
	flags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(flags)
	for name, value := range map[string]string{
		"logtostderr": "false", "alsologtostderr": "false", "stderrthreshold": "FATAL",
		"one_output": "true", "v": strconv.Itoa(verbosity),
	} {
		if err := flags.Set(name, value); err != nil {
			return fmt.Errorf("configuring klog: %w", err)
		}
	}
	klog.SetOutput(w)
	etcdClientLogger = zap.New(klogCore{})
	return nil
}

// etcdClientLogger is kube-apiserver's, which writes to standard error and cannot be configured
// otherwise.
//
//go:linkname etcdClientLogger k8s.io/apiserver/pkg/storage/storagebackend/factory.etcd3ClientLogger
var etcdClientLogger *zap.Logger

// klogCore is a zap core that writes etcd's log to klog, so that there is one log and one
// verbosity. etcd's "info" corresponds to verbosity 2.
type klogCore struct{ fields []zapcore.Field }

func (c klogCore) Enabled(l zapcore.Level) bool {
	switch {
	case l >= zapcore.WarnLevel:
		return true
	case l == zapcore.InfoLevel:
		return klog.V(2).Enabled()
	}
	return klog.V(6).Enabled()
}

func (c klogCore) With(fields []zapcore.Field) zapcore.Core {
	return klogCore{fields: append(slices.Clip(c.fields), fields...)}
}

func (c klogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c klogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	var b strings.Builder
	for k, v := range values(append(slices.Clip(c.fields), fields...)) {
		fmt.Fprintf(&b, " %s=%v", k, v)
	}
	switch {
	case e.Level >= zapcore.ErrorLevel:
		klog.ErrorDepth(4, "etcd: ", e.Message, b.String())
	case e.Level == zapcore.WarnLevel:
		klog.WarningDepth(4, "etcd: ", e.Message, b.String())
	default:
		klog.InfoDepth(4, "etcd: ", e.Message, b.String())
	}
	return nil
}

func (c klogCore) Sync() error { return nil }

func values(fields []zapcore.Field) map[string]any {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	return enc.Fields
}

// fatalHook runs after etcd has logged a fatal error, where zap would end the process. etcd's locks
// stay locked then, so this process cannot use its data again.
type fatalHook struct {
	// outOfSpace is called if no space is left. It does not return. Optional.
	outOfSpace func(error)
}

// OnWrite calls outOfSpace, or panics, which startEtcd turns into an error.
func (h fatalHook) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok && space.IsNoSpace(err) && h.outOfSpace != nil {
			h.outOfSpace(fmt.Errorf("running etcd: %s: %w", e.Message, err))
		}
	}
	panic(fmt.Sprint(e.Message, " ", values(fields)))
}

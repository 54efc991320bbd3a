package probes

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/samber/lo"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
	"k8s.io/kubernetes/pkg/probe"
	grpcprobe "k8s.io/kubernetes/pkg/probe/grpc"
	httpprobe "k8s.io/kubernetes/pkg/probe/http"
	tcpprobe "k8s.io/kubernetes/pkg/probe/tcp"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/cri"
)

const (
	// reasonUnhealthy and reasonWarning are upstream's Event reasons.
	reasonUnhealthy = "Unhealthy"
	reasonWarning   = "ProbeWarning"

	// attempts is how often an attempt that could not be made is repeated before it counts as
	// probe.Unknown, for example because the runtime did not answer.
	attempts = 3
	// execSlack is the time that a runtime has beyond a command's timeout, which it enforces
	// itself: to begin, to kill, and to collect the output.
	execSlack = 10 * time.Second
	// maxOutput is how much of a command's output is kept for the Event.
	maxOutput = 10 << 10
)

// answer is the outcome of one attempt.
type answer struct {
	result  probe.Result
	message string
	err     error // the attempt could not be made, and the result is probe.Unknown
}

// verdict is the outcome for the rules, which know no warnings.
func (a answer) verdict() probe.Result {
	return lo.Ternary(a.result == probe.Warning, probe.Success, a.result)
}

// prober makes attempts. It has no state of its own.
type prober struct {
	runtime Runtime
	instead Asker
	http    httpprobe.Prober
	tcp     tcpprobe.Prober
	grpc    grpcprobe.Prober
}

func newProber(cfg Config) prober {
	const followNonLocalRedirects = false
	return prober{cfg.Runtime, cfg.Asker, httpprobe.New(followNonLocalRedirects), tcpprobe.New(), grpcprobe.New()}
}

// probe makes one attempt, and repeats it if it could not be made.
func (a prober) probe(ctx context.Context, pod *v1.Pod, t Target, kind Kind, p *v1.Probe) (got answer) {
	c := probeable(pod, t.Container)
	if c == nil {
		return answer{result: probe.Unknown}
	}
	if a.instead != nil {
		ok, message, err := a.instead.Ask(ctx, pod, t, kind, p)
		got = answer{lo.Ternary(ok, probe.Success, probe.Failure), message, err}
	} else {
		for range attempts {
			got.result, got.message, got.err = a.once(ctx, c, t, p)
			if got.err == nil || ctx.Err() != nil {
				break
			}
		}
	}
	if got.err != nil {
		return answer{result: probe.Unknown, err: got.err}
	}
	return got
}

func (a prober) once(ctx context.Context, c *v1.Container, t Target, p *v1.Probe) (probe.Result, string, error) {
	timeout := time.Duration(cmp.Or(p.TimeoutSeconds, 1)) * time.Second
	switch {
	case p.Exec != nil:
		return a.exec(ctx, c, t, p.Exec.Command, timeout)
	case p.HTTPGet != nil:
		req, err := httpprobe.NewRequestForHTTPGetAction(p.HTTPGet, c, t.PodIP, "probe")
		if err != nil {
			return probe.Unknown, "", err
		}
		if ptr.Deref(p.HTTPGet.Protocol, "") == v1.HTTPProtocolHTTP2 {
			return a.http.ProbeH2C(req.WithContext(ctx), timeout)
		}
		return a.http.Probe(req.WithContext(ctx), timeout)
	case p.TCPSocket != nil:
		port, err := probe.ResolveContainerPort(p.TCPSocket.Port, c)
		if err != nil {
			return probe.Unknown, "", err
		}
		return a.tcp.Probe(cmp.Or(p.TCPSocket.Host, t.PodIP), port, timeout)
	case p.GRPC != nil:
		options := grpcprobe.ProbeOptions{UseTLS: ptr.Deref(p.GRPC.Mode, "") == v1.GRPCProbeModeTLS}
		return a.grpc.Probe(t.PodIP, ptr.Deref(p.GRPC.Service, ""), int(p.GRPC.Port), timeout, options)
	}
	return probe.Unknown, "", fmt.Errorf("probing container %q: its probe has no handler", c.Name)
}

// exec runs a command in the container. Upstream's exec prober needs an exec.Cmd around one CRI
// call, which is longer than this. As upstream, variables with valueFrom are empty.
func (a prober) exec(
	ctx context.Context, c *v1.Container, t Target, command []string, timeout time.Duration,
) (probe.Result, string, error) {
	cmd := kubecontainer.ExpandContainerCommandOnlyStatic(command, c.Env)
	ctx, cancel := context.WithTimeout(ctx, timeout+execSlack)
	defer cancel()
	resp, err := a.runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{
		ContainerId: cri.BareID(t.ContainerID), Cmd: cmd, Timeout: int64(timeout / time.Second),
	})
	if status.Code(err) == codes.DeadlineExceeded {
		return probe.Failure, fmt.Sprintf("command timed out: %q timed out after %s", strings.Join(cmd, " "), timeout), nil
	} else if err != nil {
		return probe.Unknown, "", err
	}
	output := slices.Concat(resp.Stdout, resp.Stderr)
	output = output[:min(len(output), maxOutput)]
	return lo.Ternary(resp.ExitCode == 0, probe.Success, probe.Failure), string(output), nil
}

// event is the Event about an attempt, with upstream's texts. quiet suppresses failures.
func event(kind Kind, a answer, quiet bool) (reason, message string, ok bool) {
	switch {
	case a.err != nil:
		return reasonUnhealthy, fmt.Sprintf("%s probe errored and resulted in unknown state: %s", kind, a.err), true
	case a.result == probe.Warning:
		return reasonWarning, fmt.Sprintf("%s probe warning: %s", kind, a.message), true
	case a.result == probe.Failure && !quiet:
		return reasonUnhealthy, fmt.Sprintf("%s probe failed: %s", kind, a.message), true
	}
	return "", "", false
}

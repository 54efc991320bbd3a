package probes

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubernetes/pkg/probe"
	grpcprobe "k8s.io/kubernetes/pkg/probe/grpc"
	httpprobe "k8s.io/kubernetes/pkg/probe/http"
	tcpprobe "k8s.io/kubernetes/pkg/probe/tcp"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
)

const (
	// reasonUnhealthy and reasonWarning are upstream's Event reasons.
	reasonUnhealthy = "Unhealthy"
	reasonWarning   = "ProbeWarning"

	// attempts is how often a probe is tried that could not be carried out at
	// all (a runtime that did not answer, say), before it counts as Unknown.
	attempts = 3
	// execSlack is how long a runtime may take beyond a command's timeout, which it enforces
	// itself: to begin, to kill, and to collect the output.
	execSlack = 10 * time.Second
	// maxOutput is how much of a command's output is kept for the Event.
	maxOutput = 10 << 10
)

// answer is what one attempt came to.
type answer struct {
	outcome Outcome
	message string
	warning bool  // passed, with something to say about it
	err     error // could not be carried out
}

// asker carries a probe out. It has no state of its own.
type asker struct {
	runtime Runtime
	instead Asker
	http    httpprobe.Prober
	tcp     tcpprobe.Prober
	grpc    grpcprobe.Prober
}

func newAsker(cfg Config) asker {
	const followNonLocalRedirects = false
	return asker{cfg.Runtime, cfg.Asker, httpprobe.New(followNonLocalRedirects), tcpprobe.New(), grpcprobe.New()}
}

func (a asker) ask(ctx context.Context, pod *v1.Pod, t Target, kind Kind, p *v1.Probe) answer {
	c := containerNamed(pod, t.Container)
	if c == nil {
		return answer{outcome: Unknown}
	}
	if a.instead != nil {
		return a.asked(ctx, pod, t, kind, p)
	}
	var result probe.Result
	var message string
	var err error
	for range attempts {
		if result, message, err = a.once(ctx, c, t, p); err == nil || ctx.Err() != nil {
			break
		}
	}
	switch {
	case err != nil:
		return answer{outcome: Unknown, err: err}
	case result == probe.Success:
		return answer{outcome: Success, message: message}
	case result == probe.Warning:
		return answer{outcome: Success, message: message, warning: true}
	default:
		return answer{outcome: Failure, message: message}
	}
}

// asked is an attempt that somebody else makes.
func (a asker) asked(ctx context.Context, pod *v1.Pod, t Target, kind Kind, p *v1.Probe) answer {
	ok, message, err := a.instead.Ask(ctx, pod, t, kind, p)
	switch {
	case err != nil:
		return answer{outcome: Unknown, err: err}
	case ok:
		return answer{outcome: Success, message: message}
	default:
		return answer{outcome: Failure, message: message}
	}
}

func (a asker) once(ctx context.Context, c *v1.Container, t Target, p *v1.Probe) (probe.Result, string, error) {
	timeout := time.Duration(orDefault(p.TimeoutSeconds, 1)) * time.Second
	switch {
	case p.Exec != nil:
		return a.exec(ctx, c, t, p.Exec.Command, timeout)
	case p.HTTPGet != nil:
		req, err := httpprobe.NewRequestForHTTPGetAction(p.HTTPGet, c, t.PodIP, "probe")
		if err != nil {
			return probe.Unknown, "", err
		}
		if p.HTTPGet.Protocol != nil && *p.HTTPGet.Protocol == v1.HTTPProtocolHTTP2 {
			return a.http.ProbeH2C(req.WithContext(ctx), timeout)
		}
		return a.http.Probe(req.WithContext(ctx), timeout)
	case p.TCPSocket != nil:
		port, err := probe.ResolveContainerPort(p.TCPSocket.Port, c)
		if err != nil {
			return probe.Unknown, "", err
		}
		host := p.TCPSocket.Host
		if host == "" {
			host = t.PodIP
		}
		return a.tcp.Probe(host, port, timeout)
	case p.GRPC != nil:
		service := ""
		if p.GRPC.Service != nil {
			service = *p.GRPC.Service
		}
		tls := p.GRPC.Mode != nil && *p.GRPC.Mode == v1.GRPCProbeModeTLS
		return a.grpc.Probe(t.PodIP, service, int(p.GRPC.Port), timeout, grpcprobe.ProbeOptions{UseTLS: tls})
	}
	return probe.Unknown, "", fmt.Errorf("finding out what to probe in container %q: its probe has no handler", c.Name)
}

// exec runs a command in the container. Upstream's exec prober wants a whole
// exec.Cmd around one CRI call, so this is ours.
func (a asker) exec(ctx context.Context, c *v1.Container, t Target, command []string, timeout time.Duration) (probe.Result, string, error) {
	cmd := expand(command, c.Env)
	ctx, cancel := context.WithTimeout(ctx, timeout+execSlack)
	defer cancel()
	resp, err := a.runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{
		ContainerId: bare(t.ContainerID), Cmd: cmd, Timeout: int64(timeout / time.Second),
	})
	if status.Code(err) == codes.DeadlineExceeded {
		return probe.Failure, fmt.Sprintf("command timed out: %q timed out after %s", strings.Join(cmd, " "), timeout), nil
	}
	if err != nil {
		return probe.Unknown, "", err
	}
	output := string(append(resp.Stdout, resp.Stderr...))
	if len(output) > maxOutput {
		output = output[:maxOutput]
	}
	if resp.ExitCode != 0 {
		return probe.Failure, output, nil
	}
	return probe.Success, output, nil
}

// expand replaces $(NAME) by the values that stand in the spec. Values that come
// from elsewhere stay unexpanded, as they do upstream: a probe has no access to
// the container's environment.
func expand(command []string, env []v1.EnvVar) []string {
	values := map[string]string{}
	for _, e := range env {
		if e.ValueFrom == nil {
			values[e.Name] = e.Value
		}
	}
	expanded := make([]string, len(command))
	for i, word := range command {
		expanded[i] = expansion.Expand(word, expansion.MappingFuncFor(values))
	}
	return expanded
}

// event is what an attempt has to tell the user, in upstream's words.
func event(kind Kind, a answer, quiet bool) (reason, message string, ok bool) {
	switch {
	case a.err != nil:
		return reasonUnhealthy, fmt.Sprintf("%s probe errored and resulted in unknown state: %s", kind, a.err), true
	case a.warning:
		return reasonWarning, fmt.Sprintf("%s probe warning: %s", kind, a.message), true
	case a.outcome == Failure && !quiet:
		return reasonUnhealthy, fmt.Sprintf("%s probe failed: %s", kind, a.message), true
	}
	return "", "", false
}

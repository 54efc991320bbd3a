package pod

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"flyball.dev/kubelet/cri"
)

// newHookTransport makes the requests of HTTP hooks. As with probes, certificates
// are not verified.
func newHookTransport() *http.Transport {
	return &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
		DisableKeepAlives: true,
	}
}

// runHook runs a lifecycle hook until it ends or ctx does.
func (j job) runHook(ctx context.Context, id string, spec *v1.Container, h *v1.LifecycleHandler) error {
	switch {
	case h == nil:
		return nil
	case h.Exec != nil:
		return j.execHook(ctx, id, spec, h.Exec)
	case h.HTTPGet != nil:
		return j.httpHook(ctx, spec, h.HTTPGet)
	case h.Sleep != nil:
		select {
		case <-ctx.Done():
			return fmt.Errorf("sleeping in a lifecycle hook of container %q: %w", spec.Name, ctx.Err())
		case <-time.After(time.Duration(h.Sleep.Seconds) * time.Second):
			return nil
		}
	}
	return fmt.Errorf("running a lifecycle hook of container %q: it says neither exec, httpGet nor sleep", spec.Name)
}

func (j job) execHook(ctx context.Context, id string, spec *v1.Container, h *v1.ExecAction) error {
	resp, err := j.m.cfg.Containers.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: h.Command})
	if err == nil && resp.ExitCode != 0 {
		err = fmt.Errorf("command '%s' exited with %d", strings.Join(h.Command, " "), resp.ExitCode)
	}
	if err != nil {
		return fmt.Errorf("Exec lifecycle hook (%v) for Container %q in Pod %q failed - error: %s, message: %q", //nolint:staticcheck // the words that users know
			h.Command, spec.Name, j.name(), cri.Message(err), append(resp.GetStdout(), resp.GetStderr()...))
	}
	return nil
}

func (j job) httpHook(ctx context.Context, spec *v1.Container, h *v1.HTTPGetAction) error {
	u, err := j.hookURL(spec, h)
	if err != nil {
		return err
	}
	err = get(ctx, j.m.cfg.HookTransport, u, h.HTTPHeaders)
	if err != nil && u.Scheme == "https" && strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		u.Scheme = "http"
		err = get(ctx, j.m.cfg.HookTransport, u, h.HTTPHeaders)
	}
	if err != nil {
		return fmt.Errorf("HTTP lifecycle hook (%s) for Container %q failed: %w", h.Path, spec.Name, err)
	}
	return nil
}

// get makes the request. The API takes any answer for a success.
func get(ctx context.Context, transport http.RoundTripper, u *url.URL, headers []v1.HTTPHeader) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "kube-lifecycle/")
	req.Header.Set("Accept", "*/*")
	for _, hd := range headers {
		if strings.EqualFold(hd.Name, "Host") {
			req.Host = hd.Value
		}
		req.Header.Add(hd.Name, hd.Value)
	}
	if transport == nil {
		transport = newHookTransport()
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 10<<10))
	return nil
}

func (j job) hookURL(spec *v1.Container, h *v1.HTTPGetAction) (*url.URL, error) {
	host := h.Host
	if ips := j.podIPs(); host == "" && len(ips) > 0 {
		host = ips[0]
	}
	if host == "" {
		return nil, errors.New("calling an HTTP lifecycle hook: the Pod has no address")
	}
	port := h.Port.IntValue()
	if h.Port.Type == intstr.String {
		port = 0
		for _, p := range spec.Ports {
			if p.Name == h.Port.StrVal {
				port = int(p.ContainerPort)
			}
		}
	}
	if port <= 0 || port > 65535 {
		return nil, fmt.Errorf("calling an HTTP lifecycle hook of container %q: it has no port %s", spec.Name, h.Port.String())
	}
	u, err := url.Parse("/" + strings.TrimPrefix(h.Path, "/"))
	if err != nil {
		return nil, fmt.Errorf("calling an HTTP lifecycle hook of container %q: %w", spec.Name, err)
	}
	u.Scheme = "http"
	if h.Scheme != "" {
		u.Scheme = strings.ToLower(string(h.Scheme))
	}
	u.Host = net.JoinHostPort(host, fmt.Sprint(port))
	return u, nil
}

package pod

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	httpprobe "k8s.io/kubernetes/pkg/probe/http"

	"flyball.dev/kubelet/cri/remote"
)

func (j job) runHook(ctx context.Context, id string, spec *v1.Container, h *v1.LifecycleHandler) error {
	switch {
	case h == nil:
		return nil
	case h.Exec != nil:
		return j.execHook(ctx, id, spec, h.Exec)
	case h.HTTPGet != nil:
		if err := j.httpHook(ctx, spec, h.HTTPGet); err != nil {
			return fmt.Errorf("HTTP lifecycle hook (%s) for Container %q in Pod %q failed - error: %w",
				h.HTTPGet.Path, spec.Name, j.name(), err)
		}
		return nil
	case h.Sleep != nil:
		select {
		case <-ctx.Done():
			return fmt.Errorf("sleeping in a lifecycle hook of container %q: %w", spec.Name, ctx.Err())
		case <-time.After(time.Duration(h.Sleep.Seconds) * time.Second):
			return nil
		}
	}
	return fmt.Errorf("running a lifecycle hook of container %q: it has neither exec, httpGet nor sleep", spec.Name)
}

func (j job) execHook(ctx context.Context, id string, spec *v1.Container, h *v1.ExecAction) error {
	resp, err := j.m.cfg.CRI.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: h.Command})
	if err == nil && resp.ExitCode != 0 {
		err = fmt.Errorf("command '%s' exited with %d", strings.Join(h.Command, " "), resp.ExitCode)
	}
	if err != nil {
		return fmt.Errorf("Exec lifecycle hook (%v) for Container %q in Pod %q failed - error: %s, message: %q", //nolint:staticcheck // upstream's message
			h.Command, spec.Name, j.name(), remote.Message(err), append(resp.GetStdout(), resp.GetStderr()...))
	}
	return nil
}

// httpHook makes the request. Any response counts as a success, as the API says.
func (j job) httpHook(ctx context.Context, spec *v1.Container, h *v1.HTTPGetAction) error {
	address := ""
	if ips := j.podIPs; len(ips) > 0 {
		address = ips[0]
	} else if h.Host == "" {
		return errors.New("calling it: the Pod has no address")
	}
	req, err := httpprobe.NewRequestForHTTPGetAction(h, spec, address, "lifecycle")
	if err != nil {
		return err
	}
	client := &http.Client{Transport: j.m.cfg.HookTransport, CheckRedirect: httpprobe.RedirectChecker(false)}
	if client.Transport == nil { // as with probes, certificates are not verified
		client.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // see above
	}
	defer client.CloseIdleConnections()
	err = get(client, req.WithContext(ctx))
	if !errors.Is(err, http.ErrSchemeMismatch) {
		return err
	}
	// The kubelet once called all hooks by HTTP, so some say HTTPS without speaking it.
	plain := req.Clone(ctx)
	plain.URL.Scheme = "http"
	plain.Header.Del("Authorization")
	if httpErr := get(client, plain); httpErr != nil {
		return err
	}
	j.m.event(j.pod, "", v1.EventTypeWarning, reasonHTTPFallback,
		fmt.Sprintf("request to HTTPS lifecycle hook %s got HTTP response, retry with HTTP succeeded", req.URL.Host))
	return nil
}

func get(client *http.Client, req *http.Request) error {
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 10<<10))
	return nil
}

package server

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/proxy"
	translator "k8s.io/apiserver/pkg/util/proxy"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"flyball.dev/kubelet/cri"
)

// serveExec is kubectl exec and cp.
func (s *Server) serveExec(w http.ResponseWriter, r *http.Request) {
	_, id, options, ok := s.streamRequest(w, r)
	if !ok {
		return
	}
	resp, err := s.cfg.Runtime.Exec(r.Context(), &runtimeapi.ExecRequest{
		ContainerId: id, Cmd: r.URL.Query()["command"],
		Stdin: options.Stdin, Stdout: options.Stdout, Stderr: options.Stderr, Tty: options.TTY,
	})
	connect(w, r, resp.GetUrl(), err, options)
}

// serveAttach is kubectl attach and run -it.
func (s *Server) serveAttach(w http.ResponseWriter, r *http.Request) {
	pod, id, options, ok := s.streamRequest(w, r)
	if !ok {
		return
	}
	// The container has a terminal or not since it started.
	if c, _ := cri.FindContainer(pod, r.PathValue("container")); c != nil {
		options.TTY = c.TTY
	}
	resp, err := s.cfg.Runtime.Attach(r.Context(), &runtimeapi.AttachRequest{
		ContainerId: id,
		Stdin:       options.Stdin, Stdout: options.Stdout, Stderr: options.Stderr && !options.TTY, Tty: options.TTY,
	})
	connect(w, r, resp.GetUrl(), err, options)
}

// servePortForward is kubectl port-forward.
func (s *Server) servePortForward(w http.ResponseWriter, r *http.Request) {
	pod, ok := s.podOf(w, r)
	if !ok {
		return
	}
	options := &portforward.V4Options{}
	if !wsstream.IsWebSocketRequestWithTunnelingProtocol(r) { // a tunnel names the ports inside SPDY
		var err error
		if options, err = portforward.NewV4Options(r); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	id, err := s.readySandbox(r.Context(), pod)
	if err != nil {
		_ = streaming.WriteError(err, w)
		return
	}
	in := &runtimeapi.PortForwardRequest{PodSandboxId: id, Port: options.Ports}
	resp, err := s.cfg.Runtime.PortForward(r.Context(), in)
	connect(w, r, resp.GetUrl(), err, nil)
}

// serveRun runs a command until it ends and answers with its output.
func (s *Server) serveRun(w http.ResponseWriter, r *http.Request) {
	pod, ok := s.podOf(w, r)
	if !ok {
		return
	}
	id, err := s.runningContainer(r.Context(), pod, r.PathValue("container"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	cmd := strings.Split(r.URL.Query().Get("cmd"), " ")
	resp, err := s.cfg.Runtime.ExecSync(r.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: cmd})
	if err == nil && resp.ExitCode != 0 {
		err = fmt.Errorf("command exited with %d: %s%s", resp.ExitCode, resp.Stdout, resp.Stderr)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json") // whatever the output is: clients expect it
	_, _ = w.Write(append(resp.Stdout, resp.Stderr...))
}

// streamRequest reads the Pod, the ID of the container and the options of exec and attach.
func (s *Server) streamRequest(
	w http.ResponseWriter, r *http.Request,
) (pod *v1.Pod, id string, options *remotecommand.Options, ok bool) {
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return nil, "", nil, false
	}
	if pod, ok = s.podOf(w, r); !ok {
		return nil, "", nil, false
	}
	if id, err = s.runningContainer(r.Context(), pod, r.PathValue("container")); err != nil {
		_ = streaming.WriteError(err, w)
	}
	return pod, id, options, err == nil
}

func (s *Server) podOf(w http.ResponseWriter, r *http.Request) (*v1.Pod, bool) {
	pod, ok := s.cfg.Pods.Pod(r.PathValue("namespace"), r.PathValue("pod"))
	if !ok {
		http.Error(w, "pod does not exist", http.StatusNotFound)
		return nil, false
	}
	if uid := r.PathValue("uid"); uid != "" && uid != string(pod.UID) {
		http.Error(w, "pod not found", http.StatusNotFound)
		return nil, false
	}
	return pod, true
}

// runningContainer asks the runtime for the ID: a Pod's status may lag behind.
func (s *Server) runningContainer(ctx context.Context, pod *v1.Pod, name string) (string, error) {
	list, err := s.cfg.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{
		State:         &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING},
		LabelSelector: map[string]string{cri.LabelPodUID: string(pod.UID), cri.LabelContainerName: name},
	}})
	if err != nil {
		return "", fmt.Errorf("finding container %q in the runtime: %w", name, err)
	}
	if len(list.Containers) == 0 {
		return "", fmt.Errorf("container not found (%q)", name)
	}
	return list.Containers[0].Id, nil
}

func (s *Server) readySandbox(ctx context.Context, pod *v1.Pod) (string, error) {
	list, err := s.cfg.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{
		State:         &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY},
		LabelSelector: map[string]string{cri.LabelPodUID: string(pod.UID)},
	}})
	if err != nil {
		return "", fmt.Errorf("finding the sandbox of pod %q in the runtime: %w", pod.Name, err)
	}
	if len(list.Items) == 0 {
		return "", fmt.Errorf("pod not found (%q)", pod.Name+"_"+pod.Namespace)
	}
	return list.Items[0].Id, nil
}

// connect connects the caller with the runtime's streaming server, at the address of this stream.
// The options are those of exec and attach, nil for port-forward. Runtimes do not have kubectl's
// newest protocols, on WebSockets: streams are translated to SPDY, and a tunnel has SPDY inside.
func connect(w http.ResponseWriter, r *http.Request, at string, err error, o *remotecommand.Options) {
	target, parseErr := url.Parse(at)
	if err = cmp.Or(err, parseErr); err != nil {
		_ = streaming.WriteError(err, w)
		return
	}
	const wrapTransport, upgradeRequired = false, true
	var h http.Handler = proxy.NewUpgradeAwareHandler(target, nil, wrapTransport, upgradeRequired, responder{})
	switch {
	case o == nil && wsstream.IsWebSocketRequestWithTunnelingProtocol(r):
		h = translator.NewTunnelingHandler(h)
	case o != nil && wsstream.IsWebSocketRequestWithStreamCloseProtocol(r):
		h = translator.NewStreamTranslatorHandler(target, nil, 0, translator.Options{
			Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Tty: o.TTY,
		})
	}
	h.ServeHTTP(w, r)
}

type responder struct{}

func (responder) Error(w http.ResponseWriter, r *http.Request, err error) {
	klog.FromContext(r.Context()).V(2).Info("A stream to the container runtime failed", "path", r.URL.Path, "err", err)
	http.Error(w, err.Error(), http.StatusInternalServerError)
}

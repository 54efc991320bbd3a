package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/util/flushwriter"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-client/pkg/logs"
	corev1 "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/v1/validation"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/cri"
)

// serveContainerLogs is kubectl logs.
func (s *Server) serveContainerLogs(w http.ResponseWriter, r *http.Request) {
	options, code, err := logOptions(r)
	if err != nil {
		http.Error(w, err.Error(), code)
		return
	}
	name, container := r.PathValue("pod"), r.PathValue("container")
	pod, ok := s.cfg.Pods.Pod(r.PathValue("namespace"), name)
	if !ok {
		http.Error(w, fmt.Sprintf("pod %q does not exist", name), http.StatusNotFound)
		return
	}
	if c, _ := cri.FindContainer(pod, container); c == nil {
		http.Error(w, fmt.Sprintf("container %q not found in pod %q", container, name), http.StatusNotFound)
		return
	}
	id, err := containerToRead(pod, container, options.Previous)
	path := ""
	if err == nil {
		path, err = s.logPath(r.Context(), id)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	// The answer is 200 from here on. It begins now, so that a client that follows a silent
	// container knows that it is connected.
	out := flushwriter.Wrap(w)
	_, _ = out.Write(nil)
	if err := s.copyLogs(r.Context(), path, id, options, out); err != nil && r.Context().Err() == nil {
		_, _ = fmt.Fprintln(out, err)
	}
}

// logOptions reads the query as the API's PodLogOptions.
func logOptions(r *http.Request) (*v1.PodLogOptions, int, error) {
	query, options := r.URL.Query(), &v1.PodLogOptions{}
	if err := corev1.Convert_url_Values_To_v1_PodLogOptions(&query, options, nil); err != nil {
		return nil, http.StatusBadRequest, errors.New(`{"message": "Unable to decode query."}`)
	}
	if errs := validation.ValidatePodLogOptions(options); len(errs) > 0 {
		return nil, http.StatusUnprocessableEntity, errors.New(`{"message": "Invalid request."}`)
	}
	return options, 0, nil
}

// containerToRead returns the ID of the container instance whose log is requested, from the Pod's
// status. Its errors are upstream's: kubectl logs shows them.
func containerToRead(pod *v1.Pod, container string, previous bool) (string, error) {
	status := cri.FindStatus(pod, container)
	if status == nil {
		return "", fmt.Errorf("container %q in pod %q is not available", container, pod.Name)
	}
	last, state := status.LastTerminationState.Terminated, status.State
	id := ptr.Deref(last, v1.ContainerStateTerminated{}).ContainerID
	switch {
	case previous && id == "":
		return "", fmt.Errorf("previous terminated container %q in pod %q not found", container, pod.Name)
	case previous:
		return id, nil
	case state.Running != nil:
		return status.ContainerID, nil
	case state.Terminated != nil && state.Terminated.ContainerID != "":
		return state.Terminated.ContainerID, nil
	case state.Terminated != nil || last != nil:
		// The next instance did not start: show the one before.
		if id == "" {
			return "", fmt.Errorf("container %q in pod %q is terminated", container, pod.Name)
		}
		return id, nil
	case state.Waiting != nil:
		why := lo.ValueOr(map[string]string{
			"ErrImagePull": "image can't be pulled", "ImagePullBackOff": "trying and failing to pull image",
		}, state.Waiting.Reason, state.Waiting.Reason)
		return "", fmt.Errorf("container %q in pod %q is waiting to start: %s", container, pod.Name, why)
	}
	return "", fmt.Errorf("container %q in pod %q is waiting to start - no logs yet", container, pod.Name)
}

func (s *Server) logPath(ctx context.Context, id string) (string, error) {
	resp, err := s.cfg.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: cri.BareID(id)})
	if err != nil || resp.GetStatus().GetLogPath() == "" {
		return "", fmt.Errorf("unable to retrieve container logs for %s", id)
	}
	return resp.Status.LogPath, nil
}

// copyLogs writes the requested part of a log. The library finds its beginning, parses it, follows
// it and notices rotation.
func (s *Server) copyLogs(ctx context.Context, path, id string, o *v1.PodLogOptions, out io.Writer) error {
	wanted := &logs.LogOptions{
		TailLines: o.TailLines, LimitBytes: o.LimitBytes, Follow: o.Follow, Timestamp: o.Timestamps,
	}
	if o.SinceSeconds != nil {
		wanted.Since = time.Now().Add(-time.Duration(*o.SinceSeconds) * time.Second)
	} else if o.SinceTime != nil {
		wanted.Since = o.SinceTime.Time
	}
	stream := ptr.Deref(o.Stream, v1.LogStreamAll)
	stdout := lo.Ternary(stream == v1.LogStreamStderr, nil, out)
	stderr := lo.Ternary(stream == v1.LogStreamStdout, nil, out)
	return logs.ReadLogs(ctx, path, cri.BareID(id), wanted, statusOnly{runtime: s.cfg.Runtime}, stdout, stderr)
}

// statusOnly is the one method of the runtime that the library calls: while it follows a log, it
// asks whether the container still runs.
type statusOnly struct {
	internalapi.RuntimeService
	runtime runtimeapi.RuntimeServiceClient
}

func (s statusOnly) ContainerStatus(
	ctx context.Context, id string, verbose bool,
) (*runtimeapi.ContainerStatusResponse, error) {
	return s.runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id, Verbose: verbose})
}

// serveHostLogs serves the host's log directory. os.Root refuses links that lead out of it, which a
// Pod may have made through a hostPath volume.
func (s *Server) serveHostLogs(w http.ResponseWriter, r *http.Request) {
	root, err := os.OpenRoot(s.cfg.HostLogDir)
	if err != nil {
		http.Error(w, "opening the host's logs: "+err.Error(), http.StatusNotFound)
		return
	}
	defer func() { _ = root.Close() }()
	http.StripPrefix("/logs", http.FileServerFS(root.FS())).ServeHTTP(w, r)
}

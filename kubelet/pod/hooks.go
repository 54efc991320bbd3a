package pod

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
	"k8s.io/kubernetes/pkg/kubelet/lifecycle"
	httpprobe "k8s.io/kubernetes/pkg/probe/http"

	"flyball.dev/kubelet/cri/remote"
)

// hook is what upstream's runner of hooks needs.
type hook struct {
	job

	ctx    context.Context
	client *http.Client
}

func (j job) runHook(ctx context.Context, id string, spec *v1.Container, h *v1.LifecycleHandler) error {
	if h == nil {
		return nil
	}
	client := &http.Client{Transport: j.m.cfg.HookTransport, CheckRedirect: httpprobe.RedirectChecker(false)}
	if client.Transport == nil { // as with probes, certificates are not verified
		client.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // see above
	}
	defer client.CloseIdleConnections()
	// The runner would log the output, which may have secrets.
	ctx = klog.NewContext(ctx, logr.Discard())
	pod, recorder := j.pod, j.m.cfg.Recorder
	if pod == nil { // an orphan has no object to record at
		pod, recorder = &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: j.uid}}, nil
	}
	run := hook{j, ctx, client}
	runner := lifecycle.NewHandlerRunner(run, run, run, recorder)
	if message, err := runner.Run(ctx, kubecontainer.ContainerID{ID: id}, pod, spec, h); err != nil {
		return errors.New(message)
	}
	return nil
}

// Do implements HTTPDoer. Any response counts as a success, as the API says.
func (h hook) Do(r *http.Request) (*http.Response, error) {
	return h.client.Do(r.WithContext(h.ctx)) //nolint:gosec // the Pod's author names the server
}

// RunInContainer implements CommandRunner.
func (h hook) RunInContainer(ctx context.Context, id kubecontainer.ContainerID, command []string, _ time.Duration) ([]byte, error) {
	resp, err := h.m.cfg.CRI.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id.ID, Cmd: command})
	if err != nil {
		return nil, errors.New(remote.Message(err))
	}
	if resp.ExitCode != 0 {
		err = fmt.Errorf("command '%s' exited with %d", strings.Join(command, " "), resp.ExitCode)
	}
	return slices.Concat(resp.Stdout, resp.Stderr), err
}

// GetPod returns no Pod: GetPodStatus needs none.
func (h hook) GetPod(context.Context, types.UID) (*kubecontainer.Pod, error) { return nil, nil }

// GetPodStatus returns the addresses of the Pod.
func (h hook) GetPodStatus(context.Context, *kubecontainer.Pod) (*kubecontainer.PodStatus, error) {
	return &kubecontainer.PodStatus{IPs: h.podIPs}, nil
}

package pod

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubernetes/pkg/kubelet/events"
	"k8s.io/kubernetes/pkg/kubelet/util/format"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/containers"
	"flyball.dev/kubelet/cri"
	"flyball.dev/kubelet/cri/remote"
	"flyball.dev/kubelet/pod/plan"
	"flyball.dev/kubelet/volumes"
)

const (
	// callTimeout bounds a call of the runtime that does not wait for a container.
	callTimeout = 4 * time.Minute
	apiTimeout  = 30 * time.Second
)

// job is what an action needs, as it was when the action was planned.
type job struct {
	m *Manager
	// ctx of the worker. Calls that change the runtime use it: it costs the runtime more to cancel
	// them than to complete them.
	ctx context.Context

	uid     types.UID
	pod     *v1.Pod // nil for an orphan
	object  *v1.Pod // see plan.State.Object
	runtime cri.Pod
	podIPs  []string
	mounted map[string]volumes.Mounted
	sandbox *runtimeapi.PodSandboxConfig
	// volumeImages are the IDs of the images that are volumes, by container and volume.
	volumeImages map[string]map[string]string
}

func (w *worker) job(ctx context.Context) job {
	return job{
		m: w.m, ctx: ctx, uid: w.uid, pod: w.state.Last, object: w.state.Object(), runtime: w.state.Runtime,
		podIPs: w.state.PodIPs(), mounted: w.mounted, sandbox: w.sandbox, volumeImages: maps.Clone(w.volumeImages),
	}
}

func (j job) name() string {
	if j.pod == nil {
		return string(j.uid)
	}
	return format.Pod(j.pod)
}

// do carries an action out. ctx ends when the action is cancelled.
func (j job) do(ctx context.Context, a plan.Action) (out made, err error) {
	switch a := a.(type) {
	case plan.MountVolumes:
		out.mounted, err = j.mountVolumes(ctx)
	case plan.CreateSandbox:
		out.sandbox, err = j.createSandbox(ctx, a)
	case plan.PullImage:
		out.image, out.volumeImages, err = j.pullImage(ctx, a)
	case plan.StartContainer:
		err = j.startContainer(ctx, a)
	case plan.RunPreStop:
		j.runPreStop(ctx, a)
	case plan.StopContainer:
		err = j.stopContainer(ctx, a)
	case plan.GrowCgroup:
		err = j.m.cfg.Cgroups.GrowPod(j.pod)
	case plan.CheckMemory:
		err = j.checkMemory(ctx, a)
	case plan.ResizeContainer:
		err = j.resizeContainer(a)
	case plan.ShrinkCgroup:
		_, err = j.m.cfg.Cgroups.EnsurePod(j.pod)
	case plan.RemoveContainer:
		err = j.removeContainer(a)
	case plan.StopSandbox:
		err = j.stopSandbox(a)
	case plan.RemoveSandbox:
		err = j.removeSandbox(a)
	case plan.CleanUp:
		err = j.cleanUp(ctx)
	case plan.Purge:
		err = j.purge()
	case plan.DeletePod:
		err = j.deletePod(ctx)
	default:
		err = fmt.Errorf("acting: %T is not implemented", a)
	}
	return out, err
}

// call returns the context of a call that changes the runtime.
func (j job) call() (context.Context, context.CancelFunc) {
	return context.WithTimeout(j.ctx, callTimeout)
}

func (j job) mountVolumes(ctx context.Context) (map[string]volumes.Mounted, error) {
	mounted, err := j.m.cfg.Volumes.Mount(ctx, j.pod)
	if refused, ok := errors.AsType[*volumes.RefusedError](err); ok {
		j.m.Terminate(j.uid, plan.Termination{Reason: refused.Reason, Message: refused.Message, Refused: true})
		return nil, err
	}
	failed, _ := errors.AsType[*volumes.Error](err)
	if waiting := failed != nil && failed.Waiting; err != nil && ctx.Err() == nil && !waiting {
		for message := range strings.SplitSeq(err.Error(), "\n") {
			j.m.event(j.pod, "", v1.EventTypeWarning, events.FailedMountVolume, message)
		}
	}
	return mounted, err
}

// sandboxConfig renders the sandbox, and makes the cgroup that it lies in if this process has not
// done so.
func (j job) sandboxConfig(attempt uint32) (*runtimeapi.PodSandboxConfig, error) {
	if j.sandbox != nil && j.sandbox.GetMetadata().GetAttempt() == attempt {
		return j.sandbox, nil
	}
	parent, err := j.m.cfg.Cgroups.EnsurePod(j.pod)
	if err != nil {
		return nil, fmt.Errorf("making the cgroup of the Pod: %w", err)
	}
	return containers.Sandbox(j.pod, containers.SandboxOptions{Node: j.m.cfg.Render, Attempt: attempt, CgroupParent: parent})
}

func (j job) createSandbox(ctx context.Context, a plan.CreateSandbox) (*runtimeapi.PodSandboxConfig, error) {
	if a.Replaces && len(j.runtime.Containers) > 0 {
		j.m.event(j.pod, "", v1.EventTypeNormal, events.SandboxChanged, "Pod sandbox changed, it will be killed and re-created.")
	}
	leave, err := j.m.gate.enter(ctx, false)
	if err != nil {
		return nil, err
	}
	defer leave()
	config, err := j.runSandbox(ctx, a.Attempt)
	if err != nil {
		if ctx.Err() == nil {
			j.recordNoSandbox(err)
		}
		return nil, fmt.Errorf("creating the sandbox: %w", err)
	}
	_, warnings := containers.DNS(j.pod, j.m.cfg.Render)
	for _, w := range warnings {
		j.m.event(j.pod, "", v1.EventTypeWarning, w.Reason, w.Message)
	}
	return config, nil
}

func (j job) runSandbox(ctx context.Context, attempt uint32) (*runtimeapi.PodSandboxConfig, error) {
	handler, err := j.runtimeHandler(ctx)
	if err != nil {
		return nil, err
	}
	config, err := j.sandboxConfig(attempt)
	if err != nil {
		return nil, err
	}
	if err := j.makeLogDir(config.LogDirectory); err != nil {
		return nil, err
	}
	callCtx, cancel := j.call()
	defer cancel()
	_, err = j.m.cfg.CRI.RunPodSandbox(callCtx, &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	return config, err
}

func (j job) runtimeHandler(ctx context.Context) (string, error) {
	name := ptr.Deref(j.pod.Spec.RuntimeClassName, "")
	if name == "" {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	class, err := j.m.cfg.Client.NodeV1().RuntimeClasses().Get(ctx, name, metav1.GetOptions{})
	if err == nil {
		return class.Handler, nil
	} else if apierrors.IsNotFound(err) {
		return "", err // it names the class
	}
	return "", fmt.Errorf("failed to lookup RuntimeClass %s: %w", name, err)
}

// recordNoSandbox records why there is no sandbox. It asks the runtime for the state of the network
// only now, so that it costs nothing on a healthy node.
func (j job) recordNoSandbox(err error) {
	if j.m.cfg.NetworkError != nil && !j.pod.Spec.HostNetwork {
		ctx, cancel := context.WithTimeout(j.ctx, apiTimeout)
		defer cancel()
		if because := j.m.cfg.NetworkError(ctx); because != nil {
			j.m.event(j.pod, "", v1.EventTypeWarning, events.NetworkNotReady, "network is not ready: "+because.Error())
			return
		}
	}
	j.m.event(j.pod, "", v1.EventTypeWarning, events.FailedCreatePodSandBox, "Failed to create pod sandbox: "+remote.Message(err))
}

func (j job) stopSandbox(a plan.StopSandbox) error {
	ctx, cancel := j.call()
	defer cancel()
	_, err := j.m.cfg.CRI.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: a.ID})
	return j.stopped(j.ctx, err, "stopping sandbox "+a.ID)
}

func (j job) removeSandbox(a plan.RemoveSandbox) error {
	ctx, cancel := j.call()
	defer cancel()
	_, err := j.m.cfg.CRI.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: a.ID})
	if err != nil && !remote.IsNotFound(err) {
		return fmt.Errorf("removing sandbox %s: %w", a.ID, err)
	}
	return nil
}

func (j job) cleanUp(ctx context.Context) error {
	if err := j.m.cfg.Volumes.Unmount(ctx, j.uid); err != nil {
		return fmt.Errorf("unmounting the volumes: %w", err)
	}
	return j.m.cfg.Cgroups.RemovePod(j.uid) // whose error says so
}

// makeLogDir makes a directory that log shippers read, if this node has any.
func (j job) makeLogDir(dir string) error {
	if j.m.cfg.Render.PodLogsDir == "" {
		return nil
	}
	return os.MkdirAll(dir, 0o755)
}

// purge removes the record of the Pod's resources and the logs: all directories whose names end in
// the UID, because the name of an orphan is not known, and the links into them.
func (j job) purge() error {
	for _, c := range j.runtime.Containers {
		_ = os.Remove(j.logLink(c.ID, c.Name, c.Labels[cri.LabelPodName], c.Labels[cri.LabelPodNamespace]))
	}
	if logs := j.m.cfg.Render.PodLogsDir; logs != "" {
		dirs, _ := filepath.Glob(filepath.Join(logs, "*_"+string(j.uid))) // fails only for a malformed pattern
		for _, dir := range dirs {
			if err := os.RemoveAll(dir); err != nil {
				return fmt.Errorf("removing the logs: %w", err)
			}
		}
	}
	return j.m.admissions.files.remove(j.uid)
}

func (j job) deletePod(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	err := j.m.cfg.Client.CoreV1().Pods(j.object.Namespace).Delete(ctx, j.object.Name, metav1.DeleteOptions{
		GracePeriodSeconds: ptr.To[int64](0),
		Preconditions:      metav1.NewUIDPreconditions(string(j.object.UID)),
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		if refusal(err, 0) {
			j.m.event(j.object, "", v1.EventTypeWarning, events.FailedToKillPod, "error killing pod: the API server refuses to delete it: "+err.Error())
		}
		return fmt.Errorf("deleting the Pod from the API server: %w", err)
	}
	return nil
}

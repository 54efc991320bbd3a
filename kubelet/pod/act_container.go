package pod

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubernetes/pkg/kubelet/events"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/containers"
	"flyball.dev/kubelet/cri"
	"flyball.dev/kubelet/cri/remote"
	"flyball.dev/kubelet/pod/plan"
)

// pullImage makes the images of a container present, its own and those of its volumes.
func (j job) pullImage(ctx context.Context, a plan.PullImage) (image string, ofVolumes map[string]string, err error) {
	// The runtime reads only the Pod's name and annotations; there may be no cgroup yet.
	config, err := containers.Sandbox(j.pod, containers.SandboxOptions{Node: j.m.cfg.Render, Attempt: j.runtime.NewestSandbox().Attempt})
	if err != nil {
		return "", nil, err
	}
	c, _ := cri.FindContainer(j.pod, a.Name)
	record := func(kind, reason, message string) { j.m.event(j.pod, a.Name, kind, reason, message) }
	ofVolumes = map[string]string{}
	for _, vol := range imageVolumes(j.pod, c) {
		if ofVolumes[vol.Name], err = j.m.cfg.Images.EnsureVolume(ctx, j.pod, vol.Image, config, record); err != nil {
			return "", nil, err
		}
	}
	image, err = j.m.cfg.Images.Ensure(ctx, j.pod, c, config, record)
	return image, ofVolumes, err
}

func imageVolumes(pod *v1.Pod, c *v1.Container) []v1.Volume {
	return lo.Filter(pod.Spec.Volumes, func(vol v1.Volume, _ int) bool {
		return vol.Image != nil && slices.ContainsFunc(c.VolumeMounts, func(m v1.VolumeMount) bool { return m.Name == vol.Name })
	})
}

func (j job) startContainer(ctx context.Context, a plan.StartContainer) error {
	spec, _ := cri.FindContainer(j.pod, a.Name)
	sandbox, err := j.sandboxConfig(j.runtime.NewestSandbox().Attempt)
	if err != nil {
		return j.cannotStart(ctx, a, plan.ReasonCreateContainerConfigError, err)
	}
	config, err := j.containerConfig(ctx, a, spec)
	if err != nil {
		return j.cannotStart(ctx, a, plan.ReasonCreateContainerConfigError, err)
	}
	id, err := j.launch(ctx, a, config, sandbox)
	if err != nil {
		return err
	}
	if link := j.logLink(id, a.Name, j.pod.Name, j.pod.Namespace); link != "" {
		_ = os.Symlink(filepath.Join(sandbox.LogDirectory, config.LogPath), link) // the container runs without it
	}
	if !plan.HasPostStart(spec) {
		return nil
	}
	if err := j.runHook(ctx, id, spec, spec.Lifecycle.PostStart); err != nil {
		if ctx.Err() != nil {
			return context.Canceled
		}
		// The output may have secrets: only those who may read the status see it.
		j.m.event(j.pod, a.Name, v1.EventTypeWarning, events.FailedPostStartHook, "PostStartHook failed")
		j.m.event(j.pod, a.Name, v1.EventTypeNormal, events.KillingContainer, events.FailedPostStartHook)
		grace := time.Duration(ptr.Deref(j.pod.Spec.TerminationGracePeriodSeconds, 0)) * time.Second
		stop := plan.StopContainer{ID: id, Name: a.Name, Deadline: time.Now().Add(grace), Reason: "its postStart hook failed"}
		err = errors.Join(err, j.stopContainer(ctx, stop)) // which gives MinGrace at least
		return &containers.Error{Reason: plan.ReasonPostStartHookError, Message: err.Error(), Err: err}
	}
	return nil
}

func (j job) containerConfig(ctx context.Context, a plan.StartContainer, spec *v1.Container) (*runtimeapi.ContainerConfig, error) {
	uid, name, err := j.m.cfg.Images.User(ctx, a.ImageRef)
	if err != nil {
		return nil, err
	}
	in := containers.Input{
		Node: j.m.cfg.Render, Pod: j.pod, Container: spec, TargetID: j.targetID(a.Name),
		Attempt: a.Attempt, ImageRef: a.ImageRef, ImageUser: containers.ImageUser{UID: uid, Name: name},
		PodIPs: j.podIPs, Volumes: j.mounted, VolumeImages: j.volumeImages[a.Name],
		RuntimeHandler: j.runtime.NewestSandbox().Handler,
	}
	if in.Env, err = containers.Environment(ctx, j.m.cfg.Env, in); err != nil {
		return nil, err
	}
	files, err := containers.Files(in)
	if err != nil {
		return nil, err
	}
	if in.Files, err = j.m.cfg.Volumes.Prepare(ctx, j.pod, j.mounted, files); err != nil {
		return nil, err
	}
	config, err := containers.Container(in)
	if err != nil {
		return nil, err
	}
	config.Annotations = lo.Assign(config.Annotations, map[string]string{
		plan.AnnotationBackOff: strconv.Itoa(a.BackOff), plan.AnnotationAllRestarts: strconv.Itoa(a.AllRestarts),
	})
	return config, nil
}

func (j job) launch(ctx context.Context, a plan.StartContainer, config *runtimeapi.ContainerConfig, sandbox *runtimeapi.PodSandboxConfig) (string, error) {
	leave, err := j.m.gate.enter(ctx, true)
	if err != nil {
		return "", err
	}
	defer leave()
	log := filepath.Join(sandbox.LogDirectory, config.LogPath)
	if err := j.makeLogDir(filepath.Dir(log)); err != nil {
		return "", j.cannotStart(ctx, a, plan.ReasonCreateContainerError, err)
	}
	callCtx, cancel := j.call()
	defer cancel()
	in := &runtimeapi.CreateContainerRequest{PodSandboxId: a.SandboxID, Config: config, SandboxConfig: sandbox}
	created, err := j.m.cfg.CRI.CreateContainer(callCtx, in)
	if err != nil {
		return "", j.cannotStart(ctx, a, plan.ReasonCreateContainerError, err)
	}
	j.m.event(j.pod, a.Name, v1.EventTypeNormal, events.CreatedContainer, "Container created")
	if ctx.Err() != nil {
		return "", context.Canceled // the container is removed with its sandbox
	}
	if _, err := j.m.cfg.CRI.StartContainer(callCtx, &runtimeapi.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		return "", j.cannotStart(ctx, a, plan.ReasonRunContainerError, err)
	}
	j.m.event(j.pod, a.Name, v1.EventTypeNormal, events.StartedContainer, "Container started")
	return created.ContainerId, nil
}

// cannotStart says why a container does not run. An error that carries its own reason keeps it.
func (j job) cannotStart(ctx context.Context, a plan.StartContainer, reason string, err error) error {
	if ctx.Err() != nil {
		return context.Canceled
	}
	j.m.event(j.pod, a.Name, v1.EventTypeWarning, events.FailedToStartContainer, "Error: "+remote.Message(err))
	if _, ok := errors.AsType[*containers.Error](err); ok {
		return err
	}
	return &containers.Error{Reason: reason, Message: remote.Message(err), Err: err}
}

// targetID is the container whose processes an ephemeral container sees.
func (j job) targetID(name string) string {
	named := func(c v1.EphemeralContainer) bool { return c.Name == name }
	spec, _ := lo.Find(j.pod.Spec.EphemeralContainers, named)
	target, _ := j.runtime.Find(func(c cri.Container) bool {
		return c.Name == spec.TargetContainerName && c.State == cri.Running
	})
	return target.ID
}

func removeLog(path string) {
	rotated, _ := filepath.Glob(path + ".*") // fails only for a malformed pattern, which removes less
	for _, file := range append(rotated, path) {
		_ = os.Remove(file)
	}
}

// logLink is the path of the link that log shippers follow, "" if this node has none.
func (j job) logLink(id, container, pod, namespace string) string {
	if j.m.cfg.LogLinks == "" {
		return ""
	}
	// A file name is at most 255 bytes long.
	stem := fmt.Sprintf("%s_%s_%s", pod, namespace, container)
	return filepath.Join(j.m.cfg.LogLinks, stem[:min(len(stem), 250-len(id)-1)]+"-"+id+".log")
}

// runPreStop runs the hook. The container ends whether it succeeds or fails.
func (j job) runPreStop(ctx context.Context, a plan.RunPreStop) {
	hookCtx, cancel := context.WithDeadline(ctx, a.Deadline)
	defer cancel()
	inst := j.container(a.ID)
	spec, _ := cri.FindContainer(j.pod, a.Name)
	if spec == nil {
		spec = &v1.Container{Name: a.Name, Ports: cri.ParseInfo(inst.Annotations).Ports}
	}
	if err := j.runHook(hookCtx, a.ID, spec, plan.PreStopOf(j.pod, inst)); err != nil && hookCtx.Err() == nil {
		j.m.event(j.pod, a.Name, v1.EventTypeWarning, events.FailedPreStopHook, "PreStopHook failed")
	}
}

func (j job) stopContainer(ctx context.Context, a plan.StopContainer) error {
	grace := max(plan.MinGrace, time.Duration(math.Ceil(time.Until(a.Deadline).Seconds()))*time.Second)
	ctx, cancel := context.WithTimeout(ctx, grace+callTimeout)
	defer cancel()
	request := &runtimeapi.StopContainerRequest{ContainerId: a.ID, Timeout: int64(grace / time.Second)}
	_, err := j.m.cfg.CRI.StopContainer(ctx, request)
	return j.stopped(ctx, err, "stopping container "+a.Name)
}

// stopped returns the error of a call that stops something. An object that is gone counts as
// stopped.
func (j job) stopped(ctx context.Context, err error, doing string) error {
	if err == nil || remote.IsNotFound(err) {
		return nil
	}
	if ctx.Err() == nil {
		j.m.event(j.pod, "", v1.EventTypeWarning, events.FailedToKillPod, "error killing pod: "+remote.Message(err))
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func (j job) removeContainer(a plan.RemoveContainer) error {
	ctx, cancel := j.call()
	defer cancel()
	_, err := j.m.cfg.CRI.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: a.ID})
	if err != nil && !remote.IsNotFound(err) {
		return fmt.Errorf("removing container %s: %w", a.Name, err)
	}
	if j.pod != nil {
		_ = os.Remove(j.logLink(a.ID, a.Name, j.pod.Name, j.pod.Namespace))
		if log := j.container(a.ID).LogPath; log != "" {
			removeLog(log)
		}
	}
	return nil
}

func (j job) container(id string) cri.Container {
	c, _ := j.runtime.Find(func(c cri.Container) bool { return c.ID == id })
	return c
}

// checkMemory fails before anything shrinks, so that no resize is made by half. No event says that
// memory was freed, so the check is repeated.
func (j job) checkMemory(ctx context.Context, a plan.CheckMemory) error {
	var below []error
	usage, limit, lower, err := j.m.cfg.Cgroups.PodMemory(j.pod)
	if err != nil {
		return err
	}
	if lower && usage >= limit {
		below = append(below, fmt.Errorf("attempting to set pod memory limit (%d) below current usage (%d)", limit, usage))
	}
	for _, c := range a.Containers {
		usage, err := j.m.cfg.Runtime.MemoryUsage(ctx, c.ID)
		if remote.IsNotFound(err) {
			continue // it has ended, and starts again with what it is allocated
		} else if err != nil {
			return fmt.Errorf("unable to read memory usage for pod %q: %w", j.name(), errors.New(remote.Message(err)))
		}
		if usage >= uint64(c.Limit) {
			below = append(below, fmt.Errorf("attempting to set container %q memory limit (%d) below current usage (%d)", c.Name, c.Limit, usage))
		}
	}
	if err := utilerrors.NewAggregate(below); err != nil {
		return fmt.Errorf("cannot decrease memory limits: %w", err)
	}
	return nil
}

func (j job) resizeContainer(a plan.ResizeContainer) error {
	spec, _ := cri.FindContainer(j.pod, a.Name) // there is one: a plan resizes what is in the spec
	ctx, cancel := j.call()
	defer cancel()
	err := j.m.cfg.Runtime.Resize(ctx, j.uid, a.ID, containers.Update(j.m.cfg.Render, j.pod, spec))
	if err != nil && !remote.IsNotFound(err) {
		return fmt.Errorf("resizing container %s: %w", a.Name, errors.New(remote.Message(err)))
	}
	return nil
}

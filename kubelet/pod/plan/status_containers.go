package plan

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"flyball.dev/kubelet/cri"
)

// containers reports on the containers of one kind, in the order of the spec.
func (r *reporter) containers(kind podutil.ContainerType, old []v1.ContainerStatus, waiting string) []v1.ContainerStatus {
	var list []v1.ContainerStatus
	for spec := range podutil.ContainerIter(&r.Pod.Spec, kind) {
		was, _ := podutil.GetContainerStatus(old, spec.Name)
		list = append(list, r.withReadiness(spec, r.container(spec, was, waiting)))
	}
	return list
}

func (r *reporter) container(spec *v1.Container, was v1.ContainerStatus, waiting string) v1.ContainerStatus {
	cs := v1.ContainerStatus{
		Name: spec.Name, Image: spec.Image, VolumeMounts: r.volumeMounts(spec),
		RestartCount: was.RestartCount, LastTerminationState: was.LastTerminationState,
		State: v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: waiting}},
	}
	inst, ok := r.newest(spec.Name)
	if !ok {
		return r.missing(spec, cs, was)
	}
	if r.toBegin(inst) {
		return r.begins(spec, inst, cs)
	}
	cs.RestartCount, cs.ContainerID = int32(inst.Attempt), r.containerID(inst)
	cs.Image, cs.ImageID = cmp.Or(inst.Image, cs.Image), inst.ImageID
	cs.AllocatedResources, cs.Resources = spec.Resources.Requests, r.resources(spec, inst, was)
	if inst.User != nil {
		cs.User = &v1.ContainerUser{Linux: inst.User}
	}
	if was.ContainerID != cs.ContainerID && was.State.Terminated != nil {
		cs.LastTerminationState = was.State
	}
	before, ok := r.Runtime.Find(func(c cri.Container) bool {
		return c.Name == inst.Name && c.ID != inst.ID && c.State == cri.Exited
	})
	if ok {
		cs.LastTerminationState = v1.ContainerState{Terminated: r.terminated(before)}
		if r.superseded(before) || allRestartsOf(before) < allRestartsOf(inst) {
			cs.LastTerminationState = v1.ContainerState{Terminated: r.restartedWithAll(before)}
		}
	}
	switch {
	case inst.State == cri.Created || r.hooking(inst):
		r.wait(&cs, r.failure(spec.Name))
	case inst.Alive():
		cs.State = v1.ContainerState{Running: &v1.ContainerStateRunning{StartedAt: stamp(inst.StartedAt)}}
	default:
		cs.State = v1.ContainerState{Terminated: r.terminated(inst)}
		if why := r.restarting(spec, inst); why != nil {
			cs.LastTerminationState, cs.State = cs.State, v1.ContainerState{Waiting: why}
		}
	}
	return cs
}

// toBegin says whether an instance is the last one from before the restart of all containers, and
// none of these runs any more: its container begins anew.
func (r *reporter) toBegin(inst cri.Container) bool {
	return !r.ended && inst.State == cri.Exited && r.superseded(inst) && len(r.leftOver()) == 0
}

// begins reports on such a container. It counts the restart already, as upstream's kubelet does.
func (r *reporter) begins(spec *v1.Container, inst cri.Container, cs v1.ContainerStatus) v1.ContainerStatus {
	cs.RestartCount = int32(inst.Attempt) + 1
	cs.LastTerminationState = v1.ContainerState{Terminated: r.restartedWithAll(inst)}
	if r.restartingAll() {
		r.wait(&cs, &v1.ContainerStateWaiting{Reason: reasonRestartingAll, Message: messageRestartingAll})
	}
	r.wait(&cs, r.failure(spec.Name))
	return cs
}

// restartedWithAll reports how an instance ended before the restart of all containers, with
// upstream's reason for all of them and its own exit code, times and ID.
func (r *reporter) restartedWithAll(c cri.Container) *v1.ContainerStateTerminated {
	t := r.terminated(c)
	t.Reason, t.Message = reasonRestartingAll, cmp.Or(t.Message, messageRestartingAll)
	return t
}

func (r *reporter) missing(spec *v1.Container, cs, was v1.ContainerStatus) v1.ContainerStatus {
	lost := &v1.ContainerStateTerminated{
		Reason: "ContainerStatusUnknown", ExitCode: 137,
		Message: "The container could not be located when the pod was deleted.  The container used to be Running",
	}
	switch {
	case was.State.Terminated != nil:
		return was
	case was.State.Running != nil && (r.ended || r.Pod.DeletionTimestamp != nil):
		cs.ContainerID, cs.ImageID = was.ContainerID, was.ImageID
		cs.State = v1.ContainerState{Terminated: lost}
		return cs
	case was.State.Running != nil:
		cs.LastTerminationState = v1.ContainerState{Terminated: lost}
		cs.RestartCount++
	}
	if !r.ended {
		r.wait(&cs, r.failure(spec.Name))
	}
	return cs
}

func (r *reporter) wait(cs *v1.ContainerStatus, why *v1.ContainerStateWaiting) {
	if why != nil {
		cs.State = v1.ContainerState{Waiting: why}
	}
}

// restarting returns what an ended container waits for before it restarts, nil for nothing.
func (r *reporter) restarting(spec *v1.Container, inst cri.Container) *v1.ContainerStateWaiting {
	if r.ended || !r.again(spec, inst) {
		return nil
	}
	restarts, at := r.backOff(inst)
	if restarts < 2 || !r.now.Before(at) { // the first restart does not wait
		return r.failure(spec.Name)
	}
	return &v1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: fmt.Sprintf(
		"back-off %s restarting failed container=%s pod=%s_%s(%s)",
		backOffDelay(restarts-1), spec.Name, r.Pod.Name, r.Pod.Namespace, r.UID)}
}

// again says whether an ended container will restart: a sidecar always, an init container until it
// succeeds, an ephemeral container never.
func (r *reporter) again(spec *v1.Container, inst cri.Container) bool {
	_, kind := cri.FindContainer(r.Pod, spec.Name)
	return kind != podutil.EphemeralContainers && (!r.isInit(spec) || inst.ExitCode != 0) && r.restarts(spec, inst)
}

func (r *reporter) isInit(spec *v1.Container) bool {
	_, kind := cri.FindContainer(r.Pod, spec.Name)
	return kind == podutil.InitContainers && !isSidecar(spec)
}

func (r *reporter) failure(name string) *v1.ContainerStateWaiting {
	for _, slot := range []string{slotStart(name), slotImage(name)} {
		if f, ok := r.Failures[slot]; ok && f.Reason != "" {
			return &v1.ContainerStateWaiting{Reason: f.Reason, Message: f.Message}
		}
	}
	return nil
}

func (r *reporter) withReadiness(spec *v1.Container, cs v1.ContainerStatus) v1.ContainerStatus {
	inst, _ := r.newest(spec.Name)
	started := cs.State.Running != nil && r.started(spec, inst)
	cs.Started = &started
	cs.Ready = started && (spec.ReadinessProbe == nil || r.result(inst).Ready)
	if r.isInit(spec) {
		cs.Ready = cs.State.Terminated != nil && cs.State.Terminated.ExitCode == 0
	}
	return cs
}

func (r *reporter) terminated(c cri.Container) *v1.ContainerStateTerminated {
	return &v1.ContainerStateTerminated{
		ExitCode: c.ExitCode, Reason: c.Reason, Message: c.Message, ContainerID: r.containerID(c),
		StartedAt: stamp(c.StartedAt), FinishedAt: stamp(c.FinishedAt),
	}
}

func (r *reporter) containerID(c cri.Container) string { return r.Node.RuntimeName + "://" + c.ID }

func (r *reporter) volumeMounts(spec *v1.Container) []v1.VolumeMountStatus {
	var list []v1.VolumeMountStatus
	supported := r.Node.RecursiveReadOnly.Has(r.Runtime.NewestSandbox().Handler)
	for _, m := range spec.VolumeMounts {
		st := v1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			recursive, err := cri.RecursiveReadOnly(m, supported)
			st.RecursiveReadOnly = new(lo.Ternary(err == nil && recursive, v1.RecursiveReadOnlyEnabled, v1.RecursiveReadOnlyDisabled))
		}
		list = append(list, st)
	}
	return list
}

func byName(list []v1.ContainerStatus) []v1.ContainerStatus {
	slices.SortFunc(list, func(a, b v1.ContainerStatus) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

func stamp(t interface{ Unix() int64 }) metav1.Time { return metav1.Unix(t.Unix(), 0) }

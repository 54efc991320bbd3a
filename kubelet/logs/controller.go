package logs

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"flyball.dev/kubelet/cri"
)

// period between two polls, as upstream's.
const period = 10 * time.Second

// Owner knows the containers of this agent in a runtime that others use too; *remote.Client
// implements it.
type Owner interface {
	// Ours says whether a container with these labels, of a Pod with this UID, is of this agent.
	Ours(pod types.UID, labels map[string]string) bool
}

// Rotator rotates the logs of running containers.
type Rotator struct {
	// Dir has the logs of Pods, /var/log/pods.
	Dir     string
	Runtime runtimeapi.RuntimeServiceClient
	// Owner limits the Rotator to the logs of its containers. Optional.
	Owner  Owner
	Policy Policy
}

// Run rotates logs until ctx ends.
func (r Rotator) Run(ctx context.Context) error {
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		if err := r.Reconcile(ctx, time.Now()); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Rotating the logs of containers failed, it is retried")
		}
	}, period)
	return nil
}

// Reconcile rotates the logs that are due.
func (r Rotator) Reconcile(ctx context.Context, now time.Time) error {
	logs, err := r.observe()
	logs = slices.DeleteFunc(logs, func(l log) bool { return !due(l, r.Policy) })
	if err != nil || len(logs) == 0 {
		return err
	}
	running, err := r.running(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range logs {
		if id, ok := running[key(l.path)]; ok {
			errs = append(errs, r.act(ctx, id, l.path, plan(l, r.Policy), now))
		}
	}
	return errors.Join(errs...)
}

// running maps the keys of the running containers of this agent to their IDs.
func (r Rotator) running(ctx context.Context) (map[string]string, error) {
	resp, err := r.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{
		State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING},
	}})
	if err != nil {
		return nil, fmt.Errorf("listing running containers: %w", err)
	}
	ids := map[string]string{}
	for _, c := range resp.GetContainers() {
		pod, name := c.GetLabels()[cri.LabelPodUID], c.GetLabels()[cri.LabelContainerName]
		if r.Owner != nil && !r.Owner.Ours(types.UID(pod), c.GetLabels()) {
			continue
		}
		ids[fmt.Sprintf("%s/%s/%d.log", pod, name, c.GetMetadata().GetAttempt())] = c.GetId()
	}
	return ids, nil
}

// key of a log is UID/CONTAINER/ATTEMPT.log.
func key(path string) string {
	container := filepath.Dir(path)
	pod := filepath.Dir(container)
	return filepath.Join(pod[strings.LastIndex(pod, "_")+1:], filepath.Base(container), filepath.Base(path))
}

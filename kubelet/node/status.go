package node

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/wait"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
)

const (
	// criTimeout bounds one question to the runtime. One that hangs is as good as down.
	criTimeout = 10 * time.Second
	// lookAtImages is how often the images are listed when nobody says that they changed.
	lookAtImages = time.Minute
)

// reporter is the memory of the status loop. Nothing of it is needed for
// correctness; it spares questions and writes.
type reporter struct {
	*Node
	runtime     runtimeState
	images      []v1.ContainerImage
	imagesAsked time.Time
	pressed     map[v1.NodeConditionType]time.Time
	poked       bool     // somebody knows of a change: ask everything again
	written     *v1.Node // our own last write: the watch may lag behind it
}

// register creates the Node, with its status, so that a machine whose runtime is
// ready is Ready from the first moment. An existing Node is left to the status
// loop, which reconciles it.
func (r *reporter) register(ctx context.Context) error {
	backoff := wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Cap: 7 * time.Second, Steps: 1 << 30}
	for {
		err := r.create(ctx)
		if err == nil {
			r.event("Starting", "Starting kubelet.")
			return nil
		}
		if ctx.Err() == nil {
			r.failed(ctx, fmt.Errorf("registering this machine, which is tried again; the API server must be reachable and know the identity system:node:%s: %w", r.cfg.Name, err))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("registering node %s: %w", r.cfg.Name, context.Cause(ctx))
		case <-time.After(backoff.Step()):
		}
	}
}

// failed tells of what is going to be tried again: whoever waits for the Node wants
// to know why it does not come. Without somebody to tell, it is logged.
func (r *reporter) failed(ctx context.Context, err error) {
	if r.cfg.Report == nil {
		klog.FromContext(ctx).Error(err, "The Node is not up to date")
		return
	}
	klog.FromContext(ctx).V(1).Info("The Node is not up to date", "err", err)
	r.cfg.Report(err)
}

// create makes the Node unless it exists.
func (r *reporter) create(ctx context.Context) error {
	o := r.observe(ctx)
	o.existing = nil
	out := plan(r.identity(), r.machine, o, 0, time.Now())
	nodes := r.cfg.Client.CoreV1().Nodes()
	created, err := nodes.Create(ctx, out.write, metav1.CreateOptions{})
	switch {
	case err == nil:
		r.accepted(created, out)
		return nil
	case apierrors.IsAlreadyExists(err):
		return nil
	case apierrors.IsForbidden(err):
		// Some clusters forbid nodes to create themselves and do it beforehand.
		if _, getErr := nodes.Get(ctx, r.cfg.Name, metav1.GetOptions{}); getErr == nil {
			return nil
		}
	}
	return fmt.Errorf("creating Node %s: %w", r.cfg.Name, err)
}

// reportStatus keeps the Node as it should be until ctx ends.
func (r *reporter) reportStatus(ctx context.Context) {
	var waited time.Duration
	for ctx.Err() == nil {
		out := r.report(ctx, waited)
		waited = out.again
		select {
		case <-ctx.Done():
		case <-r.poke:
			waited, r.poked = 0, true // something happened: be quick again
		case <-time.After(out.again):
		}
	}
}

// report is one turn: observe, plan, act.
func (r *reporter) report(ctx context.Context, waited time.Duration) outcome {
	o := r.observe(ctx)
	var err error
	if o.existing, err = r.existing(ctx); err != nil {
		if ctx.Err() == nil {
			r.failed(ctx, fmt.Errorf("reporting the status of this machine, which is tried again: %w", err))
		}
		return outcome{again: lookLatest}
	}
	if o.existing == nil {
		// Whoever deletes a Node takes the machine out of the cluster. It does not come back by itself.
		r.failed(ctx, fmt.Errorf("reporting the status of this machine: Node %s was deleted; restart the node agent if it is to be registered again, or take it down", r.cfg.Name))
		return outcome{again: StatusUpdateFrequency}
	}
	out := plan(r.identity(), r.machine, o, waited, time.Now())
	if out.write == nil {
		// Nothing to say after a quick restart: the API server has it all already.
		r.tellReady(out)
		return out
	}
	if err = r.update(ctx, out); err != nil && ctx.Err() == nil {
		r.failed(ctx, fmt.Errorf("reporting the status of this machine (%s), which is tried again: %w", out.reason, err))
		out.again = lookLatest
	}
	return out
}

// update writes the status, with labels and annotations. The resourceVersion is
// a precondition: nothing that somebody else wrote meanwhile is undone.
func (r *reporter) update(ctx context.Context, out outcome) error {
	updated, err := r.cfg.Client.CoreV1().Nodes().UpdateStatus(ctx, out.write, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		// Our copy is old. Read the current one at the next look, which is now.
		r.written = nil
		if updated, err = r.cfg.Client.CoreV1().Nodes().Get(ctx, r.cfg.Name, metav1.GetOptions{}); err == nil {
			r.written = updated
		}
		r.Recheck()
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	if err != nil {
		return fmt.Errorf("updating the status of Node %s: %w", r.cfg.Name, err)
	}
	klog.FromContext(ctx).V(2).Info("Reported the status of this machine", "because", out.reason, "ready", out.ready)
	r.accepted(updated, out)
	return nil
}

// accepted remembers a write that the API server took, and says so.
func (r *reporter) accepted(n *v1.Node, out outcome) {
	r.written = n
	for _, e := range out.events {
		r.event(e.reason, e.message)
	}
	r.tellReady(out)
}

// tellReady tells once that the API server knows the Node as Ready.
func (r *reporter) tellReady(out outcome) {
	if out.ready && r.cfg.Ready != nil {
		r.ready.Do(r.cfg.Ready)
	}
}

// existing is the newest Node object known: the watched one, or our own write if
// that is newer. nil means that there is none.
func (r *reporter) existing(ctx context.Context) (*v1.Node, error) {
	cached := r.Object()
	if cached == nil { // not watched yet, or deleted: the watch may lag behind our own creation
		n, err := r.cfg.Client.CoreV1().Nodes().Get(ctx, r.cfg.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading Node %s: %w", r.cfg.Name, err)
		}
		return n, nil
	}
	if r.written != nil && cached.UID == r.written.UID {
		if newer, err := resourceversion.CompareResourceVersion(r.written.ResourceVersion, cached.ResourceVersion); err == nil && newer > 0 {
			return r.written, nil
		}
	}
	return cached, nil
}

// observe asks the runtime and the machine. A question that fails leaves the last
// answer standing; plan knows how old it is.
func (r *reporter) observe(ctx context.Context) observation {
	now := time.Now()
	ctx, cancel := context.WithTimeout(ctx, criTimeout)
	defer cancel()
	r.askRuntime(ctx)
	if r.poked || now.Sub(r.imagesAsked) >= lookAtImages {
		r.askImages(ctx, now)
		r.poked = false
	}
	o := observation{runtime: r.runtime, images: r.images, usage: r.usage(), pressed: r.pressed}
	for kind, is := range pressed(o.usage) {
		if is {
			r.pressed[kind] = now
		}
	}
	if r.cfg.VolumesInUse != nil {
		o.volumes = r.cfg.VolumesInUse()
	}
	return o
}

// usage measures the machine; one that is only described never runs out of anything.
func (r *reporter) usage() usage {
	if r.cfg.Machine != nil {
		return usage{memoryAvailable: 1 << 62}
	}
	return readUsage(r.cfg.RootDir)
}

func (r *reporter) askRuntime(ctx context.Context) {
	status, err := r.cfg.Runtime.Status(ctx, &runtimeapi.StatusRequest{})
	wasSilent := r.runtime.silent
	if r.runtime.silent = err != nil; err != nil {
		klog.FromContext(ctx).V(2).Info("The container runtime did not answer", "err", err)
		return
	}
	if r.runtime.version == "" || wasSilent { // it may have been replaced meanwhile
		version, err := r.cfg.Runtime.Version(ctx, &runtimeapi.VersionRequest{})
		if r.runtime.silent = err != nil; err != nil {
			return
		}
		r.runtime.version = version.RuntimeName + "://" + version.RuntimeVersion
	}
	r.runtime.condition = nil
	for _, c := range status.GetStatus().GetConditions() {
		r.runtime.condition = append(r.runtime.condition,
			runtimeCondition{kind: c.Type, ok: c.Status, reason: c.Reason, message: c.Message})
	}
	r.runtime.handlers, r.runtime.features = handlersAndFeatures(status)
	r.runtime.answered = time.Now()
}

func (r *reporter) askImages(ctx context.Context, now time.Time) {
	list, err := r.cfg.Images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		klog.FromContext(ctx).V(2).Info("The container runtime did not list its images", "err", err)
		return
	}
	r.images, r.imagesAsked = topImages(list.Images), now
}

func (r *reporter) identity() identity {
	return identity{
		name: r.cfg.Name, ip: r.cfg.IP.String(), port: r.cfg.Port,
		maxPods: r.cfg.MaxPods, labels: r.cfg.Labels,
	}
}

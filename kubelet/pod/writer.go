package pod

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"

	"flyball.dev/internal/trigger"
	"flyball.dev/kubelet/pod/plan"
)

const (
	// settleTime is the delay of a status that nobody acts on, such as ContainerCreating of a
	// container that runs in a moment.
	settleTime = 500 * time.Millisecond

	writeTimeout    = 10 * time.Second
	writeRetryFirst = 200 * time.Millisecond
	writeRetryMax   = 5 * time.Second
	// refusedRetryMax bounds the pauses after a refusal: somebody has to change something before
	// the API server accepts the same status.
	refusedRetryMax = 5 * time.Minute
)

// writer writes the status of one Pod to the API server. Only the latest status counts. Its methods
// do not block.
type writer struct {
	client   kubernetes.Interface
	recorder record.EventRecorder
	// inbox of the worker gets an update when the API server has accepted or refused a status.
	inbox   *inbox
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	base    *v1.Pod // the newest Pod, from the watch or from a response
	want    *v1.PodStatus
	busy    bool
	sent    *v1.PodStatus   // the last status that the API server accepted
	sentAt  string          // the resourceVersion of the response
	refused *v1.PodStatus   // the last status that the API server refused
	rush    trigger.Trigger // set when want is urgent
}

func newWriter(ctx context.Context, client kubernetes.Interface, recorder record.EventRecorder, in *inbox) *writer {
	ctx, cancel := context.WithCancel(ctx)
	return &writer{client: client, recorder: recorder, inbox: in, ctx: ctx, cancel: cancel, rush: trigger.New()}
}

// stop ends the writer and waits for it. It does not write what is still wanted.
func (w *writer) stop() {
	w.cancel()
	w.running.Wait()
}

// set has a status written, at once if now is set or the status is urgent. It says whether the API
// server has decided about the status: has it, or refuses it. The writer offers a refused status
// again in the background.
func (w *writer) set(pod *v1.Pod, status v1.PodStatus, now bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.base = newest(w.base, pod)
	if !w.busy && w.written(status) {
		return true
	}
	w.want = &status
	if w.isRefused(status) {
		return true
	}
	if now || w.refused != nil || urgent(&w.base.Status, &status) && !leaving(pod, &status) {
		w.rush.Set()
	}
	if !w.busy {
		w.busy = true
		w.running.Go(w.run)
	}
	return false
}

func (w *writer) run() {
	pause, failing := writeRetryFirst, time.Time{}
	for {
		select {
		case <-w.rush:
		case <-time.After(settleTime):
		case <-w.ctx.Done():
			return
		}
		w.mu.Lock()
		base, want := w.base, *w.want
		w.mu.Unlock()

		answer, err := w.write(base, want)
		switch {
		case isGone(err):
			w.mu.Lock()
			w.busy = false
			w.mu.Unlock()
			return // the watch will deliver the deletion
		case err != nil:
			if failing.IsZero() {
				failing = time.Now()
			}
			if !w.wait(base, want, err, pause, time.Since(failing)) {
				return
			}
			pause = min(2*pause, refusedRetryMax)
		case w.accepted(want, answer):
			pause, failing = writeRetryFirst, time.Time{}
		default:
			w.inbox.put(update{})
			return
		}
	}
}

// accepted records that the API server has a status, and says whether another one is wanted by now.
func (w *writer) accepted(want v1.PodStatus, answer *v1.Pod) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent, w.sentAt, w.refused = &want, answer.ResourceVersion, nil
	w.base = newest(w.base, answer)
	w.busy = !w.written(*w.want)
	return w.busy
}

// wait passes the pause after a failure, and says whether to go on. A refusal is logged and
// recorded as an Event, and the pause after it ends as soon as another status is wanted.
func (w *writer) wait(base *v1.Pod, want v1.PodStatus, err error, pause, failing time.Duration) bool {
	rush, longest := (<-chan struct{})(nil), writeRetryMax
	if w.ctx.Err() == nil && refusal(err, failing) {
		rush, longest = w.rush, refusedRetryMax
		klog.FromContext(w.ctx).Error(err, "The API server refuses the status of the Pod, it is offered again", "pod", klog.KObj(base))
		w.recorder.Event(ContainerRef(base, ""), v1.EventTypeWarning, reasonFailedStatus, err.Error())
		w.mu.Lock()
		w.refused = &want
		if w.isRefused(*w.want) {
			select {
			case <-w.rush: // the token was for the refused status
			default:
			}
		}
		w.mu.Unlock()
		w.inbox.put(update{})
	}
	select {
	case <-time.After(min(pause, longest)):
	case <-rush:
	case <-w.ctx.Done():
		return false
	}
	w.rush.Set()
	return true
}

// isRefused says whether the API server has refused a status. The caller holds the lock.
func (w *writer) isRefused(status v1.PodStatus) bool {
	return w.refused != nil && apiequality.Semantic.DeepEqual(*w.refused, status)
}

func (w *writer) write(base *v1.Pod, status v1.PodStatus) (*v1.Pod, error) {
	// Upstream's PatchPodStatus does the same, but does not wrap the error of the API server.
	before, err := json.Marshal(v1.Pod{Status: base.Status})
	// The UID makes the patch fail on another Pod of the same name.
	after, afterErr := json.Marshal(v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: base.UID}, Status: withForeign(base, status)})
	if err := cmp.Or(err, afterErr); err != nil {
		return nil, fmt.Errorf("encoding the status: %w", err)
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, v1.Pod{})
	if err != nil {
		return nil, fmt.Errorf("comparing the status with the last one: %w", err)
	}
	ctx, cancel := context.WithTimeout(w.ctx, writeTimeout)
	defer cancel()
	answer, err := w.client.CoreV1().Pods(base.Namespace).
		Patch(ctx, base.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return nil, fmt.Errorf("writing the status: %w", err)
	}
	return answer, nil
}

// written says whether the API server has a status. A status that it accepted counts even if it
// dropped fields; writing the status again would not help. The caller holds the lock.
func (w *writer) written(status v1.PodStatus) bool {
	return w.sent != nil && w.sentAt == w.base.ResourceVersion && apiequality.Semantic.DeepEqual(*w.sent, status) ||
		equal(w.base, status)
}

// withForeign takes the conditions that others own from the newest Pod.
func withForeign(base *v1.Pod, status v1.PodStatus) v1.PodStatus {
	own := lo.Filter(status.Conditions, owned)
	foreign := lo.Filter(base.Status.Conditions, func(c v1.PodCondition, i int) bool {
		_, ours := podutil.GetPodConditionFromList(own, c.Type)
		return ours == nil && !owned(c, i)
	})
	status.Conditions = slices.Concat(foreign, own)
	return status
}

// owned says whether a condition is the kubelet's. DisruptionTarget has several owners.
func owned(c v1.PodCondition, _ int) bool {
	return c.Type == v1.DisruptionTarget && c.Reason == v1.PodReasonTerminationByKubelet || slices.Contains([]v1.PodConditionType{
		v1.PodScheduled, v1.PodReady, v1.PodInitialized, v1.ContainersReady, v1.PodReadyToStartContainers,
		v1.PodResizePending, v1.PodResizeInProgress, v1.AllContainersRestarting,
	}, c.Type)
}

// equal says whether the API server has a status. The order of conditions and the conditions of
// others do not matter.
func equal(base *v1.Pod, status v1.PodStatus) bool {
	sorted := func(st v1.PodStatus) v1.PodStatus {
		st.Conditions = slices.SortedFunc(slices.Values(st.Conditions),
			func(a, b v1.PodCondition) int { return cmp.Compare(a.Type, b.Type) })
		return st
	}
	return apiequality.Semantic.DeepEqual(sorted(base.Status), sorted(withForeign(base, status)))
}

// urgent says whether a user or a controller acts on the difference.
func urgent(have, want *v1.PodStatus) bool {
	if have.Phase != want.Phase && want.Phase != v1.PodPending || resizeProgressed(have, want) {
		return true
	}
	for _, t := range []v1.PodConditionType{v1.PodReady, v1.AllContainersRestarting, v1.DisruptionTarget} {
		if plan.IsTrue(have, t) != plan.IsTrue(want, t) {
			return true
		}
	}
	if len(have.ContainerStatuses) == 0 {
		return stuck(want.InitContainerStatuses) || stuck(want.ContainerStatuses)
	}
	return progressed(plan.ContainerStatuses(have), plan.ContainerStatuses(want))
}

// leaving says whether nothing of a deleted Pod runs any more. Nobody acts on that before the Pod
// is gone, and its last status comes in a moment: one write instead of two.
func leaving(pod *v1.Pod, status *v1.PodStatus) bool {
	running := func(c v1.ContainerStatus) bool { return c.State.Running != nil }
	return pod.DeletionTimestamp != nil && !slices.ContainsFunc(plan.ContainerStatuses(status), running)
}

// resizeProgressed says whether a resize was refused, failed or done. Its beginning does not count:
// most resizes are done in a moment.
func resizeProgressed(have, want *v1.PodStatus) bool {
	for _, t := range []v1.PodConditionType{v1.PodResizePending, v1.PodResizeInProgress} {
		_, was := podutil.GetPodCondition(have, t)
		_, is := podutil.GetPodCondition(want, t)
		if is == nil && was != nil || is != nil && is.Reason != "" && (was == nil || was.Reason != is.Reason || was.Message != is.Message) {
			return true
		}
	}
	return false
}

// stuck says whether a container waits for more than its creation.
func stuck(list []v1.ContainerStatus) bool {
	return slices.ContainsFunc(list, func(c v1.ContainerStatus) bool {
		w := c.State.Waiting
		return w == nil || w.Reason != "ContainerCreating" && w.Reason != "PodInitializing"
	})
}

func progressed(have, want []v1.ContainerStatus) bool {
	return slices.ContainsFunc(want, func(is v1.ContainerStatus) bool {
		was, ok := podutil.GetContainerStatus(have, is.Name)
		a, b := was.State, is.State
		return !ok || (a.Running != nil) != (b.Running != nil) || (a.Terminated != nil) != (b.Terminated != nil) ||
			ptr.Deref(a.Waiting, v1.ContainerStateWaiting{}).Reason != ptr.Deref(b.Waiting, v1.ContainerStateWaiting{}).Reason ||
			was.Ready != is.Ready || was.RestartCount != is.RestartCount ||
			!apiequality.Semantic.DeepEqual(was.Resources, is.Resources)
	})
}

// newest returns the newer version of a Pod, b if that cannot be said.
func newest(a, b *v1.Pod) *v1.Pod {
	if a != nil {
		if order, err := resourceversion.CompareResourceVersion(b.ResourceVersion, a.ResourceVersion); err == nil && order <= 0 {
			return a
		}
	}
	return b
}

// internalErrors is how long the API server may return internal errors, such as the failure of a
// webhook, before they count as a refusal.
const internalErrors = time.Minute

// refusal says whether an error means that the API server refuses a write, and would refuse the
// same write in a moment, too: because of validation, authorization, a webhook or a policy. failing
// is how long writes have failed.
func refusal(err error, failing time.Duration) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok {
		return false // it did not answer
	}
	code := status.Status().Code
	passes := []int32{
		http.StatusUnauthorized, http.StatusNotFound, http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests,
	}
	return code == http.StatusInternalServerError && failing >= internalErrors ||
		code >= http.StatusBadRequest && code < http.StatusInternalServerError && !slices.Contains(passes, code)
}

// isGone says whether the Pod does not exist any more. If another Pod of its name has taken its
// place, the API server answers that a UID cannot change.
func isGone(err error) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	return apierrors.IsNotFound(err) || ok && status.Status().Details != nil &&
		slices.ContainsFunc(status.Status().Details.Causes, func(c metav1.StatusCause) bool { return c.Field == "metadata.uid" })
}

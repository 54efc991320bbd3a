// Package claims finds the PersistentVolumes of claims. The Node authorizer lets a node read the
// claims of its Pods and their PersistentVolumes one by one, but neither list nor watch them. So a
// claim that is not bound yet is read again after a while that becomes longer, and one that a Pod
// has is read again when it is asked for after half a minute: its size may have changed.
package claims

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-helpers/storage/ephemeral"
	"k8s.io/klog/v2"
	volumeutil "k8s.io/kubernetes/pkg/volume/util"

	"flyball.dev/kubelet/volumes/internal/objects"
	"flyball.dev/kubelet/volumes/plan"
)

const (
	// TTL is how long a claim counts as fresh after it was read.
	TTL = 30 * time.Second
	// Bounds of the time after which a claim that is not bound is read again.
	retryMin, retryMax = 25 * time.Millisecond, 10 * time.Second
)

// WaitingError is the error of a claim that others will create or bind.
type WaitingError string

func (w WaitingError) Error() string { return string(w) }

// Bound is a claim with its PersistentVolume; both are nil while it is not bound.
type Bound struct {
	Claim  *v1.PersistentVolumeClaim
	Volume *v1.PersistentVolume
	// at is when both were read, or when a Pod began to wait for them.
	at time.Time
}

// Store remembers the claims of volumes of Pods.
type Store struct {
	client kubernetes.Interface
	retry  func(pod types.UID, after time.Duration)
	mu     sync.Mutex
	known  map[plan.Target]Bound
}

// New returns an empty Store. retry is called for a Pod that waits, and has Get called again.
func New(client kubernetes.Interface, retry func(pod types.UID, after time.Duration)) *Store {
	return &Store{client: client, retry: retry, known: map[plan.Target]Bound{}}
}

// Name is the name of the claim that a volume is, empty if it is none.
func Name(pod *v1.Pod, volume *v1.Volume) string {
	switch {
	case volume.PersistentVolumeClaim != nil:
		return volume.PersistentVolumeClaim.ClaimName
	case volume.Ephemeral != nil:
		return ephemeral.VolumeClaimName(pod, volume)
	}
	return ""
}

// Known is what Get has returned last, without a request.
func (s *Store) Known(t plan.Target) Bound {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known[t]
}

// Forget the claims of a Pod.
func (s *Store) Forget(pod types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.known, func(t plan.Target, _ Bound) bool { return t.Pod == pod })
}

func (s *Store) remember(t plan.Target, b Bound) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[t] = b
}

// Get returns the claim that a volume is, and what it is bound to. Once it is, Get fails no more:
// the Pod has the volume, or may have it, whatever happens to the claim.
func (s *Store) Get(ctx context.Context, pod *v1.Pod, volume *v1.Volume) (Bound, error) {
	t := plan.Target{Pod: pod.UID, Volume: volume.Name}
	known := s.Known(t)
	if known.Claim != nil && time.Since(known.at) < TTL {
		return known, nil
	}
	name := Name(pod, volume)
	fresh, err := s.read(ctx, pod, volume, known)
	switch {
	case err == nil:
		s.remember(t, fresh)
		return fresh, nil
	case known.Claim != nil:
		klog.FromContext(ctx).V(2).Info("Cannot read a claim again", "pod", klog.KObj(pod), "claim", name, "err", err)
		known.at = time.Now()
		s.remember(t, known)
		return known, nil
	}
	if _, ok := errors.AsType[WaitingError](err); ok {
		since := cmp.Or(known.at, time.Now())
		s.remember(t, Bound{at: since})
		s.retry(pod.UID, min(max(time.Since(since)/2, retryMin), retryMax))
	}
	return Bound{}, fmt.Errorf("error processing PVC %s/%s: %w", pod.Namespace, name, err)
}

// read a claim and, unless it is the same as before, its PersistentVolume.
func (s *Store) read(ctx context.Context, pod *v1.Pod, volume *v1.Volume, known Bound) (fresh Bound, err error) {
	core := s.client.CoreV1()
	fresh.Claim, err = objects.Retry(objects.PodUnknown, func() (*v1.PersistentVolumeClaim, error) {
		return core.PersistentVolumeClaims(pod.Namespace).Get(ctx, Name(pod, volume), metav1.GetOptions{})
	})
	if apierrors.IsNotFound(err) && volume.Ephemeral != nil {
		return Bound{}, WaitingError("PVC is not created yet")
	} else if err != nil {
		return Bound{}, fmt.Errorf("failed to fetch PVC from API server: %w", err)
	}
	if volume.Ephemeral != nil {
		if err := ephemeral.VolumeIsForPod(pod, fresh.Claim); err != nil {
			return Bound{}, err
		}
	}
	if err := check(fresh.Claim, known.Claim); err != nil {
		return Bound{}, err
	}
	fresh.at, fresh.Volume = time.Now(), known.Volume
	if known.Claim != nil && known.Claim.ResourceVersion == fresh.Claim.ResourceVersion && !growing(fresh.Claim) {
		return fresh, nil
	}
	fresh.Volume, err = objects.Retry(objects.PodUnknown, func() (*v1.PersistentVolume, error) {
		return core.PersistentVolumes().Get(ctx, fresh.Claim.Spec.VolumeName, metav1.GetOptions{})
	})
	if err != nil {
		return Bound{}, fmt.Errorf("failed to fetch PV %s from API server: %w", fresh.Claim.Spec.VolumeName, err)
	}
	return fresh, checkBinding(fresh)
}

// growing says whether the user wants more than the volume has.
func growing(claim *v1.PersistentVolumeClaim) bool {
	return claim.Spec.Resources.Requests.Storage().Cmp(*claim.Status.Capacity.Storage()) > 0
}

// check says why no Pod can have the claim, in upstream's words where it has some.
func check(claim, known *v1.PersistentVolumeClaim) error {
	switch {
	case known != nil && known.UID != claim.UID:
		return errors.New("PVC was replaced by another one of the same name")
	// With the finalizer it stays until the Pod has ended.
	case claim.DeletionTimestamp != nil && !slices.Contains(claim.Finalizers, volumeutil.PVCProtectionFinalizer):
		return errors.New("PVC is being deleted")
	case claim.Status.Phase == v1.ClaimLost:
		return fmt.Errorf("PVC has lost its PV %s", claim.Spec.VolumeName)
	case claim.Status.Phase != v1.ClaimBound || claim.Spec.VolumeName == "":
		return WaitingError("PVC is not bound")
	}
	return nil
}

func checkBinding(b Bound) error {
	switch ref := b.Volume.Spec.ClaimRef; {
	case ref == nil:
		return fmt.Errorf("found PV object %s but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim",
			b.Volume.Name)
	case ref.UID != b.Claim.UID:
		return fmt.Errorf("found PV object %s but its pv.Spec.ClaimRef.UID %s does not point to claim.UID %s",
			b.Volume.Name, ref.UID, b.Claim.UID)
	}
	return nil
}

package claims

import (
	"errors"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"flyball.dev/kubelet/volumes/plan"
)

var (
	pod    = &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "uid"}}
	volume = &v1.Volume{Name: "v", VolumeSource: v1.VolumeSource{
		PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "claim"},
	}}
	target = plan.Target{Pod: "uid", Volume: "v"}
)

func size(s string) v1.ResourceList {
	return v1.ResourceList{v1.ResourceStorage: resource.MustParse(s)}
}

// bound is a claim with its PersistentVolume of 1 GiB.
func bound() Bound {
	return Bound{
		Claim: &v1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Name: "claim", Namespace: "ns", UID: "claim-uid", ResourceVersion: "1"},
			Spec: v1.PersistentVolumeClaimSpec{
				VolumeName: "pv", Resources: v1.VolumeResourceRequirements{Requests: size("1Gi")},
			},
			Status: v1.PersistentVolumeClaimStatus{Phase: v1.ClaimBound, Capacity: size("1Gi")},
		},
		Volume: &v1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: "pv"},
			Spec:       v1.PersistentVolumeSpec{ClaimRef: &v1.ObjectReference{UID: "claim-uid"}, Capacity: size("1Gi")},
		},
	}
}

// TestGetAgain: a claim that a Pod has is read again from time to time, and the Pod keeps the volume
// whatever happens to the claim.
func TestGetAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		reason   string
		change   func(Bound)
		age      time.Duration
		gone     bool
		requests int
		size     string
	}{
		"Fresh": {
			reason: "a Publish that is repeated often costs nothing",
			change: func(b Bound) { b.Claim.ResourceVersion, b.Volume.Spec.Capacity = "2", size("2Gi") },
			age:    TTL / 2, requests: 0, size: "1Gi",
		},
		"Unchanged": {
			reason: "the PV of a claim that has not changed has not changed either",
			age:    TTL, requests: 1, size: "1Gi",
		},
		"Expanded": {
			reason: "the file system has to grow",
			change: func(b Bound) { b.Claim.ResourceVersion, b.Volume.Spec.Capacity = "2", size("2Gi") },
			age:    TTL, requests: 2, size: "2Gi",
		},
		"Gone":     {reason: "the Pod has the volume", age: TTL, gone: true, requests: 1, size: "1Gi"},
		"Replaced": {reason: "by another one, whose data is not this Pod's", change: func(b Bound) { b.Claim.UID = "other" }, age: TTL, requests: 1, size: "1Gi"},
	} {
		t.Run(name, func(t *testing.T) {
			before, after := bound(), bound()
			client := fake.NewClientset(before.Claim, before.Volume)
			s := New(client, func(types.UID, time.Duration) { t.Error("it waits") })
			known, err := s.Get(t.Context(), pod, volume)
			if err != nil {
				t.Fatal(err)
			}
			known.at = known.at.Add(-tc.age)
			s.remember(target, known)
			if tc.change != nil {
				tc.change(after)
			}
			client = fake.NewClientset(after.Claim, after.Volume)
			if tc.gone {
				client = fake.NewClientset()
			}
			s.client = client
			got, err := s.Get(t.Context(), pod, volume)
			if err != nil || got.Claim.UID != "claim-uid" || got.Volume.Spec.Capacity.Storage().String() != tc.size {
				t.Errorf("%s\nGet() = %v, %v", tc.reason, got, err)
			}
			if n := len(client.Actions()); n != tc.requests {
				t.Errorf("%s\n%d requests, want %d", tc.reason, n, tc.requests)
			}
			s.Forget(pod.UID)
			if known := s.Known(target); known.Claim != nil {
				t.Errorf("after Forget there is %v", known)
			}
		})
	}
}

// TestGetWaits ever longer for a claim that is not bound.
func TestGetWaits(t *testing.T) {
	b := bound()
	b.Claim.Status.Phase = v1.ClaimPending
	client := fake.NewClientset([]runtime.Object{b.Claim, b.Volume}...)
	var after time.Duration
	s := New(client, func(_ types.UID, d time.Duration) { after = d })
	for _, tc := range []struct{ waited, least, most time.Duration }{
		{0, retryMin, 2 * retryMin}, {2 * time.Second, time.Second, 2 * time.Second}, {time.Hour, retryMax, retryMax},
	} {
		s.remember(target, Bound{at: time.Now().Add(-tc.waited)})
		_, err := s.Get(t.Context(), pod, volume)
		if _, ok := errors.AsType[WaitingError](err); !ok || after < tc.least || after > tc.most {
			t.Errorf("after %v: %v, again after %v", tc.waited, err, after)
		}
	}
}

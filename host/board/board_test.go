package board

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestBoard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		b := New("etcd", "kubelet")
		upAt := make(chan time.Time, 1)
		go func() {
			if err := b.WaitUp(t.Context(), []string{"kubelet"}); err == nil {
				upAt <- time.Now()
			}
		}()

		b.Set("kubelet", Starting, nil)
		time.Sleep(time.Second)
		b.Set("kubelet", Down, errors.New("no runtime"))
		time.Sleep(time.Second)
		b.Set("kubelet", Starting, nil)
		time.Sleep(3 * time.Second)
		b.Set("kubelet", Up, nil)
		if got := (<-upAt).Sub(start); got != 5*time.Second {
			t.Errorf("WaitUp returned after %s, want 5s", got)
		}

		failed := start.Add(time.Second)
		want := []Part{
			{Name: "etcd", State: Waiting, Since: start},
			{
				Name: "kubelet", State: Up, Since: start.Add(5 * time.Second), Took: 3 * time.Second,
				LastError: "no runtime", LastErrorTime: &failed, Restarts: 1,
			},
		}
		got, _ := b.Snapshot()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Snapshot(): -want, +got:\n%s", diff)
		}
	})
}

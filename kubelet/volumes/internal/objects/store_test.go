package objects

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

var errForbidden = apierrors.NewForbidden(v1.Resource("configmaps"), "cm", errors.New("no relationship found between node and this object"))

func TestRetry(t *testing.T) {
	cases := map[string]struct {
		reason  string
		errs    []error
		forGood bool // the last error is for good
		asked   int
	}{
		"Known":       {reason: "no waiting when the answer comes", asked: 1},
		"Behind":      {reason: "the authorizer learns of the Pod a moment later", errs: []error{errForbidden, errForbidden}, asked: 3},
		"PodUnknown":  {reason: "as does the admission of tokens", errs: []error{apierrors.NewNotFound(v1.Resource("pods"), "p")}, asked: 2},
		"NoAccount":   {reason: "something else that is missing is missing", errs: []error{apierrors.NewNotFound(v1.Resource("serviceaccounts"), "a")}, forGood: true, asked: 1},
		"OtherErrors": {reason: "other failures are for the caller", errs: []error{errors.New("broken")}, forGood: true, asked: 1},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := 0
				_, err := Retry(PodUnknown, func() (int, error) {
					asked++
					if asked <= len(tc.errs) {
						return 0, tc.errs[asked-1]
					}
					return 1, nil
				})
				if asked != tc.asked || (err != nil) != tc.forGood {
					t.Errorf("%s: asked %d times, want %d; error %v", tc.reason, asked, tc.asked, err)
				}
			})
		})
	}
}

func TestRetryEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, err := Retry(PodUnknown, func() (int, error) { return 0, errForbidden })
		if took := time.Since(began); !apierrors.IsForbidden(err) || took < 500*time.Millisecond || took > 3*time.Second {
			t.Errorf("gave up with %v after %v, want forbidden after about a second", err, took)
		}
	})
}

// api is an API server with one ConfigMap whose watch the test holds.
type api struct {
	*Store
	client  *fake.Clientset
	watches chan *watch.FakeWatcher
	changed chan []types.UID
}

func newAPI(t *testing.T, cm *v1.ConfigMap) *api {
	t.Helper()
	a := &api{client: fake.NewClientset(), watches: make(chan *watch.FakeWatcher, 10), changed: make(chan []types.UID, 10)}
	if cm != nil {
		a.set(cm)
	}
	a.client.PrependWatchReactor("*", func(clienttesting.Action) (bool, watch.Interface, error) {
		w := watch.NewFake()
		a.watches <- w
		return true, w, nil
	})
	a.Store = New(a.client, func(holders []types.UID) { a.changed <- holders })
	return a
}

// set what the next Get returns.
func (a *api) set(cm *v1.ConfigMap) {
	a.client.PrependReactor("get", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) { return true, cm, nil })
}

func configMap(version, value string) *v1.ConfigMap {
	return &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "cm", Namespace: "ns", UID: "1", ResourceVersion: version}, Data: map[string]string{"k": value}}
}

var key = Key{Kind: ConfigMap, Namespace: "ns", Name: "cm"}

func (a *api) expect(t *testing.T, want string) {
	t.Helper()
	cm, err := a.ConfigMap(t.Context(), "ns", "cm")
	switch {
	case want == "" && !apierrors.IsNotFound(err):
		t.Errorf("ConfigMap() = %v, %v, want not found", cm, err)
	case want != "" && (err != nil || cm.Data["k"] != want):
		t.Errorf("ConfigMap() = %v, %v, want %s", cm, err, want)
	}
}

func TestWatchFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t, configMap("5", "five"))
		a.Hold("pod", []Key{key})
		a.expect(t, "five")
		w := <-a.watches
		// The watch begins with what the server's cache has, which may be older.
		w.Add(configMap("4", "four"))
		w.Add(configMap("5", "five"))
		synctest.Wait()
		a.expect(t, "five")
		if len(a.changed) != 0 {
			t.Error("changed was called without a change")
		}
		w.Modify(configMap("6", "six"))
		<-a.changed
		a.expect(t, "six")
		w.Delete(configMap("7", "six"))
		<-a.changed
		a.expect(t, "")
		w.Add(configMap("8", "eight"))
		<-a.changed
		a.expect(t, "eight")
		// A watch that ends is begun again after another read.
		a.set(configMap("9", "nine"))
		w.Stop()
		<-a.changed
		a.expect(t, "nine")
		w = <-a.watches
		w.Error(&metav1.Status{Reason: metav1.StatusReasonExpired, Code: 410})
		a.set(configMap("10", "ten"))
		<-a.changed
		a.expect(t, "ten")
		a.Close()
	})
}

func TestFailureKeepsWhatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t, configMap("1", "one"))
		a.Hold("pod", []Key{key})
		a.expect(t, "one")
		a.client.PrependReactor("get", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, errors.New("the API server is down")
		})
		(<-a.watches).Stop()
		time.Sleep(time.Minute)
		synctest.Wait()
		a.expect(t, "one")
		a.Close()
	})
}

func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t, configMap("1", "one"))
		a.Hold("a", []Key{key})
		a.Hold("b", []Key{key})
		a.expect(t, "one")
		w := <-a.watches
		a.Hold("a", nil)
		synctest.Wait()
		w.Modify(configMap("2", "two"))
		if holders := <-a.changed; len(holders) != 1 || holders[0] != "b" {
			t.Errorf("changed %v, want only b, which still holds it", holders)
		}
		a.Hold("b", nil)
		synctest.Wait()
		if !w.IsStopped() || len(a.watches) != 0 {
			t.Error("the watch goes on though nobody holds the object")
		}
		a.expect(t, "one") // asked anew
		a.Close()
	})
}

func TestImmutableIsNotWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cm := configMap("1", "one")
		cm.Immutable = new(true)
		a := newAPI(t, cm)
		a.Hold("a", []Key{key})
		a.expect(t, "one")
		synctest.Wait()
		if len(a.watches) != 0 {
			t.Error("an object that cannot change is watched")
		}
		a.Close()
	})
}

func TestWaitingEndsWithTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t, nil)
		hang := make(chan struct{})
		a.client.PrependReactor("get", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) {
			<-hang
			return true, configMap("1", "one"), nil
		})
		a.Hold("a", []Key{key})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.ConfigMap(ctx, "ns", "cm"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ConfigMap() = %v, want the caller's deadline", err)
		}
		close(hang)
		a.Close()
	})
}

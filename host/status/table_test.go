package status

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		table := &Table{}
		_, kubelet := table.Add("etcd"), table.Add("kubelet")
		upAt := make(chan time.Time, 1)
		go func() {
			if err := table.WaitUp(t.Context(), []*Entry{kubelet}); err == nil {
				upAt <- time.Now()
			}
		}()

		kubelet.Set(Starting, nil)
		time.Sleep(time.Second)
		kubelet.Set(Down, errors.New("no runtime"))
		time.Sleep(time.Second)
		kubelet.Set(Starting, nil)
		time.Sleep(3 * time.Second)
		kubelet.Up()
		if got := (<-upAt).Sub(start); got != 5*time.Second {
			t.Errorf("WaitUp returned after %s, want 5s", got)
		}

		failed := start.Add(time.Second)
		want := []Component{
			{Name: "etcd", State: Waiting, Since: start},
			{
				Name: "kubelet", State: Up, Since: start.Add(5 * time.Second), Took: 3 * time.Second,
				LastError: "no runtime", LastErrorTime: &failed, Restarts: 1,
			},
		}
		got, _, _ := table.Snapshot()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Snapshot(): -want, +got:\n%s", diff)
		}
	})
}

// TestReport: an error that a component goes on after does not take it down.
func TestReport(t *testing.T) {
	table := &Table{}
	e := table.Add("kubelet")
	for _, state := range []State{Starting, Up} {
		e.Set(state, nil)
		e.Report(errors.New(string(state)))
		if got, _, _ := table.Snapshot(); got[0].State != state || got[0].LastError != string(state) {
			t.Errorf("reported while %s: %+v", state, got[0])
		}
	}
}

func TestSettled(t *testing.T) {
	broken := errors.New("no port")
	tests := map[string]struct {
		reason            string
		dns, kubelet      State
		dnsErr            error
		settled, wasReady bool
		notUp             string
	}{
		"AllUp":       {"Nothing is left to wait for.", Up, Up, nil, true, true, ""},
		"NodeStarts":  {"The node is what is waited for.", Up, Starting, nil, false, false, "kubelet is starting: "},
		"NodeRetries": {"The kubelet is started again after an error.", Up, Down, nil, false, false, "kubelet is down: "},
		"OtherWaits":  {"A Pod needs its Services too.", Waiting, Up, nil, false, true, "dns is waiting: "},
		"OtherFailed": {"What has failed may go on failing for ever.", Down, Up, broken, true, true, "dns is down: no port"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table := &Table{}
				dns, kubelet := table.Add("dns"), table.Add("kubelet").Require()
				kubelet.Set(Starting, nil)
				time.Sleep(time.Second)
				dns.Set(tc.dns, tc.dnsErr)
				kubelet.Set(tc.kubelet, nil)
				components, settled, _ := table.Snapshot()
				if wasReady := table.WasReady(); settled != tc.settled || wasReady != tc.wasReady {
					t.Errorf("%s\nsettled is %t, WasReady() = %t", tc.reason, settled, wasReady)
				}
				var notUp string
				if err := NotUp(components); err != nil {
					notUp = err.Error()
				}
				if notUp != tc.notUp {
					t.Errorf("%s\nNotUp() = %q, want %q", tc.reason, notUp, tc.notUp)
				}
			})
		})
	}
}

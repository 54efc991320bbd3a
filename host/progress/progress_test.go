package progress

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flyball.dev/host/status"
)

func TestShow(t *testing.T) {
	var out bytes.Buffer
	p := &Printer{out: &out, printed: map[string]status.State{}}
	etcd := status.Component{Name: "etcd", State: status.Up, Took: 240 * time.Millisecond}
	p.Show([]status.Component{{Name: "etcd", State: status.Starting}, {Name: "dns", State: status.Waiting}})
	p.Show([]status.Component{etcd, {Name: "dns", State: status.Down, LastError: "no address"}})
	p.Show([]status.Component{etcd, {Name: "dns", State: status.Starting}})
	p.Show([]status.Component{etcd, {Name: "dns", State: status.Up, Took: time.Second}})
	want := "" +
		" ✓ etcd                                0.2s\n" +
		" ✗ dns                               no address\n" +
		" ✓ dns                                 1.0s\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("plain lines: -want, +got:\n%s", diff)
	}
}

package progress

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flyball.dev/host/board"
)

func TestShow(t *testing.T) {
	var out bytes.Buffer
	p := &Printer{out: &out, printed: map[string]board.State{}}
	etcd := board.Part{Name: "etcd", State: board.Up, Took: 240 * time.Millisecond}
	p.Show([]board.Part{{Name: "etcd", State: board.Starting}, {Name: "dns", State: board.Waiting}})
	p.Show([]board.Part{etcd, {Name: "dns", State: board.Down, LastError: "no address"}})
	p.Show([]board.Part{etcd, {Name: "dns", State: board.Starting}})
	p.Show([]board.Part{etcd, {Name: "dns", State: board.Up, Took: time.Second}})
	want := "" +
		" ✓ etcd                                0.2s\n" +
		" ✗ dns                               no address\n" +
		" ✓ dns                                 1.0s\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("plain lines: -want, +got:\n%s", diff)
	}
}

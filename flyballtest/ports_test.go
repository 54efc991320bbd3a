package flyballtest

import "testing"

// Ports that are held are given to nobody else, and those that were let go are free at once.
func TestPorts(t *testing.T) {
	held := map[int]*port{}
	for range 500 {
		p, err := newPort()
		if err != nil {
			t.Fatal(err)
		}
		if held[p.number] != nil {
			t.Fatalf("port %d was given twice", p.number)
		}
		held[p.number] = p
	}
	for _, p := range held {
		p.release()
	}
}

package pod

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/samber/lo"
)

// gateStay is how long a call counts. A call that takes longer waits for something else, such as a
// CNI plugin or a disk, and must not keep other Pods from starting.
const gateStay = 5 * time.Second

// gate bounds the number of expensive calls of the runtime. Starting a container goes before
// creating a sandbox, so that in a burst the first Pods run early instead of all Pods at the end.
type gate struct {
	mu      sync.Mutex
	free    int
	waiting [2][]chan struct{} // by priority, urgent ones first
}

func newGate(n int) *gate { return &gate{free: n} }

func (g *gate) enter(ctx context.Context, urgent bool) (leave func(), err error) {
	g.mu.Lock()
	if g.free > 0 {
		g.free--
		g.mu.Unlock()
		return g.stay(), nil
	}
	lane := lo.Ternary(urgent, 0, 1)
	ready := make(chan struct{})
	g.waiting[lane] = append(g.waiting[lane], ready)
	g.mu.Unlock()
	select {
	case <-ready:
		return g.stay(), nil
	case <-ctx.Done():
		g.giveUp(lane, ready)
		return nil, ctx.Err()
	}
}

// stay returns the function that gives the place back, as gateStay does by itself.
func (g *gate) stay() (leave func()) {
	once := sync.OnceFunc(g.leave)
	timer := time.AfterFunc(gateStay, once)
	return func() { timer.Stop(); once() }
}

func (g *gate) giveUp(lane int, ready chan struct{}) {
	g.mu.Lock()
	i := slices.Index(g.waiting[lane], ready)
	if i >= 0 {
		g.waiting[lane] = slices.Delete(g.waiting[lane], i, i+1)
	}
	g.mu.Unlock()
	if i < 0 { // the place was given at the same moment
		g.leave()
	}
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for lane, queue := range g.waiting {
		if len(queue) > 0 {
			g.waiting[lane] = queue[1:]
			close(queue[0])
			return
		}
	}
	g.free++
}

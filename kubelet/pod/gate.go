package pod

import (
	"context"
	"sync"
	"time"
)

// gateStay is how long a call counts. One that takes longer waits for something (a CNI plugin, a
// disk), and must not keep other Pods from starting.
const gateStay = 5 * time.Second

// gate bounds how many expensive calls of the runtime are under way. Starting a container goes
// before creating a sandbox, so that in a burst the first Pods get done instead of all Pods getting
// half-way.
type gate struct {
	mu      sync.Mutex
	free    int
	waiting [2][]chan struct{} // by priority, urgent ones first
}

func newGate(n int) *gate { return &gate{free: n} }

// enter waits for a place and returns the function that gives it back.
func (g *gate) enter(ctx context.Context, urgent bool) (leave func(), err error) {
	g.mu.Lock()
	if g.free > 0 {
		g.free--
		g.mu.Unlock()
		return g.stay(), nil
	}
	lane := 1
	if urgent {
		lane = 0
	}
	turn := make(chan struct{})
	g.waiting[lane] = append(g.waiting[lane], turn)
	g.mu.Unlock()
	select {
	case <-turn:
		return g.stay(), nil
	case <-ctx.Done():
		g.giveUp(lane, turn)
		return nil, ctx.Err()
	}
}

// stay returns the function that gives the place back, which happens by itself after a while.
func (g *gate) stay() (leave func()) {
	once := sync.OnceFunc(g.leave)
	timer := time.AfterFunc(gateStay, once)
	return func() {
		timer.Stop()
		once()
	}
}

func (g *gate) giveUp(lane int, turn chan struct{}) {
	g.mu.Lock()
	for i, t := range g.waiting[lane] {
		if t == turn {
			g.waiting[lane] = append(g.waiting[lane][:i], g.waiting[lane][i+1:]...)
			g.mu.Unlock()
			return
		}
	}
	g.mu.Unlock()
	g.leave() // its turn came at the same moment
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

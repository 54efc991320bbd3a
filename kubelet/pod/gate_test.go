package pod

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		leave, err := g.enter(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		order := make(chan string, 3)
		wait := func(name string, urgent bool) {
			go func() {
				leave, err := g.enter(t.Context(), urgent)
				if err != nil {
					return
				}
				order <- name
				leave()
			}()
			synctest.Wait()
		}
		wait("sandbox", false)
		wait("container", true)
		quitter, quit := context.WithCancel(t.Context())
		go func() {
			if _, err := g.enter(quitter, true); err == nil {
				t.Error("one that gave up was let in")
			}
		}()
		synctest.Wait()
		quit()
		synctest.Wait()
		leave()
		if first, second := <-order, <-order; first != "container" || second != "sandbox" {
			t.Errorf("%s went before %s", first, second)
		}

		stuck, err := g.enter(t.Context(), false) // does not leave
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		next, err := g.enter(t.Context(), false)
		if err != nil || time.Since(begun) != gateStay {
			t.Errorf("the next waited %s, %v", time.Since(begun), err)
		}
		next()
		stuck()
		if g.free != 1 {
			t.Errorf("%d places are free", g.free)
		}
	})
}

package proxy

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"flyball.dev/nft"
)

func TestAffinity(t *testing.T) {
	l := newLab(t)
	l.serve(8080)
	sticky := func(seconds uint32, pods ...int) Service {
		return web(func(p *ServicePort) { p.Affinity, p.NodePort = seconds, 30080 }, pods...)
	}
	l.set(sticky(60, 0, 1, 2))
	for _, to := range []string{webIP, nodePort} {
		first, err := l.client.ask("tcp", to)
		must(t, err)
		l.expect(l.client, "tcp", to, 30, gatewayIP, first.pod)
		must(t, l.table.rebuild(l.state.All())) // a restart
		l.expect(l.client, "tcp", to, 10, gatewayIP, first.pod)
		var others []int
		for i := range 3 {
			if fmt.Sprint(i) != first.pod {
				others = append(others, i)
			}
		}
		l.set(sticky(60, others...)) // its endpoint goes away
		second, err := l.client.ask("tcp", to)
		must(t, err)
		l.expect(l.client, "tcp", to, 30, gatewayIP, second.pod)
		l.set(sticky(60, 0, 1, 2))
		l.expect(l.client, "tcp", to, 10, gatewayIP, second.pod)
	}
	// An endpoint that returns gets no client back, whichever of the two comes first.
	for _, pods := range [][2]int{{0, 1}, {1, 0}} {
		l.set(sticky(60, pods[0]))
		for _, network := range both {
			l.expect(l.pods[2], network, webIP, 2, podIP(2), fmt.Sprint(pods[0]))
		}
		l.set(sticky(60, pods[1]))
		for _, network := range both {
			l.expect(l.pods[2], network, webIP, 2, podIP(2), fmt.Sprint(pods[1]))
		}
		l.set(sticky(60, 0, 1))
		for _, network := range both {
			l.expect(l.pods[2], network, webIP, 10, podIP(2), fmt.Sprint(pods[1]))
		}
		must(t, l.table.rebuild(l.state.All())) // a restart
		l.expect(l.pods[2], "tcp", webIP, 10, podIP(2), fmt.Sprint(pods[1]))
	}
	// After its time a client is as good as unknown.
	l.set(Service{Name: "default/web"})
	l.set(sticky(1, 0, 1, 2))
	first, err := l.pods[0].ask("udp", webIP)
	must(t, err)
	deadline := time.Now().Add(20 * time.Second)
	for {
		if a, err := l.pods[0].ask("udp", webIP); err == nil && a.pod != first.pod {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the affinity of one second did not end")
		}
		pause(1100 * time.Millisecond)
	}
}

// TestAffinityExpired: the error for an entry that expires between reading and deleting differs
// from others.
func TestAffinityExpired(t *testing.T) {
	l := newLab(t)
	tx := l.table.transaction()
	tx.DeleteElements(clients(l.table.fam), nft.Element{Key: nft.Data(make([]byte, 20))})
	if err := l.table.kernel.Apply(tx); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("deleting what has gone: got %v, want that it does not exist", err)
	}
}

// TestAffinityEntries reads what the kernel remembers: one entry for a client of a frontend, which
// begins anew with each connection and goes with its endpoint.
func TestAffinityEntries(t *testing.T) {
	l := newLab(t)
	l.serve(8080)
	sticky := func(pods ...int) Service {
		return web(func(p *ServicePort) { p.Affinity, p.NodePort = 60, 30080 }, pods...)
	}
	entries := func() []nft.Element {
		t.Helper()
		known, err := l.table.kernel.Elements(l.table.name, clients(l.table.fam))
		must(t, err)
		return slices.DeleteFunc(known, func(e nft.Element) bool { return e.Expires <= 0 })
	}
	l.set(sticky(0, 1, 2))
	for range 10 { // a frontend after the other, so that none is known by the other's name
		for _, to := range []string{webIP, nodePort} {
			_, err := l.client.ask("tcp", to)
			must(t, err)
		}
	}
	if n := len(entries()); n != 2 {
		t.Fatalf("one client of two frontends has %d entries", n)
	}
	left := func() time.Duration {
		known := entries()
		return min(known[0].Expires, known[1].Expires)
	}
	before := left()
	for before > 59*time.Second { // until the kernel's clock shows a difference
		pause(10 * time.Millisecond)
		before = left()
	}
	for _, to := range []string{webIP, nodePort} {
		_, err := l.client.ask("tcp", to)
		must(t, err)
	}
	if after := left(); after <= before {
		t.Errorf("%v were left, and %v after another connection", before, after)
	}
	for name, change := range map[string]func(){
		"its endpoint went":  func() { l.set(sticky()) },
		"affinity was taken": func() { l.set(web(func(p *ServicePort) { p.NodePort = 30080 }, 0, 1, 2)) },
		"the Service went":   func() { l.set(Service{Name: "default/web"}) },
		"its endpoint went while Flyball was away": func() {
			l.state.Set("default/web", l.state.PlanService(sticky(), nil))
			must(t, l.table.rebuild(l.state.All()))
		},
	} {
		l.set(sticky(0, 1, 2))
		_, err := l.client.ask("tcp", webIP)
		must(t, err)
		if change(); len(entries()) > 0 {
			t.Errorf("after %s there are still %v", name, entries())
		}
	}
}

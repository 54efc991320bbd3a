package proxy

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"flyball.dev/nft"
)

// many is n Services with two endpoints each.
func many(n int) []Service {
	services := make([]Service, n)
	for i := range services {
		services[i] = Service{Name: fmt.Sprintf("bench/svc-%05d", i), Ports: []ServicePort{{
			ClusterIP: netip.AddrFrom4([4]byte{10, 43, byte(i >> 8), byte(i)}), Protocol: TCP, Port: 80,
			Endpoints: benchEndpoints(i, 2),
		}}}
	}
	return services
}

func benchEndpoints(i, n int) []Endpoint {
	var out []Endpoint
	for e := range n {
		addr := netip.AddrFrom4([4]byte{10, 42, byte((2*i + e) >> 8), byte(2*i + e)})
		out = append(out, Endpoint{Addr: netip.AddrPortFrom(addr, uint16(8000+e)), Ready: true, Serving: true, Local: i%100 == 0})
	}
	return out
}

func benchKernel(b *testing.B) *table {
	b.Helper()
	if os.Getuid() != 0 {
		b.Skip("network namespaces need root")
	}
	return newTable(testConfig(), nft.Kernel{NetNS: int(newSpace(b).ns)})
}

// BenchmarkFirstSync plans 10,000 Services and writes them to an empty kernel.
func BenchmarkFirstSync(b *testing.B) {
	k, services := benchKernel(b), many(10_000)
	for b.Loop() {
		b.StopTimer()
		must(b, k.remove())
		runtime.GC()
		b.StartTimer()
		state := NewState()
		for _, svc := range services {
			state.Set(svc.Name, state.PlanService(svc, nil))
		}
		must(b, k.rebuild(state.All()))
	}
}

// BenchmarkRestart does the same over the table of a former life.
func BenchmarkRestart(b *testing.B) {
	k, services := benchKernel(b), many(10_000)
	for b.Loop() {
		state := NewState()
		for _, svc := range services {
			state.Set(svc.Name, state.PlanService(svc, nil))
		}
		must(b, k.rebuild(state.All()))
	}
}

// BenchmarkOneMore adds a Service to 10,000, which stand, and removes it again:
// two changes.
func BenchmarkOneMore(b *testing.B) {
	benchmarkChange(b, func(extra Service, i int) Service {
		if i%2 == 1 {
			extra.Ports = nil
		}
		return extra
	})
}

// BenchmarkReplaceEndpoint changes one endpoint of one Service among 10,000.
func BenchmarkReplaceEndpoint(b *testing.B) {
	benchmarkChange(b, func(extra Service, i int) Service {
		extra.Ports[0].Endpoints = benchEndpoints(10_001+i%2, 2)
		return extra
	})
}

// BenchmarkScale changes the number of endpoints of one Service among 10,000.
func BenchmarkScale(b *testing.B) {
	benchmarkChange(b, func(extra Service, i int) Service {
		extra.Ports[0].Endpoints = benchEndpoints(10_001, 2+i%2)
		return extra
	})
}

func benchmarkChange(b *testing.B, change func(Service, int) Service) {
	b.Helper()
	k, services := benchKernel(b), many(10_001)
	state := NewState()
	for _, svc := range services[:10_000] {
		state.Set(svc.Name, state.PlanService(svc, nil))
	}
	must(b, k.rebuild(state.All()))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	services = services[10_000:]
	i := 0
	for b.Loop() {
		svc := change(services[0], i)
		i++
		state.Set(svc.Name, state.PlanService(svc, nil))
		must(b, k.apply(state.Take()))
	}
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(before.HeapAlloc)/(1<<20), "MB-heap")
}

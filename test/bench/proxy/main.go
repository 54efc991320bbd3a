// Command proxy measures Flyball's service proxy, and kube-proxy in its nftables mode if -upstream
// names it: the time until all Services of a large cluster work, the time until one Service more
// works, memory and CPU.
//
//	go run ./test/bench/proxy [-services 10000] [-upstream PATH-OF-KUBE-PROXY]
//
// Each side runs as a process of its own in a network namespace of its own, with the same API
// server: a simulated one, in the process beside it, which lists and watches as a real one does. A
// Service works when a connection to its address arrives. It needs root; kube-proxy needs the
// program nft.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"flyball.dev/proxy"
	"flyball.dev/test/internal/program"
)

const (
	apiAddress = "127.0.0.1:16443"
	nodeName   = "bench"
	backend    = 8080
)

type options struct {
	services, endpoints, more int
	upstream, role            string
}

func main() {
	var o options
	flag.IntVar(&o.services, "services", 10_000, "Services that are there at the start")
	flag.IntVar(&o.endpoints, "endpoints", 2, "endpoints of each")
	flag.IntVar(&o.more, "more", 20, "Services added one at a time")
	flag.StringVar(&o.upstream, "upstream", "", "kube-proxy's binary; without it only Flyball is measured")
	flag.StringVar(&o.role, "role", "", "what this process is to be: for the program itself")
	flag.Parse()
	program.Main("bench", func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) error {
	if o.role == "proxy" {
		klog.LogToStderr(true)
		return proxy.Run(ctx, proxy.Config{
			NodeName: nodeName, NodeIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
			Client:       &rest.Config{Host: "http://" + apiAddress, QPS: -1},
			ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")},
			ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16")},
		})
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	sides := []side{{"flyball", []string{self, "-role", "proxy"}}}
	if o.upstream != "" {
		sides = append(sides, side{"kube-proxy", []string{
			o.upstream, "--proxy-mode=nftables", "--master=http://" + apiAddress,
			"--hostname-override=" + nodeName, "--cluster-cidr=10.42.0.0/16", "--v=0", "--bind-address=192.0.2.1",
			"--conntrack-max-per-core=0",
		}})
	}
	var results []figures
	for _, s := range sides {
		f, err := s.measure(ctx, o)
		if err != nil {
			return fmt.Errorf("measuring %s: %w", s.name, err)
		}
		results = append(results, f)
	}
	report(o, sides, results)
	return nil
}

type side struct {
	name    string
	command []string
}

type figures struct {
	first    time.Duration   // process start to the last Service working
	more     []time.Duration // API event to the Service working
	memory   float64         // resident, MiB
	cpuFirst time.Duration   // of the start
	cpuMore  time.Duration   // per Service added
}

// measure runs one side in a fresh network namespace.
func (s side) measure(ctx context.Context, o options) (f figures, err error) {
	// The thread of this goroutine changes its namespace and ends with it.
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f, err = s.inNamespace(ctx, o)
	}()
	<-done
	return f, err
}

func (s side) inNamespace(ctx context.Context, o options) (f figures, err error) {
	ns, err := netns.New()
	if err != nil {
		return f, fmt.Errorf("creating a network namespace (root is needed): %w", err)
	}
	defer ns.Close()
	if err := network(o.endpoints); err != nil {
		return f, err
	}
	cluster := newCluster(o.services, o.endpoints)
	api, err := cluster.serve(ctx)
	if err != nil {
		return f, err
	}
	defer api.Close()
	listener, err := net.Listen("tcp4", fmt.Sprintf(":%d", backend))
	if err != nil {
		return f, fmt.Errorf("listening as the endpoint: %w", err)
	}
	defer listener.Close()
	go accept(listener)

	cmd := exec.Command(s.command[0], s.command[1:]...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return f, fmt.Errorf("starting %s: %w", s.command[0], err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if err != nil {
			err = fmt.Errorf("%w; it logged: %s", err, tail(log.String()))
		}
	}()
	if err := works(ctx, address(o.services-1), 2*time.Minute); err != nil {
		return f, err
	}
	f.first = time.Since(start)
	time.Sleep(3 * time.Second) // what is left to do after the first sync is not the next one's
	_, f.cpuFirst = usage(cmd.Process.Pid)
	for i := range o.more {
		start = time.Now()
		cluster.add(o.services + i)
		if err := works(ctx, address(o.services+i), time.Minute); err != nil {
			return f, err
		}
		f.more = append(f.more, time.Since(start))
		time.Sleep(200 * time.Millisecond)
	}
	memory, after := usage(cmd.Process.Pid)
	f.memory, f.cpuMore = memory, (after-f.cpuFirst)/time.Duration(o.more)
	return f, nil
}

// network gives the namespace the addresses of all endpoints, because what is measured is not the
// way to them, and a route for connections to Services to take before they are translated. Nothing
// can leave: the only link is a bridge without ports.
func network(endpoints int) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding lo: %w", err)
	}
	link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "bench0"}}
	err = errors.Join(netlink.LinkSetUp(lo), netlink.LinkAdd(link), netlink.LinkSetUp(link))
	cidrs := []string{"192.0.2.1/24"}
	for e := range endpoints {
		cidrs = append(cidrs, endpointIP(e)+"/16")
	}
	for _, cidr := range cidrs {
		addr, _ := netlink.ParseAddr(cidr)
		err = errors.Join(err, netlink.AddrAdd(link, addr))
	}
	_, services, _ := net.ParseCIDR("10.43.0.0/16")
	err = errors.Join(err, netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: services, Src: net.ParseIP("192.0.2.1")}))
	if err != nil {
		return fmt.Errorf("setting the network up: %w", err)
	}
	return nil
}

func accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		c.Close()
	}
}

// works waits until a connection to a Service arrives, on this very thread, whose namespace it is.
func works(ctx context.Context, to string, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	for ctx.Err() == nil {
		c, err := (&net.Dialer{Timeout: 20 * time.Millisecond}).Dial("tcp4", to)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waiting for Service %s: %w", to, err)
		}
		time.Sleep(time.Millisecond)
	}
	return ctx.Err()
}

// usage reads the resident memory in MiB and the CPU time of a process and of the children that it
// waited for.
func usage(pid int) (float64, time.Duration) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	var memory float64
	status, _ := os.ReadFile(dir + "status")
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			memory, _ = strconv.ParseFloat(strings.Fields(rest)[0], 64)
		}
	}
	stat, _ := os.ReadFile(dir + "stat")
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	ticks := 0
	for _, i := range []int{11, 12, 13, 14} { // utime, stime, and those of children
		if i < len(fields) {
			n, _ := strconv.Atoi(fields[i])
			ticks += n
		}
	}
	return memory / 1024, time.Duration(ticks) * 10 * time.Millisecond
}

func tail(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

func report(o options, sides []side, results []figures) {
	fmt.Printf("%d Services with %d endpoints each, %d CPUs\n", o.services, o.endpoints, runtime.NumCPU())
	row := func(what string, value func(figures) float64, format string) {
		fmt.Printf("%-36s", what)
		for i := range sides {
			fmt.Printf("%16s", fmt.Sprintf(format, value(results[i])))
		}
		if len(sides) == 2 {
			fmt.Printf("%10.3f", value(results[0])/value(results[1]))
		}
		fmt.Println()
	}
	fmt.Printf("%-36s", "")
	for _, s := range sides {
		fmt.Printf("%16s", s.name)
	}
	fmt.Println()
	row("start to all Services working", func(f figures) float64 { return f.first.Seconds() }, "%.2f s")
	row("CPU of the start", func(f figures) float64 { return f.cpuFirst.Seconds() }, "%.2f s")
	row("one Service more, median", func(f figures) float64 { return quantile(f.more, 0.5) }, "%.1f ms")
	row("one Service more, slowest", func(f figures) float64 { return quantile(f.more, 1) }, "%.1f ms")
	row("CPU of one Service more", func(f figures) float64 { return float64(f.cpuMore.Microseconds()) / 1000 }, "%.1f ms")
	row("resident memory", func(f figures) float64 { return f.memory }, "%.0f MiB")
}

func quantile(d []time.Duration, q float64) float64 {
	d = slices.Sorted(slices.Values(d))
	return float64(d[int(q*float64(len(d)-1))].Microseconds()) / 1000
}

package controlplane

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"k8s.io/client-go/transport"
)

// childEnv makes the test's program run a control plane instead of the tests: its value is a
// directory. Upstream's components can run only once in a process, and how it starts, stops and
// restarts is what there is to test.
const childEnv = "FLYBALL_TEST_CONTROLPLANE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		os.Exit(child(dir))
	}
	os.Exit(m.Run())
}

const testCRD = `---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: balls.test.flyball.dev}
spec:
  group: test.flyball.dev
  names: {kind: Ball, plural: balls}
  scope: Cluster
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
---
`

func testConfig(dir string) Config {
	port, _ := strconv.Atoi(os.Getenv(childEnv + "_PORT"))
	return Config{
		DataDir: filepath.Join(dir, "data"), RunDir: filepath.Join(dir, "run"),
		NodeName: "node1", NodeIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		BindAddress: netip.MustParseAddr("127.0.0.1"), Port: port,
		ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")}, ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16")},
		ClusterDNS: []netip.Addr{netip.MustParseAddr("10.43.0.10")}, ClusterDomain: "cluster.local",
		AdminKubeconfig: filepath.Join(dir, "admin.kubeconfig"),
		Manifests: []fs.FS{fstest.MapFS{
			"a/ball.yaml":          {Data: []byte("apiVersion: test.flyball.dev/v1\nkind: Ball\nmetadata: {name: b}\n")},
			"b/crd.yaml":           {Data: []byte(testCRD)},
			"b/kustomization.yaml": {Data: []byte("resources: [crd.yaml]\n")},
			"README":               {Data: []byte("not a manifest")},
		}},
	}
}

func child(dir string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until the test is over or has died
		stop()
	}()
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	v, _ := strconv.Atoi(os.Getenv(childEnv + "_V"))
	if err := LogTo(log, v); err != nil {
		panic(err)
	}
	go profiles(ctx, dir)
	start := time.Now()
	cfg := testConfig(dir)
	if life, err := time.ParseDuration(os.Getenv(childEnv + "_LIFE")); err == nil {
		cfg.certificateLife = life
		transport.CertCallbackRefreshDuration = time.Second
	}
	cfg.LogFile = log.Name()
	cfg.unguarded = os.Getenv(childEnv+"_UNGUARDED") != ""
	cfg.OutOfSpace = func(err error) {
		fmt.Println("restart", err)
		panic(syscall.Exec(os.Args[0], os.Args, os.Environ()))
	}
	cfg.Progress = func(part, state string, err error) {
		fmt.Println(time.Since(start).Milliseconds(), part, state, err)
	}
	if err := Run(ctx, cfg); err != nil {
		fmt.Println("error", err)
		return 1
	}
	fmt.Println(time.Since(start).Milliseconds(), "returned")
	return 0
}

// profiles writes dir/{goroutines,cpu,heap}.pprof at SIGUSR1 and calls Settle at SIGUSR2, to
// measure the costs of the whole control plane.
func profiles(ctx context.Context, dir string) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1, syscall.SIGUSR2)
	for {
		select {
		case <-ctx.Done():
			return
		case sig := <-c:
			if sig == syscall.SIGUSR2 {
				fmt.Println("settled", Settle())
				continue
			}
			if f, err := os.Create(filepath.Join(dir, "goroutines.pprof")); err == nil {
				_ = pprof.Lookup("goroutine").WriteTo(f, 0)
				f.Close()
			}
			if f, err := os.Create(filepath.Join(dir, "cpu.pprof")); err == nil {
				_ = pprof.StartCPUProfile(f)
				time.Sleep(30 * time.Second)
				pprof.StopCPUProfile()
				f.Close()
			}
			runtime.GC()
			if f, err := os.Create(filepath.Join(dir, "heap.pprof")); err == nil {
				_ = pprof.WriteHeapProfile(f)
				f.Close()
			}
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			fmt.Printf("heap %+v inuse %d stack %d sys %d goroutines %d\n", m.HeapAlloc>>20, m.HeapInuse>>20, m.StackInuse>>20, m.Sys>>20, runtime.NumGoroutine())
		}
	}
}

// Command nodes measures many simulated nodes: how long they take to be Ready, how long Pods take to be Ready on them, how
// long all of them take to go away, and how much memory that needs.
//
//	go run ./test/bench/nodes -bin bin -nodes 1000 -pods 10000
//
// By default everything runs in one process, as FLYBALL_ENVTEST=controllers,nodes=N has it: API server, controllers,
// scheduler, nodes. With -alone there are neither controllers nor a scheduler, the nodes run in this process, and Pods are
// bound when they are created, so that the memory of the nodes is seen by itself.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"flyball.dev/kubelet/simulated"
	"flyball.dev/test/internal/program"
)

const (
	// perDeployment is how many Pods one Deployment has.
	perDeployment = 100
	// patience is how long one step may take.
	patience = 20 * time.Minute
	// idle is how long the processor time of doing nothing is measured.
	idle = 30 * time.Second
	// tellEvery is how often progress is shown.
	tellEvery = 15 * time.Second
)

type options struct {
	bin         string
	nodes, pods int
	alone       bool
	profiles    string
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "directory with flyball's programs")
	flag.IntVar(&o.nodes, "nodes", 1000, "number of nodes")
	flag.IntVar(&o.pods, "pods", 10000, "number of Pods")
	flag.BoolVar(&o.alone, "alone", false, "without controllers and scheduler, nodes in this process")
	flag.StringVar(&o.profiles, "profiles", "", "directory for profiles of the API server's process")
	flag.Parse()
	program.Main("bench", func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) error {
	ctrllog.SetLogger(klog.Background()) // or controller-runtime complains
	assets, err := filepath.Abs(filepath.Join(o.bin, "envtest"))
	if err != nil {
		return fmt.Errorf("finding the programs: %w", err)
	}
	cluster := &envtest.Environment{BinaryAssetsDirectory: assets, ControlPlaneStartTimeout: patience}
	if o.alone {
		cluster.ControlPlane.GetAPIServer().Configure().Append("disable-admission-plugins", "ServiceAccount")
	} else {
		os.Setenv("FLYBALL_ENVTEST", "controllers,nodes="+strconv.Itoa(o.nodes))
	}
	begun := time.Now()
	cfg, err := cluster.Start()
	if err != nil {
		return fmt.Errorf("starting the API server: %w", err)
	}
	defer func() {
		begun := time.Now()
		if err := cluster.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stopping:", err)
		}
		say("stop of the API server and etcd", time.Since(begun))
	}()
	say("start of the API server", time.Since(begun))
	cfg.QPS = -1
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	if o.alone {
		stop, err := startNodes(ctx, cfg, o.nodes)
		if err != nil {
			return err
		}
		defer stop()
	}
	return measure(ctx, client, o)
}

// startNodes runs the nodes in this process.
func startNodes(ctx context.Context, cfg *rest.Config, n int) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	begun, ready, done := time.Now(), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- simulated.Run(ctx, simulated.Config{Client: cfg, Nodes: n, Ready: func() { close(ready) }})
	}()
	stop = func() {
		begun := time.Now()
		cancel()
		<-done
		say("stop of the nodes", time.Since(begun))
	}
	select {
	case <-ready:
	case err := <-done:
		cancel()
		return nil, err
	}
	say(fmt.Sprintf("%d nodes are Ready", n), time.Since(begun))
	return stop, nil
}

func measure(ctx context.Context, client kubernetes.Interface, o options) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := client.CoreV1().Namespaces().Create(ctx, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "bench"}}, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating a namespace: %w", err)
	}
	count, err := watch(ctx, client)
	if err != nil {
		return err
	}
	memory("nodes without Pods")
	begun := time.Now()
	profiled := profile(ctx, client, o.profiles, "start")
	if err := create(ctx, client, o); err != nil {
		return err
	}
	if err := count.until(ctx, func(ready, _ int) bool { return ready >= o.pods }); err != nil {
		return err
	}
	say(fmt.Sprintf("%d Pods are Ready", o.pods), time.Since(begun))
	memory("all Pods Ready")
	if err := profiled.Wait(); err != nil {
		return err
	}
	before := processorTime()
	time.Sleep(idle)
	fmt.Printf("%-40s %.1f %% of a core\n", "processor time while nothing happens", 100*(processorTime()-before).Seconds()/idle.Seconds())
	memory("after that")

	begun = time.Now()
	profiled = profile(ctx, client, o.profiles, "end")
	if err := remove(ctx, client, o); err != nil {
		return err
	}
	if err := count.until(ctx, func(_, all int) bool { return all == 0 }); err != nil {
		return err
	}
	say("all Pods are gone", time.Since(begun))
	memory("after that")
	return profiled.Wait()
}

// profile begins to write into dir where the process of the API server spends its time, and then what its memory and its
// goroutines are, and what it was asked.
func profile(ctx context.Context, client kubernetes.Interface, dir, when string) *errgroup.Group {
	g, ctx := errgroup.WithContext(ctx)
	if dir == "" {
		return g
	}
	g.Go(func() error {
		for _, path := range []string{"/debug/pprof/profile?seconds=40", "/debug/pprof/heap", "/debug/pprof/goroutine", "/metrics"} {
			raw, err := client.Discovery().RESTClient().Get().RequestURI(path).DoRaw(ctx)
			if err != nil {
				return fmt.Errorf("asking for %s: %w", path, err)
			}
			name, _, _ := strings.Cut(filepath.Base(path), "?")
			if err := os.WriteFile(filepath.Join(dir, when+"."+name), raw, 0o600); err != nil {
				return fmt.Errorf("writing a profile: %w", err)
			}
		}
		return nil
	})
	return g
}

func create(ctx context.Context, client kubernetes.Interface, o options) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(32)
	template := v1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "bench"}},
		Spec:       v1.PodSpec{Containers: []v1.Container{{Name: "main", Image: "example.org/app:1"}}},
	}
	if o.alone {
		for i := range o.pods {
			g.Go(func() error {
				p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%d", i)}, Spec: *template.Spec.DeepCopy()}
				p.Spec.NodeName = fmt.Sprintf("simulated-%d", i%o.nodes)
				_, err := client.CoreV1().Pods("bench").Create(ctx, p, metav1.CreateOptions{})
				return err
			})
		}
		return g.Wait()
	}
	for left, i := o.pods, 0; left > 0; left, i = left-perDeployment, i+1 {
		g.Go(func() error {
			name, replicas := fmt.Sprintf("d%d", i), int32(min(left, perDeployment))
			t := *template.DeepCopy()
			t.Labels["app"] = name
			_, err := client.AppsV1().Deployments("bench").Create(ctx, &appsv1.Deployment{
				ObjectMeta: metav1.ObjectMeta{Name: name},
				Spec:       appsv1.DeploymentSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: t.Labels}, Template: t},
			}, metav1.CreateOptions{})
			return err
		})
	}
	return g.Wait()
}

func remove(ctx context.Context, client kubernetes.Interface, o options) error {
	policy := metav1.DeletePropagationBackground
	deletion := metav1.DeleteOptions{PropagationPolicy: &policy}
	if o.alone {
		return client.CoreV1().Pods("bench").DeleteCollection(ctx, deletion, metav1.ListOptions{})
	}
	return client.AppsV1().Deployments("bench").DeleteCollection(ctx, deletion, metav1.ListOptions{})
}

// counter counts Pods as a watch tells of them.
type counter struct {
	store cache.Store
}

func watch(ctx context.Context, client kubernetes.Interface) (counter, error) {
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace("bench"), informers.WithTransform(slim))
	pods := factory.Core().V1().Pods().Informer()
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), pods.HasSynced) {
		return counter{}, fmt.Errorf("watching Pods: %w", ctx.Err())
	}
	return counter{pods.GetStore()}, nil
}

// slim keeps of a Pod what is counted.
func slim(obj any) (any, error) {
	if p, ok := obj.(*v1.Pod); ok {
		return runtime.Object(&v1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID, ResourceVersion: p.ResourceVersion},
			Status:     v1.PodStatus{Conditions: p.Status.Conditions},
		}), nil
	}
	return obj, nil
}

func (c counter) until(ctx context.Context, enough func(ready, all int) bool) error {
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	told := time.Now()
	for {
		ready := 0
		list := c.store.List()
		for _, obj := range list {
			for _, condition := range obj.(*v1.Pod).Status.Conditions {
				if condition.Type == v1.PodReady && condition.Status == v1.ConditionTrue {
					ready++
				}
			}
		}
		if enough(ready, len(list)) {
			return nil
		}
		if time.Since(told) > tellEvery {
			told = time.Now()
			fmt.Fprintf(os.Stderr, "%d Pods, %d Ready\n", len(list), ready)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting, with %d Pods of which %d are Ready: %w", len(list), ready, ctx.Err())
		case <-look.C:
		}
	}
}

func say(what string, took time.Duration) { fmt.Printf("%-40s %6.2f s\n", what, took.Seconds()) }

// family is this process and its children.
func family() map[string]string {
	own := strconv.Itoa(os.Getpid())
	found := map[string]string{own: "this process"}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		pid, rest, _ := strings.Cut(string(raw), " (")
		_, rest, _ = strings.Cut(rest, ") ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == own {
			line, _ := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
			name, _, _ := strings.Cut(string(line), "\x00")
			found[pid] = filepath.Base(name)
		}
	}
	return found
}

// memory prints what each process has resident.
func memory(when string) {
	for pid, name := range family() {
		raw, err := os.ReadFile(filepath.Join("/proc", pid, "status"))
		if err != nil {
			continue
		}
		resident, peak := "", ""
		for line := range strings.Lines(string(raw)) {
			switch name, value, _ := strings.Cut(line, ":"); name {
			case "VmRSS":
				resident = megabytes(value)
			case "VmHWM":
				peak = megabytes(value)
			}
		}
		fmt.Printf("%-40s %6s MB, at most %s MB\n", when+": "+name, resident, peak)
	}
}

func megabytes(value string) string {
	kilobytes, _ := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")))
	return strconv.Itoa(kilobytes / 1024)
}

// processorTime is what this process and its children have used.
func processorTime() time.Duration {
	const tick = 10 * time.Millisecond
	var sum time.Duration
	for pid := range family() {
		raw, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(raw), ") ")
		fields := strings.Fields(rest)
		if len(fields) < 13 {
			continue
		}
		for _, text := range fields[11:13] {
			n, _ := strconv.Atoi(text)
			sum += time.Duration(n) * tick
		}
	}
	return sum
}

// Command nodes measures many simulated nodes: how long they take to be Ready, how long Pods take to be Ready on them, how
// long all of them take to go away, and how much memory that needs.
//
//	go run ./test/bench/nodes -bin bin -nodes 1000 -pods 10000
//
// By default everything runs in one process, as FLYBALL_ENVTEST=controllers,nodes=N has it: API server, controllers,
// scheduler, nodes. Processor time is that of all processes, this one included. With -alone there are neither controllers nor a scheduler, the nodes run in this process, and Pods are
// bound when they are created, so that the memory of the nodes is seen by itself.
package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	nodeutil "k8s.io/component-helpers/node/util"
	"k8s.io/klog/v2"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"flyball.dev/simulated"
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
	cluster := &envtest.Environment{BinaryAssetsDirectory: assets} // with its own patience
	if o.alone {
		cluster.ControlPlane.GetAPIServer().Configure().Append("disable-admission-plugins", "ServiceAccount")
	} else {
		os.Setenv("FLYBALL_ENVTEST", "controllers,nodes="+strconv.Itoa(o.nodes))
	}
	begun := now()
	cfg, err := cluster.Start()
	if err != nil {
		return fmt.Errorf("starting the API server: %w", err)
	}
	defer func() {
		begun := now()
		if err := cluster.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stopping:", err)
		}
		fmt.Printf("%-36s %7.2f s\n", "stop of the API server and etcd", time.Since(begun.at).Seconds())
	}()
	begun.say("start of the API server")
	cfg.QPS = -1
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	if o.alone {
		begun = now()
		defer startNodes(ctx, cfg, o.nodes)()
	}
	return measure(ctx, client, o, begun)
}

// startNodes runs the nodes in this process.
func startNodes(ctx context.Context, cfg *rest.Config, n int) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := simulated.Run(ctx, simulated.Config{Client: cfg, Nodes: n}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}()
	return func() {
		begun := now()
		cancel()
		<-done
		begun.say("stop of the nodes")
	}
}

func measure(ctx context.Context, client kubernetes.Interface, o options, begun timer) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := client.CoreV1().Namespaces().Create(ctx, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "bench"}}, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating a namespace: %w", err)
	}
	nodes, pods, err := watch(ctx, client)
	if err != nil {
		return err
	}
	if err := nodes.until(ctx, func(ready, _ int) bool { return ready >= o.nodes }); err != nil {
		return err
	}
	begun.say(fmt.Sprintf("%d nodes are Ready", o.nodes))
	memory("nodes without Pods")

	begun = now()
	stop := profile(ctx, client, o.profiles, "start")
	if err := create(ctx, client, o); err != nil {
		return err
	}
	if err := pods.until(ctx, func(ready, _ int) bool { return ready >= o.pods }); err != nil {
		return err
	}
	begun.say(fmt.Sprintf("%d Pods are Ready", o.pods))
	memory("all Pods Ready")
	if err := stop(); err != nil {
		return err
	}

	begun = now()
	time.Sleep(idle)
	begun.say("nothing happens")
	memory("after that")

	begun = now()
	stop = profile(ctx, client, o.profiles, "end")
	if err := remove(ctx, client, o); err != nil {
		return err
	}
	if err := pods.until(ctx, func(_, all int) bool { return all == 0 }); err != nil {
		return err
	}
	begun.say("all Pods are gone")
	memory("after that")
	return stop()
}

// profile writes into dir, again and again until stop is called, where the process of the API server spends its time, what its
// memory and its goroutines are, and what it was asked.
func profile(ctx context.Context, client kubernetes.Interface, dir, when string) (stop func() error) {
	if dir == "" {
		return func() error { return nil }
	}
	ctx, cancel := context.WithCancel(ctx)
	var g errgroup.Group
	g.Go(func() error {
		for i := 0; ctx.Err() == nil; i++ {
			for _, path := range []string{"/debug/pprof/profile?seconds=20", "/debug/pprof/heap", "/debug/pprof/goroutine", "/metrics"} {
				raw, err := client.Discovery().RESTClient().Get().RequestURI(path).DoRaw(ctx)
				if ctx.Err() != nil {
					return nil //nolint:nilerr // nobody wants it any more
				}
				if err != nil {
					return fmt.Errorf("asking for %s: %w", path, err)
				}
				name, _, _ := strings.Cut(filepath.Base(path), "?")
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%d.%s", when, i, name)), raw, 0o600); err != nil {
					return fmt.Errorf("writing a profile: %w", err)
				}
			}
		}
		return nil
	})
	return func() error { cancel(); return g.Wait() }
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

// counter counts objects as a watch tells of them.
type counter struct {
	store cache.Store
}

func watch(ctx context.Context, client kubernetes.Interface) (nodes, pods counter, err error) {
	nodeWatch := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(slim)).Core().V1().Nodes().Informer()
	podWatch := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace("bench"), informers.WithTransform(slim)).
		Core().V1().Pods().Informer()
	go nodeWatch.RunWithContext(ctx)
	go podWatch.RunWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), nodeWatch.HasSynced, podWatch.HasSynced) {
		return counter{}, counter{}, fmt.Errorf("watching Nodes and Pods: %w", ctx.Err())
	}
	return counter{nodeWatch.GetStore()}, counter{podWatch.GetStore()}, nil
}

// object is what is kept of a Node or a Pod.
type object struct {
	metav1.ObjectMeta

	ready bool
}

// slim keeps what is counted.
func slim(obj any) (any, error) {
	switch o := obj.(type) {
	case *v1.Pod:
		_, c := podutil.GetPodCondition(&o.Status, v1.PodReady)
		return &object{keyOf(o.ObjectMeta), c != nil && c.Status == v1.ConditionTrue}, nil
	case *v1.Node:
		_, c := nodeutil.GetNodeCondition(&o.Status, v1.NodeReady)
		return &object{keyOf(o.ObjectMeta), c != nil && c.Status == v1.ConditionTrue}, nil
	}
	return obj, nil
}

func keyOf(m metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion}
}

func (c counter) until(ctx context.Context, enough func(ready, all int) bool) error {
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	told := time.Now()
	for {
		ready := 0
		list := c.store.List()
		for _, obj := range list {
			if obj.(*object).ready { //nolint:forcetypeassert // slim made it
				ready++
			}
		}
		if enough(ready, len(list)) {
			return nil
		}
		if time.Since(told) > tellEvery {
			told = time.Now()
			fmt.Fprintf(os.Stderr, "there are %d, of which %d are Ready\n", len(list), ready)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting, with %d of which %d are Ready: %w", len(list), ready, ctx.Err())
		case <-look.C:
		}
	}
}

// timer is when something began, and how long a processor had worked by then.
type timer struct {
	at   time.Time
	work time.Duration
}

func now() timer { return timer{time.Now(), processorTime()} }

// say prints how long it took, and how much of that a processor worked: on a machine that is busy with other things, the
// latter is what to compare.
func (t timer) say(what string) {
	took, work := time.Since(t.at).Seconds(), (processorTime() - t.work).Seconds()
	fmt.Printf("%-36s %7.2f s, processor time %7.2f s\n", what, took, work)
}

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
	processes := family()
	for _, pid := range slices.Sorted(maps.Keys(processes)) {
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
		fmt.Printf("%-36s %6s MB, at most %s MB\n", when+": "+processes[pid], resident, peak)
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

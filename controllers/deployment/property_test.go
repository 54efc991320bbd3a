package deployment

import (
	"fmt"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/kubernetes/pkg/controller/deployment/util"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/controllers/internal/action"
)

// cluster is an API server with one Deployment, its ReplicaSets and the numbers of their Pods.
// ReplicaSets report late, the Deployment loop sees late, Pods become ready, fail and linger, and
// people change their minds.
type cluster struct {
	*rapid.T
	now     int64
	d       *appsv1.Deployment
	sets    map[string]*set
	options v1alpha1.Options
	seen    State // what the caches show
	scaled  bool  // a user changed replicas, surge or a ReplicaSet since the loop last found nothing to do
	created int64
}

// set is a ReplicaSet and its Pods.
type set struct {
	*appsv1.ReplicaSet
	ready, unready, lingering int32
	crashing                  int32 // of those that are not ready, at most
}

func newCluster(t *rapid.T) *cluster {
	d := deployment(0)
	d.Spec.RevisionHistoryLimit = ptr.To[int32](2)
	d.Spec.ProgressDeadlineSeconds = ptr.To[int32](20)
	c := &cluster{T: t, d: d, sets: map[string]*set{}, now: 1_000_000}
	c.configure()
	c.sync()
	return c
}

// configure is what a person does to a Deployment.
func (c *cluster) configure() {
	c.d.Generation++
	c.scaled = true
	c.d.Spec.Replicas = new(rapid.Int32Range(0, 12).Draw(c.T, "replicas"))
	c.d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
	if rapid.IntRange(0, 3).Draw(c.T, "strategy") > 0 {
		surge := rapid.SampledFrom([]string{"0", "1", "3", "25%", "100%"}).Draw(c.T, "surge")
		unavailable := rapid.SampledFrom([]string{"1", "2", "25%", "100%"}).Draw(c.T, "unavailable")
		c.d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{
			MaxSurge: new(intstr.Parse(surge)), MaxUnavailable: new(intstr.Parse(unavailable)),
		}}
	}
	c.options.Partition, c.options.Rollback = nil, v1alpha1.Rollback{}
	if rapid.Bool().Draw(c.T, "partitioned") {
		c.options.Partition = new(intstr.Parse(rapid.SampledFrom([]string{"0", "2", "50%", "100%"}).Draw(c.T, "partition")))
	}
	if rapid.Bool().Draw(c.T, "rolls back") {
		c.options.Rollback = v1alpha1.Rollback{OnProgressDeadlineExceeded: true, OnCrashLoop: &v1alpha1.CrashLoop{Restarts: 1}}
	}
}

// sync lets the caches catch up.
func (c *cluster) sync() {
	c.seen = State{Deployment: c.d.DeepCopy(), Options: c.options, Running: map[types.UID]int{}, Crashing: map[types.UID]int{}}
	for _, name := range c.names() {
		s := c.sets[name]
		c.seen.ReplicaSets = append(c.seen.ReplicaSets, s.DeepCopy())
		c.seen.Running[s.UID] = int(s.ready + s.unready + s.lingering)
		c.seen.Crashing[s.UID] = int(min(s.unready, s.crashing))
	}
}

func (c *cluster) names() []string {
	var names []string
	for name := range c.sets {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (c *cluster) any() *set {
	if len(c.sets) == 0 {
		return nil
	}
	return c.sets[rapid.SampledFrom(c.names()).Draw(c.T, "set")]
}

func (s *set) touch() {
	version := 0
	_, _ = fmt.Sscan(s.ResourceVersion, &version)
	s.ResourceVersion = fmt.Sprint(version + 1)
}

// drive is the ReplicaSet loop: it has Pods made and deleted, those that are not ready first.
func (s *set) drive() {
	want := *s.Spec.Replicas
	s.unready += max(0, want-s.ready-s.unready)
	for s.ready+s.unready > want {
		if s.unready > 0 {
			s.unready--
		} else {
			s.ready--
		}
		s.lingering++
	}
}

func (s *set) report() {
	status := appsv1.ReplicaSetStatus{
		Replicas: s.ready + s.unready, ReadyReplicas: s.ready, AvailableReplicas: s.ready,
		TerminatingReplicas: new(s.lingering), ObservedGeneration: s.Generation,
	}
	s.Status = status
	s.touch()
}

// reconcile is one Reconcile: it plans on what the caches show and carries out what the API server
// accepts. It says whether it did anything.
func (c *cluster) reconcile() bool {
	c.now++
	c.seen.Now = metav1.Unix(c.now, 0)
	plan := NewPlan(c.seen)
	c.check(plan)
	acted := false
	for _, action := range plan.Actions {
		acted = true
		if !c.act(action) {
			c.sync()
			return true
		}
	}
	if c.d.Generation == c.seen.Deployment.Generation {
		c.d.Status, c.options.Status = plan.Status, plan.OptionsStatus
	}
	if acted {
		c.sync() // the loop does not reconcile again before it sees its own writes
	} else if c.seen.Deployment.Generation == c.d.Generation {
		c.scaled = false
	}
	return acted
}

func (c *cluster) act(step action.Action) bool {
	switch a := step.(type) {
	case Create:
		if taken := c.sets[a.ReplicaSet.Name]; taken != nil {
			if util.EqualIgnoreHash(&taken.Spec.Template, &a.ReplicaSet.Spec.Template) {
				return false
			}
			c.Fatalf("collision of %s", a.ReplicaSet.Name)
		}
		for _, s := range c.sets {
			if util.EqualIgnoreHash(&s.Spec.Template, &a.ReplicaSet.Spec.Template) && metav1.IsControlledBy(s, c.d) {
				c.Fatalf("a second ReplicaSet for the template of %s", s.Name)
			}
		}
		c.created++
		stored := a.ReplicaSet.DeepCopy()
		stored.UID, stored.ResourceVersion, stored.Generation = types.UID("uid-"+stored.Name+fmt.Sprint(c.created)), "1", 1
		stored.CreationTimestamp = metav1.Unix(c.now, 0)
		stored.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(c.d, deploymentKind)}
		c.sets[stored.Name] = &set{ReplicaSet: stored}
	case Update:
		s := c.sets[a.Before.Name]
		if s == nil || s.ResourceVersion != a.Before.ResourceVersion {
			return false
		}
		if *s.Spec.Replicas != *a.After.Spec.Replicas {
			s.Generation++
		}
		s.Spec, s.Annotations = *a.After.Spec.DeepCopy(), a.After.Annotations
		s.touch()
	case Delete:
		s := c.sets[a.ReplicaSet.Name]
		if s == nil || s.ResourceVersion != a.ReplicaSet.ResourceVersion {
			return false
		}
		if s.ready+s.unready > 0 {
			c.Fatalf("deleted %s, which has Pods", s.Name)
		}
		delete(c.sets, a.ReplicaSet.Name)
	case SetRevision:
		util.SetDeploymentRevision(c.d, a.Revision)
	case RollBack:
		if good := c.seen.Options.Status.AvailableReplicaSet; a.Status.To.ReplicaSet != good || a.Status.From.ReplicaSet == good {
			c.Fatalf("rolled back from %s to %s, although %s was the last to be available", a.Status.From.ReplicaSet, a.Status.To.ReplicaSet, good)
		}
	default:
		c.Fatalf("unexpected action %#v", step)
	}
	return true
}

// check judges a plan by what it was made from.
func (c *cluster) check(plan Plan) {
	d := c.seen.Deployment
	replicas := *d.Spec.Replicas
	surge, unavailable := util.MaxSurge(*d), util.MaxUnavailable(*d)
	var before, after, availableBefore, availableAfter, oldRunning int32
	touched := map[string]*appsv1.ReplicaSet{}
	grows, growsCurrent := false, false
	for _, step := range plan.Actions {
		switch a := step.(type) {
		case Create:
			after += *a.ReplicaSet.Spec.Replicas
			grows = grows || *a.ReplicaSet.Spec.Replicas > 0
			growsCurrent = grows
		case Update:
			touched[a.Before.Name] = a.After
			if *a.After.Spec.Replicas > *a.Before.Spec.Replicas {
				grows = true
				growsCurrent = growsCurrent || util.EqualIgnoreHash(&a.After.Spec.Template, &d.Spec.Template)
			}
		}
	}
	for _, s := range c.seen.ReplicaSets {
		want := s
		if t := touched[s.Name]; t != nil {
			want = t
		}
		before += *s.Spec.Replicas
		after += *want.Spec.Replicas
		availableBefore += min(*s.Spec.Replicas, s.Status.AvailableReplicas)
		availableAfter += min(*want.Spec.Replicas, s.Status.AvailableReplicas)
		if !util.EqualIgnoreHash(&s.Spec.Template, &d.Spec.Template) {
			oldRunning += int32(c.seen.Running[s.UID])
		}
	}
	c.checkOptions(plan, touched)
	if grows && after > replicas+surge {
		c.Fatalf("grew from %d to %d Pods, %d+%d allowed: %s", before, after, replicas, surge, words(plan.Actions))
	}
	if d.Spec.Paused {
		return
	}
	if least := replicas - unavailable; !c.scaled && d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType && availableAfter < min(least, availableBefore) {
		c.Fatalf("from %d to %d available Pods, %d have to be: %s", availableBefore, availableAfter, least, words(plan.Actions))
	}
	if growsCurrent && !c.scaled && d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType && oldRunning > 0 {
		c.Fatalf("grew while %d old Pods run: %s", oldRunning, words(plan.Actions))
	}
}

// checkOptions judges what a plan makes of a partition, and of a template that failed.
func (c *cluster) checkOptions(plan Plan, touched map[string]*appsv1.ReplicaSet) {
	d, options := c.seen.Deployment, c.seen.Options
	var before, after, grown int32
	for _, s := range c.seen.ReplicaSets {
		want := s
		if t := touched[s.Name]; t != nil {
			want = t
		}
		if util.EqualIgnoreHash(&s.Spec.Template, &d.Spec.Template) {
			grown += *want.Spec.Replicas - *s.Spec.Replicas
			continue
		}
		before, after = before+*s.Spec.Replicas, after+*want.Spec.Replicas
	}
	if plan.OptionsStatus.Rollback != nil {
		if options.Status.Rollback != nil && grown > 0 {
			c.Fatalf("the failed template gets %d more Pods: %s", grown, words(plan.Actions))
		}
		return
	}
	if options.Partition == nil || c.scaled || d.Spec.Paused || d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return
	}
	keep, _ := intstr.GetScaledValueFromIntOrPercent(options.Partition, int(*d.Spec.Replicas), true)
	if least := min(before, int32(keep)); after < before && after < least && c.total() <= *d.Spec.Replicas {
		c.Fatalf("from %d to %d old Pods, %d stay: %s", before, after, least, words(plan.Actions))
	}
}

// total is how many Pods the ReplicaSets are to have.
func (c *cluster) total() int32 {
	var total int32
	for _, s := range c.seen.ReplicaSets {
		total += *s.Spec.Replicas
	}
	return total
}

func (c *cluster) steps() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"reconcile": func(*rapid.T) { c.reconcile() },
		"sync":      func(*rapid.T) { c.sync() },
		"configure": func(*rapid.T) { c.configure() },
		"template": func(t *rapid.T) {
			c.d.Generation++
			c.d.Spec.Template.Spec.Containers[0].Image = rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(t, "image")
		},
		"pause": func(t *rapid.T) { c.d.Generation++; c.scaled = true; c.d.Spec.Paused = rapid.Bool().Draw(t, "paused") },
		"drive": func(*rapid.T) {
			if s := c.any(); s != nil {
				s.drive()
			}
		},
		"report": func(*rapid.T) {
			if s := c.any(); s != nil {
				s.report()
			}
		},
		"kubelet": func(t *rapid.T) {
			s := c.any()
			if s == nil {
				return
			}
			switch n := rapid.Int32Range(0, 5).Draw(t, "pods"); rapid.IntRange(0, 4).Draw(t, "what") {
			case 4:
				s.crashing = n
			case 0:
				n = min(n, s.unready)
				s.unready, s.ready = s.unready-n, s.ready+n
			case 1:
				n = min(n, s.ready)
				s.unready, s.ready = s.unready+n, s.ready-n
			case 2:
				s.lingering -= min(n, s.lingering)
			case 3:
				s.ready -= min(n, s.ready)
			}
		},
	}
}

// TestProperty: whatever happens in whatever order, no plan allows more than replicas+maxSurge Pods
// or fewer than replicas-maxUnavailable available ones, there are never two ReplicaSets of one
// template, the partition is kept, a template that failed gets no more Pods, and once the world
// holds still and Pods get ready, all of them are of the current template, or, if that failed, of
// the last one that was available.
func TestProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster(t)
		t.Repeat(c.steps())
		c.d.Spec.Paused, c.options.Partition = false, nil
		c.d.Generation++
		rounds, still := 0, 0
		for ; rounds < 300 && still < 2; rounds++ {
			for _, name := range c.names() {
				s := c.sets[name]
				s.drive()
				s.ready, s.unready, s.lingering, s.crashing = s.ready+s.unready, 0, 0, 0
				s.report()
			}
			before := c.d.Status
			c.sync()
			if c.reconcile() || !util.DeploymentComplete(c.d, &before) && c.options.Status.Rollback == nil {
				still = 0
			} else {
				still++
			}
		}
		old := 0
		for _, s := range c.sets {
			current := util.EqualIgnoreHash(&s.Spec.Template, &c.d.Spec.Template)
			if back := c.options.Status.Rollback; back != nil {
				current = s.Name == back.To.ReplicaSet
			}
			if want := *c.d.Spec.Replicas; current && s.ready != want || !current && *s.Spec.Replicas != 0 {
				t.Fatalf("after %d rounds %s has %d Pods, status %+v", rounds, s.Name, s.ready, c.d.Status)
			}
			if !current {
				old++
			}
		}
		if back := c.options.Status.Rollback != nil; !back && (!util.DeploymentComplete(c.d, &c.d.Status) || old > 3) {
			t.Fatalf("after %d rounds: %d old ReplicaSets, status %+v", rounds, old, c.d.Status)
		}
	})
}

var (
	deploymentKind = appsv1.SchemeGroupVersion.WithKind("Deployment")
	start          = time.Unix(1_000_000, 0)
)

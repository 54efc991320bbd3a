package pressure

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/kubelet/eviction/api"

	"flyball.dev/kubelet/pod/plan"
)

// endTimeout is how long the end of one Pod is awaited before the next Pod is ended.
const endTimeout = 30 * time.Second

// Config of a node.
type Config struct {
	// Thresholds; a hard one has no grace period. A signal has at most one of each kind.
	Thresholds []api.Threshold
	// TransitionPeriod is how long a condition of the Node outlasts its threshold.
	TransitionPeriod time.Duration
	// MaxPodGracePeriodSeconds bounds the grace period of a Pod that a soft threshold ends.
	MaxPodGracePeriodSeconds int64
	Layout                   Layout
}

// Observation is what was measured at one moment.
type Observation struct {
	Signals map[api.Signal]Amount // that could be measured
	Pods    []Pod                 // that run on the node
}

// Amount of bytes, inodes or PIDs.
type Amount struct {
	Available, Capacity int64
	At                  time.Time // nothing is decided twice about one measurement
}

// Memory is what one Plan leaves to the next. It may be lost: grace periods begin anew then.
type Memory struct {
	// Since when thresholds are met. The active ones are met for their grace period, and until the
	// minimum is reclaimed.
	Since  map[Threshold]time.Time
	Active map[Threshold]bool
	// Conditions are when a threshold of theirs was met last.
	Conditions map[v1.NodeConditionType]time.Time
	Used       map[api.Signal]time.Time // the measurements that were acted upon
	// Reclaimed says that a Reclaim was decided for Starved: the next step is to end a Pod.
	Reclaimed v1.ResourceName
	Evicted   time.Time // when a Pod was last ended
}

// Threshold identifies one of Config.Thresholds.
type Threshold struct {
	Signal api.Signal
	Soft   bool
}

// Decision is what the node does.
type Decision struct {
	Conditions []v1.NodeConditionType // of the Node that are true
	Starved    v1.ResourceName        // to be reclaimed, "" if none is
	Reclaim    []Reclaim              // comes first, the next Observation shows whether it sufficed
	// Evict is the Pod to end, with what to end it; nil if there is none.
	Evict       *v1.Pod
	Termination plan.Termination
	// Next is when to decide again if no measurement comes before; zero if only a measurement
	// matters.
	Next   time.Time
	Memory Memory
}

// Plan decides about the node. It is a function of its arguments.
func Plan(c Config, o Observation, m Memory, now time.Time) Decision {
	d := Decision{Memory: Memory{
		Since: map[Threshold]time.Time{}, Active: map[Threshold]bool{}, Conditions: lo.Assign(m.Conditions),
		Used: lo.Assign(m.Used), Evicted: m.Evicted,
	}}
	var urgent []api.Threshold
	for _, t := range c.Thresholds {
		id, amount, met := c.met(t, o, m)
		if !met {
			continue
		}
		d.Memory.Conditions[meanings[t.Signal].condition] = now
		since := cmp.Or(m.Since[id], now)
		d.Memory.Since[id] = since
		if end := since.Add(t.GracePeriod); now.Before(end) {
			d.at(end)
			continue
		}
		d.Memory.Active[id] = true
		if amount.At.After(m.Used[t.Signal]) {
			urgent = append(urgent, t)
		}
	}
	d.conditions(c.TransitionPeriod, now)
	if len(urgent) > 0 {
		// Memory first: it runs out fastest.
		memory := func(t api.Threshold) bool { return meanings[t.Signal].resource == v1.ResourceMemory }
		slices.SortStableFunc(urgent, func(a, b api.Threshold) int { return plan.CompareTrueFirst(memory(a), memory(b)) })
		d.relieve(c, o, m, urgent[0], now)
	} else if len(d.Memory.Active) > 0 {
		d.Memory.Reclaimed = m.Reclaimed
	}
	return d
}

// met says whether a threshold is met: its signal is below the limit or, once the threshold is
// active, below the limit and the minimum to reclaim.
func (c Config) met(t api.Threshold, o Observation, m Memory) (Threshold, Amount, bool) {
	id := Threshold{Signal: t.Signal, Soft: t.GracePeriod > 0}
	amount, measured := o.Signals[t.Signal]
	_, known := meanings[t.Signal]
	return id, amount, known && measured && amount.Available < limit(t, amount.Capacity, m.Active[id])
}

// conditions lists the conditions that hold, and forgets the others.
func (d *Decision) conditions(period time.Duration, now time.Time) {
	for _, t := range slices.Sorted(maps.Keys(d.Memory.Conditions)) {
		end := d.Memory.Conditions[t].Add(period)
		switch {
		case d.Memory.Conditions[t].Equal(now):
		case now.Before(end):
			d.at(end)
		default:
			delete(d.Memory.Conditions, t)
			continue
		}
		d.Conditions = append(d.Conditions, t)
	}
}

// relieve decides what is done about a threshold: something of the node's own goes first, then a
// Pod.
func (d *Decision) relieve(c Config, o Observation, m Memory, t api.Threshold, now time.Time) {
	starved := meanings[t.Signal].resource
	ending := slices.ContainsFunc(o.Pods, func(p Pod) bool { return p.Ending })
	if end := m.Evicted.Add(endTimeout); ending && now.Before(end) {
		d.at(end)
		return
	}
	d.Starved = starved
	d.Memory.Used[t.Signal] = o.Signals[t.Signal].At
	if d.Reclaim = c.Layout.reclaims(t.Signal); len(d.Reclaim) > 0 && m.Reclaimed != starved {
		d.Memory.Reclaimed = starved
		return
	}
	d.Reclaim = nil
	for _, p := range rank(o.Pods, t.Signal, c.Layout) {
		if !p.Ending && !isCritical(p.Pod) {
			d.Evict, d.Termination = p.Pod, c.termination(t, o, p)
			d.Memory.Evicted = now
			return
		}
	}
}

func (d *Decision) at(t time.Time) {
	if d.Next.IsZero() || t.Before(d.Next) {
		d.Next = t
	}
}

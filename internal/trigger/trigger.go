// Package trigger wakes a loop. What has changed, the loop finds out itself.
package trigger

// Trigger holds one item if anything has changed since the loop received the last. It is a handler
// of informers' events (cache.ResourceEventHandler).
type Trigger chan struct{}

// New returns a Trigger that is not set.
func New() Trigger { return make(Trigger, 1) }

// Set wakes the loop, now or when it has reconciled. It does not block.
func (t Trigger) Set() {
	select {
	case t <- struct{}{}:
	default:
	}
}

// OnAdd implements cache.ResourceEventHandler.
func (t Trigger) OnAdd(any, bool) { t.Set() }

// OnUpdate implements cache.ResourceEventHandler.
func (t Trigger) OnUpdate(any, any) { t.Set() }

// OnDelete implements cache.ResourceEventHandler.
func (t Trigger) OnDelete(any) { t.Set() }

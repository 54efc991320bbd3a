package images

import (
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// The time before the next pull of an image, which doubles with each failure.
const (
	initialBackoff = 10 * time.Second
	maxBackoff     = 300 * time.Second
)

// backoffKey: Pods may have different credentials for the same image.
type backoffKey struct {
	pod   types.UID
	image string
}

// failure is the last failed pull of a Pod's image.
type failure struct {
	delay   time.Duration
	until   time.Time
	message string
	err     error
}

// inBackoff returns the last failure if it is too early for another attempt.
func (m *Manager) inBackoff(key backoffKey) (failure, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.backoff[key]
	return f, ok && m.cfg.Now().Before(f.until)
}

// backOff records a failure and returns the time of the next attempt.
func (m *Manager) backOff(key backoffKey, e *Error) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.cfg.Now()
	// The Pods of old failures are gone, or do not need the image any more.
	for k, f := range m.backoff {
		if now.Sub(f.until) > 2*maxBackoff {
			delete(m.backoff, k)
		}
	}
	delay := initialBackoff
	if before, ok := m.backoff[key]; ok {
		delay = min(before.delay*2, maxBackoff)
	}
	f := failure{delay: delay, until: now.Add(delay), message: e.Reason + ": " + e.Message, err: e.Err}
	m.backoff[key] = f
	return f.until
}

func (m *Manager) resetBackoff(key backoffKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.backoff, key)
}

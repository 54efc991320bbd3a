package images

import (
	"maps"
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

// failure is the last failed pull of a Pod's image, and the delay after it.
type failure struct {
	err   *Error
	delay time.Duration
}

// inBackoff returns the last failure if it is too early for another attempt, nil otherwise.
func (m *Manager) inBackoff(key backoffKey) *Error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f, ok := m.backoff[key]; ok && time.Now().Before(f.err.RetryAt) {
		return f.err
	}
	return nil
}

// backOff records a failure and sets the time of the next attempt.
func (m *Manager) backOff(key backoffKey, e *Error) *Error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	// The Pods of old failures are gone, or do not need the image any more.
	maps.DeleteFunc(m.backoff, func(_ backoffKey, f failure) bool { return now.Sub(f.err.RetryAt) > 2*maxBackoff })
	delay := initialBackoff
	if before, ok := m.backoff[key]; ok {
		delay = min(before.delay*2, maxBackoff)
	}
	e.RetryAt = now.Add(delay)
	m.backoff[key] = failure{e, delay}
	return e
}

func (m *Manager) resetBackoff(key backoffKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.backoff, key)
}

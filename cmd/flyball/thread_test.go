//go:build linux

package main

import (
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFirstThread: no goroutine runs on the thread that /proc/self shows.
func TestFirstThread(t *testing.T) {
	for range 100 {
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				if unix.Gettid() == os.Getpid() {
					t.Error("a goroutine runs on the first thread")
				}
			})
		}
		all.Wait()
	}
}

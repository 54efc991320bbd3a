package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/prometheus/procfs"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// side is one way to run envtest, and what was measured of it.
type side struct {
	name   string
	assets string // KUBEBUILDER_ASSETS
	mode   string // FLYBALL_ENVTEST

	ready, stop, stopWatched []time.Duration
	peak                     []int // bytes
}

// ours asks flyball for its assets, as a user does.
func ours(ctx context.Context, flyball string) (string, error) {
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, flyball, "envtest")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("running %s envtest: %w: %s", flyball, err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// measure starts the side once and stops it again. With watched, only the stop counts.
func (s *side) measure(ctx context.Context, watched bool) error {
	if err := errors.Join(os.Setenv("KUBEBUILDER_ASSETS", s.assets), os.Setenv("FLYBALL_ENVTEST", s.mode)); err != nil {
		return fmt.Errorf("setting the environment: %w", err)
	}
	env := &envtest.Environment{}
	began := time.Now()
	client, err := env.Start()
	ready := time.Since(began)
	if err != nil {
		return fmt.Errorf("starting: %w", errors.Join(err, env.Stop()))
	}
	peak, err := peakMemory()
	if err != nil {
		return errors.Join(err, env.Stop())
	}
	if watched {
		watches, err := openWatches(ctx, client)
		if err != nil {
			return errors.Join(err, env.Stop())
		}
		defer func() {
			for _, w := range watches {
				w.Stop()
			}
		}()
	}
	began = time.Now()
	err = env.Stop()
	stop := time.Since(began)
	switch {
	case watched && err != nil:
		fmt.Fprintf(os.Stderr, "envtest: %s: stopping with watches open: %v\n", s.name, err)
		fallthrough
	case watched:
		s.stopWatched = append(s.stopWatched, stop)
	case err != nil:
		return fmt.Errorf("stopping: %w", err)
	default:
		s.ready, s.stop, s.peak = append(s.ready, ready), append(s.stop, stop), append(s.peak, peak)
	}
	return nil
}

// openWatches returns watches of which each has delivered something, or nothing where there is nothing.
func openWatches(ctx context.Context, rc *rest.Config) ([]watch.Interface, error) {
	client, err := kubernetes.NewForConfig(rc)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	var watches []watch.Interface
	for name, open := range map[string]func(context.Context, metav1.ListOptions) (watch.Interface, error){
		"namespaces": client.CoreV1().Namespaces().Watch, "Pods": client.CoreV1().Pods("").Watch, "ConfigMaps": client.CoreV1().ConfigMaps("").Watch,
	} {
		w, err := open(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("watching %s: %w", name, err)
		}
		watches = append(watches, w)
	}
	return watches, nil
}

// peakMemory is what the processes that this one has started have needed at their worst moments, in bytes.
func peakMemory() (sum int, err error) {
	all, err := procfs.AllProcs()
	if err != nil {
		return 0, fmt.Errorf("listing processes: %w", err)
	}
	for _, p := range all {
		stat, err := p.Stat()
		if err != nil || stat.PPID != os.Getpid() {
			continue // ended since, or not ours
		}
		status, err := p.NewStatus()
		if err != nil {
			return 0, fmt.Errorf("reading the memory of process %d: %w", p.PID, err)
		}
		sum += int(status.VmHWM)
	}
	return sum, nil
}

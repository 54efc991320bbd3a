package logs

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"flyball.dev/kubelet/cri"
)

const (
	// every is how often we look, as upstream does.
	every = 10 * time.Second
	// stamp of a log that was put aside.
	stamp = "20060102-150405"
)

// Runtime is the part of CRI's RuntimeService that is needed.
type Runtime interface {
	ListContainers(ctx context.Context, in *runtimeapi.ListContainersRequest, opts ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error)
	ReopenContainerLog(ctx context.Context, in *runtimeapi.ReopenContainerLogRequest, opts ...grpc.CallOption) (*runtimeapi.ReopenContainerLogResponse, error)
}

// Rotator keeps logs small.
type Rotator struct {
	// Dir is where the logs of Pods lie, /var/log/pods.
	Dir     string
	Runtime Runtime
	// Ours says whether the logs of a Pod's containers with these labels are ours, in a runtime that
	// others use too; all are if it is nil.
	Ours   func(pod types.UID, labels map[string]string) bool
	Policy Policy
}

// Run looks after the logs until ctx ends.
func (r Rotator) Run(ctx context.Context) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		if err := r.Rotate(ctx, time.Now()); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Rotating the logs of containers failed, it is tried again")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Rotate looks once, and rotates the logs that need it.
func (r Rotator) Rotate(ctx context.Context, now time.Time) error {
	all, err := r.observe()
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(l log) bool { return !due(l, r.Policy) })
	if len(all) == 0 {
		return nil
	}
	running, err := r.running(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range all {
		if id, ok := running[r.key(l.path)]; ok {
			errs = append(errs, r.act(ctx, id, l.path, plan(l, r.Policy), now))
		}
	}
	return errors.Join(errs...)
}

// observe lists the logs. They lie at NAMESPACE_NAME_UID/CONTAINER/ATTEMPT.log.
func (r Rotator) observe() ([]log, error) {
	dirs, err := filepath.Glob(filepath.Join(r.Dir, "*", "*"))
	if err != nil {
		return nil, fmt.Errorf("listing the logs of Pods: %w", err)
	}
	var all []log
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir) // sorted: a log comes before what was put aside of it
		if err != nil {
			continue // removed meanwhile, or no directory
		}
		found := map[string]*log{}
		for _, e := range entries {
			attempt, rest, ok := strings.Cut(e.Name(), ".log")
			info, err := e.Info()
			if !ok || err != nil || !info.Mode().IsRegular() {
				continue
			}
			l := found[attempt]
			if l == nil {
				l = &log{path: filepath.Join(dir, attempt+".log"), size: -1}
				found[attempt] = l
			}
			if rest == "" {
				l.size = info.Size()
			} else {
				l.rotated = append(l.rotated, filepath.Join(dir, e.Name()))
			}
		}
		for _, l := range found {
			all = append(all, *l)
		}
	}
	return all, nil
}

// running maps the keys of containers that run to their IDs. Only these can
// begin a new log.
func (r Rotator) running(ctx context.Context) (map[string]string, error) {
	resp, err := r.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{
		State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING},
	}})
	if err != nil {
		return nil, fmt.Errorf("listing containers that run: %w", err)
	}
	ids := map[string]string{}
	for _, c := range resp.GetContainers() {
		pod, name := c.GetLabels()[cri.LabelPodUID], c.GetLabels()[cri.LabelContainerName]
		if r.Ours != nil && !r.Ours(types.UID(pod), c.GetLabels()) {
			continue
		}
		ids[fmt.Sprintf("%s/%s/%d.log", pod, name, c.GetMetadata().GetAttempt())] = c.GetId()
	}
	return ids, nil
}

// key is UID/CONTAINER/ATTEMPT.log.
func (r Rotator) key(path string) string {
	container := filepath.Dir(path)
	pod := filepath.Base(filepath.Dir(container))
	return filepath.Join(pod[strings.LastIndex(pod, "_")+1:], filepath.Base(container), filepath.Base(path))
}

func (r Rotator) act(ctx context.Context, id, path string, todo rotation, now time.Time) error {
	for _, old := range todo.remove {
		if err := os.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing an old log: %w", err)
		}
	}
	for _, old := range todo.compress {
		if err := compress(old); err != nil {
			return fmt.Errorf("compressing %s: %w", old, err)
		}
	}
	aside := path + "." + now.Format(stamp)
	if todo.putAside {
		if err := os.Rename(path, aside); err != nil {
			return fmt.Errorf("putting a log aside: %w", err)
		}
	}
	if !todo.reopen {
		return nil
	}
	if _, err := r.Runtime.ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: id}); err != nil {
		// The container goes on writing into the same file, under its old name again;
		// unless the runtime has begun a new one all the same, and only its answer was lost.
		if _, missing := os.Lstat(path); todo.putAside && errors.Is(missing, fs.ErrNotExist) {
			err = errors.Join(err, os.Rename(aside, path))
		}
		return fmt.Errorf("beginning a new log at %s: %w", path, err)
	}
	return nil
}

// compress replaces a file by a compressed one, which is complete whenever it
// has its name.
func compress(path string) (err error) {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	temporary := path + unfinished
	out, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, info.Mode())
	if err != nil {
		return err
	}
	zip := gzip.NewWriter(out)
	_, err = io.Copy(zip, in)
	if err = errors.Join(err, zip.Close(), out.Close()); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	if err := os.Rename(temporary, path+compressed); err != nil {
		return err
	}
	return os.Remove(path)
}

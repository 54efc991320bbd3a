package flyballtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

const (
	// restoreTimeout is how long a checkpoint or a restore may take on a machine with much else to do.
	restoreTimeout = time.Minute
	// endPatience is how long a definition may take to remove its objects before a restore goes on without waiting.
	endPatience = 2 * time.Second
	// readAtOnce is how many kinds are read at a time.
	readAtOnce = 16
)

// Paths of the control of the API server (controlplane/programs).
const (
	checkpointPath = "/flyball/checkpoint"
	restorePath    = "/flyball/restore"
)

var definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// Checkpoint is the state of a cluster at one moment: all objects in it. It holds nothing, and needs not be let go.
type Checkpoint struct {
	cluster  *Cluster
	revision int64
}

// Checkpoint remembers the state of the cluster as it is now. It takes some milliseconds and disturbs nobody. Controllers
// that are about to do something will do it after a restore as well: wait until the cluster is in the state that tests are
// to begin with.
func (c *Cluster) Checkpoint() (*Checkpoint, error) {
	ctx, cancel := patience()
	defer cancel()
	revision, err := c.control(ctx, checkpointPath)
	if err != nil {
		return nil, fmt.Errorf("taking a checkpoint: %w", err)
	}
	if c.options.controllers {
		if err := c.standBy(); err != nil {
			return nil, fmt.Errorf("taking a checkpoint: %w", err)
		}
	}
	return &Checkpoint{cluster: c, revision: revision}, nil
}

// Restore takes the whole cluster back to a checkpoint of it, also to one from before a checkpoint that was restored
// meanwhile. When it returns, reads and new watches see that state, and the controllers have started again, without memory
// of what was in between. Time does not go back: resource versions grow, and watches that are open are told of what is
// deleted, back, or changed by ordinary events.
//
// Requests of others that write wait meanwhile. Controllers of the test's own, in a manager say, should be stopped before
// and started after it, for they go on with what they were doing. Webhooks that convert need not serve meanwhile.
//
// What nodes say of themselves stays: their Leases. A Pod that was deleted since the checkpoint starts again on its
// simulated node, with new containers. Events that had expired are back.
func (c *Cluster) Restore(checkpoint *Checkpoint) error {
	if checkpoint == nil || checkpoint.cluster != c {
		return errors.New("restoring a checkpoint: it is not one of this cluster")
	}
	ctx, cancel := patience()
	defer cancel()
	if err := c.restore(ctx, checkpoint.revision); err != nil {
		return fmt.Errorf("restoring a checkpoint: %w", err)
	}
	return nil
}

func patience() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.Background(), restoreTimeout, fmt.Errorf("it took longer than %s", restoreTimeout))
}

func (c *Cluster) restore(ctx context.Context, revision int64) error {
	config := c.Config()
	config.WarningHandler = rest.NoWarnings{} // nobody chose the kinds that are read
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("connecting to the cluster: %w", err)
	}
	before, err := c.definitionsAtRest(ctx, client)
	if err != nil {
		return err
	}
	if err := c.stopControllers(); err != nil {
		return err
	}
	_, err = c.control(ctx, restorePath+fmt.Sprintf("?revision=%d", revision))
	g, ctx := errgroup.WithContext(ctx)
	if c.options.controllers {
		g.Go(func() error { return c.startControllers(ctx) }) // also after an error: others may want to look
	}
	if err == nil {
		g.Go(func() error { return c.visible(ctx, client, before) })
	}
	if err = errors.Join(err, g.Wait()); err != nil || !c.options.controllers {
		return err
	}
	return c.standBy() // for the next restore
}

// stopControllers ends the controllers in the middle of what they do: whatever they know, and are about to do, is of a state
// that will not be any more.
func (c *Cluster) stopControllers() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errClosed
	}
	switch {
	case c.controllers == nil:
		return nil
	case !c.controllers.running():
		return c.controllers.failure() // before anybody wanted it
	}
	return c.controllers.kill()
}

// definitionsAtRest lists the definitions when none removes its objects. The API server does that by itself, past all that
// could hold it back.
func (c *Cluster) definitionsAtRest(ctx context.Context, client dynamic.Interface) ([]unstructured.Unstructured, error) {
	for deadline := time.Now().Add(endPatience); ; {
		list, err := client.Resource(definitions).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("listing definitions: %w", err)
		}
		ending := false
		for _, d := range list.Items {
			ending = ending || d.GetDeletionTimestamp() != nil
		}
		if !ending || time.Now().After(deadline) {
			return list.Items, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(servedLook):
		}
	}
}

// visible returns when everybody sees the state in etcd: kinds are served that are defined, others are not, and caches have
// what is new.
func (c *Cluster) visible(ctx context.Context, client dynamic.Interface, before []unstructured.Unstructured) error {
	list, err := client.Resource(definitions).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("listing definitions: %w", err)
	}
	wanted := sets.New[schema.GroupVersionResource]()
	for i := range list.Items {
		if established(&list.Items[i]) {
			wanted.Insert(defined(&list.Items[i])...)
		}
	}
	unwanted := sets.New[schema.GroupVersionResource]()
	for i := range before {
		unwanted.Insert(defined(&before[i])...)
	}
	d, err := discovery.NewDiscoveryClientForConfig(c.admin)
	if err != nil {
		return fmt.Errorf("connecting to the cluster: %w", err)
	}
	resources, err := settled(ctx, d, wanted, unwanted.Difference(wanted))
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readAtOnce)
	for resource := range resources.Difference(c.unconverted(list.Items)) {
		g.Go(func() error { return readable(ctx, client.Resource(resource), wanted.Has(resource)) })
	}
	return g.Wait()
}

// established says whether a definition is to be served: one may be refused for its names, and one that ends is soon gone.
func established(definition *unstructured.Unstructured) bool {
	if definition.GetDeletionTimestamp() != nil {
		return false
	}
	conditions, _, _ := unstructured.NestedSlice(definition.Object, "status", "conditions")
	for _, c := range conditions {
		if condition, ok := c.(map[string]any); ok && condition["type"] == "Established" {
			return condition["status"] == "True"
		}
	}
	return false
}

// probed is a kind whose list asks others for their health, and that has nothing in etcd.
const probed = "componentstatuses"

// settled returns all resources that can be listed, when all that are wanted are among them and none that is unwanted.
func settled(ctx context.Context, d discovery.DiscoveryInterface, wanted, unwanted sets.Set[schema.GroupVersionResource]) (sets.Set[schema.GroupVersionResource], error) {
	for {
		served := sets.New[schema.GroupVersionResource]()
		lists, err := d.ServerPreferredResources()
		if lists == nil {
			return nil, fmt.Errorf("asking which kinds are served: %w", err)
		} // an error beside lists is of a group that is coming or going
		versions := sets.New[string]()
		for _, list := range lists {
			version, err := schema.ParseGroupVersion(list.GroupVersion)
			if err != nil {
				continue
			}
			versions.Insert(list.GroupVersion)
			for _, r := range list.APIResources {
				if !strings.Contains(r.Name, "/") && r.Name != probed && sets.New(r.Verbs...).Has("list") {
					served.Insert(version.WithResource(r.Name))
				}
			}
		}
		missing := wanted.Difference(served)
		for resource := range missing { // versions that nobody prefers
			if list, err := d.ServerResourcesForGroupVersion(resource.GroupVersion().String()); err == nil && contains(list, resource.Resource) {
				missing.Delete(resource)
			}
		}
		if missing.Len() == 0 && served.Intersection(unwanted).Len() == 0 {
			return served.Union(wanted), nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting until the API server serves %v and no more %v: %w", missing.UnsortedList(), served.Intersection(unwanted).UnsortedList(), context.Cause(ctx))
		case <-time.After(servedLook):
		}
	}
}

// readable returns when a resource is read as it is in etcd. The API server sees to that: a list waits for its cache.
func readable(ctx context.Context, resource dynamic.ResourceInterface, custom bool) error {
	for {
		_, err := resource.List(ctx, metav1.ListOptions{Limit: 1})
		switch {
		case err == nil || apierrors.IsMethodNotSupported(err):
			return nil
		case apierrors.IsNotFound(err) && !custom:
			return nil // it went meanwhile
		case custom && apierrors.IsStoreReadError(err):
			return nil // the test's webhook does not convert it
		case !apierrors.IsNotFound(err) && !apierrors.IsServiceUnavailable(err) && !apierrors.IsTooManyRequests(err):
			return fmt.Errorf("reading what was restored: %w", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("reading what was restored: %w", context.Cause(ctx))
		case <-time.After(servedLook):
		}
	}
}

// control asks the API server's control, and returns the revision that it answers.
func (c *Cluster) control(ctx context.Context, path string) (int64, error) {
	config := c.anonymous()
	config.BearerToken = c.token
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return 0, fmt.Errorf("connecting to the API server: %w", err)
	}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, config.Host+path, nil)
	if err != nil {
		return 0, fmt.Errorf("asking the API server: %w", err)
	}
	answer, err := client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("asking the API server: %w", errors.Join(context.Cause(ctx), err))
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, fmt.Errorf("asking the API server: %w", err)
	}
	if answer.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("the API server answers %s: %s", answer.Status, bytes.TrimSpace(body))
	}
	var got struct {
		Revision int64 `json:"revision"`
	}
	if err := json.Unmarshal(body, &got); err != nil || got.Revision == 0 {
		return 0, fmt.Errorf("the API server answers %q, which is no checkpoint; is it of another version? %w", body, err)
	}
	return got.Revision, nil
}

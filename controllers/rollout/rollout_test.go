package rollout_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/controllers"
	"flyball.dev/controllers/internal/kinds"
	"flyball.dev/controllers/internal/testenv"
	"flyball.dev/controllers/rollout"
)

var env testenv.Env

func TestMain(m *testing.M) {
	testenv.Main(m, &env, func(ctx context.Context, cfg *rest.Config, ready func()) error {
		return controllers.Run(ctx, controllers.Config{Client: cfg, Ready: ready})
	})
}

// by is a user at a terminal, with a Deployment.
type by struct {
	*testing.T
	kinds.Group
	*rollout.Rollout
	namespace string
}

func each(t *testing.T, test func(b *by)) {
	t.Helper()
	known := runtime.NewScheme()
	_ = scheme.AddToScheme(known)
	_ = v1alpha1.AddToScheme(known)
	c, err := client.NewWithWatch(env.Admin, client.Options{Scheme: known})
	if err != nil {
		t.Fatal(err)
	}
	env.Each(t, func(t *testing.T, group kinds.Group, namespace string) {
		t.Helper()
		if _, err := group.Deployments.Create(t.Context(), env.Client, testenv.Deployment(namespace, "web", 2)); err != nil {
			t.Fatal(err)
		}
		r, err := rollout.Find(t.Context(), c, namespace, "deployment/web")
		if err != nil {
			t.Fatal(err)
		}
		test(&by{T: t, Group: group, Rollout: r, namespace: namespace})
	})
}

func (b *by) patch(spec string) {
	b.Helper()
	object := b.Deployments.New()
	object.SetNamespace(b.namespace)
	object.SetName("web")
	if err := env.Client.Patch(b.Context(), object, client.RawPatch(types.MergePatchType, []byte(spec))); err != nil {
		b.Fatal(err)
	}
}

func (b *by) image(tag string) {
	b.Helper()
	b.patch(fmt.Sprintf(`{"metadata":{"annotations":{"kubernetes.io/change-cause":"to %s"}},"spec":{"template":{"spec":{"containers":[{"name":"main","image":"image:%s"}]}}}}`, tag, tag))
}

// status waits for the end of the rollout and returns the last message.
func (b *by) status() (string, error) {
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	last := ""
	err := b.Status(ctx, true, func(message string) { last = message })
	return last, err
}

func (b *by) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *by) complete() {
	b.Helper()
	message, err := b.status()
	b.must(err)
	if want := `deployment "web" successfully rolled out`; message != want {
		b.Fatalf("got %q, want %q", message, want)
	}
}

func (b *by) history(want ...string) {
	b.Helper()
	testenv.Eventually(b.T, func() error {
		history, err := b.History(b.Context())
		if err != nil {
			return err
		}
		var got []string
		for _, h := range history {
			got = append(got, fmt.Sprint(h.Number, " ", h.Template.Spec.Containers[0].Image, " ", h.ChangeCause))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("history (-want +got):\n%s", diff)
		}
		return nil
	})
}

func TestByHand(t *testing.T) {
	each(t, func(b *by) {
		b.complete()
		if _, err := b.Undo(b.Context(), 0); err == nil || !strings.Contains(err.Error(), "no earlier revision") {
			b.Errorf("undoing the first revision: %v", err)
		}
		b.image("2")
		b.complete()
		b.history("1 image:1 ", "2 image:2 to 2")
		to, err := b.Undo(b.Context(), 0)
		b.must(err)
		if to != 1 {
			b.Errorf("rolled back to %d", to)
		}
		b.complete()
		b.history("2 image:2 to 2", "3 image:1 ")
		_, err = b.Undo(b.Context(), 2)
		b.must(err)
		b.complete()
		b.history("3 image:1 ", "4 image:2 to 2")
		if _, err := b.Undo(b.Context(), 9); err == nil || !strings.Contains(err.Error(), "no such revision") {
			b.Errorf("undoing to a revision that never was: %v", err)
		}
		shown, err := b.Show(b.Context(), 3)
		b.must(err)
		if image := shown.Template.Spec.Containers[0].Image; image != "image:1" {
			b.Errorf("revision 3 has %s", image)
		}

		b.must(b.Pause(b.Context()))
		for what, do := range map[string]func() error{
			"paused already":  func() error { return b.Pause(b.Context()) },
			"resume it first": func() error { return b.Restart(b.Context(), time.Now()) },
			"resume it":       func() error { _, err := b.Undo(b.Context(), 3); return err },
		} {
			if err := do(); err == nil || !strings.Contains(err.Error(), what) {
				b.Errorf("while paused: got %v, want %q", err, what)
			}
		}
		b.image("5")
		b.must(b.Resume(b.Context()))
		b.complete()
		b.must(b.Restart(b.Context(), time.Now()))
		b.complete()
		b.history("3 image:1 ", "4 image:2 to 2", "5 image:5 to 5", "6 image:5 to 5")
	})
}

func TestStatusOfFailure(t *testing.T) {
	each(t, func(b *by) {
		b.complete()
		b.patch(`{"spec":{"progressDeadlineSeconds":1,"template":{"metadata":{"annotations":{"` + testenv.Behaviour + `":"` + testenv.NeverReady + `"}}}}}`)
		if _, err := b.status(); !errors.Is(err, rollout.ErrFailed) || !strings.Contains(err.Error(), "exceeded its progress deadline") {
			b.Errorf("got %v", err)
		}
	})
}

func TestStatusOfWhatAppsLacks(t *testing.T) {
	each(t, func(b *by) {
		if b.Deployments.Group == "apps" {
			b.Skip("apps/v1 has neither partition nor rollback")
		}
		b.complete()
		b.patch(`{"spec":{"strategy":{"rollingUpdate":{"partition":1}}}}`)
		b.image("2")
		if message, err := b.status(); err != nil || !strings.Contains(message, "waits at its partition") || !strings.Contains(message, "1 stay on old revisions") {
			b.Errorf("at the partition: %q, %v", message, err)
		}
		b.patch(`{"spec":{"strategy":{"rollingUpdate":{"partition":0}},"rollback":{"onCrashLoop":{"restarts":1}}}}`)
		b.complete()
		b.patch(`{"spec":{"template":{"metadata":{"annotations":{"` + testenv.Behaviour + `":"` + testenv.Crashes + `"}}}}}`)
		if _, err := b.status(); !errors.Is(err, rollout.ErrFailed) || !strings.Contains(err.Error(), "Rolled back from revision 3") {
			b.Errorf("rolled back: %v", err)
		}
		history, err := b.History(b.Context())
		b.must(err)
		var notes []string
		for _, h := range history {
			notes = append(notes, h.Note)
		}
		if diff := cmp.Diff([]string{"", "last available", "rolled back: CrashLoop"}, notes); diff != "" {
			b.Errorf("notes (-want +got):\n%s", diff)
		}
	})
}

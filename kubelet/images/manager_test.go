package images

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubernetes/pkg/kubelet/events"
)

// eventFailedWarning begins the Events of reason Failed.
const eventFailedWarning = "Warning " + events.FailedToPullImage + " "

// runtime is an image service that has what it was given or has pulled.
type runtime struct {
	notified int // how often Pulled was called
	runtimeapi.ImageServiceClient
	mu      sync.Mutex
	present map[string]*runtimeapi.Image
	// refuse makes pulls of an image fail.
	refuse map[string]error
	// block holds pulls back until it is closed.
	block chan struct{}
	calls []string
}

func (r *runtime) notef(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, fmt.Sprintf(format, args...))
}

func (r *runtime) ImageStatus(_ context.Context, in *runtimeapi.ImageStatusRequest, _ ...grpc.CallOption) (*runtimeapi.ImageStatusResponse, error) {
	r.notef("status %s", in.Image.Image)
	r.mu.Lock()
	defer r.mu.Unlock()
	return &runtimeapi.ImageStatusResponse{Image: r.present[in.Image.Image]}, nil
}

func (r *runtime) PullImage(ctx context.Context, in *runtimeapi.PullImageRequest, _ ...grpc.CallOption) (*runtimeapi.PullImageResponse, error) {
	r.notef("pull %s as %q", in.Image.Image, in.Auth.GetUsername())
	if r.block != nil {
		select {
		case <-r.block:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.refuse[in.Image.Image]; err != nil {
		return nil, err
	}
	image := &runtimeapi.Image{Id: "sha256:" + in.Image.Image, Size: 42, Uid: &runtimeapi.Int64Value{Value: 7}}
	r.present[in.Image.Image], r.present[image.Id] = image, image
	return &runtimeapi.PullImageResponse{ImageRef: image.Id}, nil
}

type secrets map[string]*v1.Secret

func (s secrets) Secret(_ context.Context, _, name string) (*v1.Secret, error) {
	if secret := s[name]; secret != nil {
		return secret, nil
	}
	return nil, apierrors.NewNotFound(v1.Resource("secret"), name)
}

func dockerConfig(registry, user string) *v1.Secret {
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":pw"))
	return &v1.Secret{Type: v1.SecretTypeDockerConfigJson, Data: map[string][]byte{
		v1.DockerConfigJsonKey: fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, registry, auth),
	}}
}

func newTest(present ...string) (*Manager, *runtime) {
	r := &runtime{present: map[string]*runtimeapi.Image{}, refuse: map[string]error{}}
	for _, name := range present {
		r.present[name] = &runtimeapi.Image{Id: "sha256:" + name, Username: "web"}
	}
	m := New(Config{Images: r, Pulled: func() { r.notified++ }, Secrets: secrets{
		"mine": dockerConfig("registry.example", "me"), "other": dockerConfig("other.example", "you"),
	}})
	return m, r
}

func testPod(secrets ...string) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u"}}
	for _, s := range secrets {
		p.Spec.ImagePullSecrets = append(p.Spec.ImagePullSecrets, v1.LocalObjectReference{Name: s})
	}
	return p
}

// ensure returns what Ensure did, and the Events.
func ensure(t *testing.T, m *Manager, p *v1.Pod, image string, policy v1.PullPolicy) (string, *Error, []string) {
	t.Helper()
	var events []string
	ref, err := m.Ensure(t.Context(), p, &v1.Container{Name: "c", Image: image, ImagePullPolicy: policy}, nil, func(kind, reason, message string) {
		events = append(events, kind+" "+reason+" "+message)
	})
	var e *Error
	if err != nil && !errors.As(err, &e) {
		t.Fatal(err)
	}
	return ref, e, events
}

func TestEnsure(t *testing.T) {
	pulled := `Normal Pulled Successfully pulled image %q in 0s (0s including waiting). Image size: 42 bytes.`
	refused := status.Error(codes.NotFound, "no such manifest")
	cases := map[string]struct {
		reason  string
		present []string
		secrets []string
		refuse  error
		image   string
		policy  v1.PullPolicy
		ref     string
		err     *Error
		events  []string
		calls   []string
	}{
		"Present": {
			reason:  "one call is all that a present image costs",
			present: []string{"a:1"}, image: "a:1", policy: v1.PullIfNotPresent, ref: "sha256:a:1",
			events: []string{`Normal Pulled Container image "a:1" already present on machine`},
			calls:  []string{"status a:1"},
		},
		"Latest": {
			reason: "without a tag it is latest, and latest is always pulled",
			image:  "a", ref: "sha256:a:latest", present: []string{"a:latest"},
			events: []string{"Normal " + events.PullingImage + ` Pulling image "a"`, fmt.Sprintf(pulled, "a")},
			calls:  []string{`pull a:latest as ""`, "status sha256:a:latest"},
		},
		"Digest": {
			reason: "a digest needs no tag",
			image:  "a@sha256:" + strings.Repeat("0", 64), policy: v1.PullNever,
			err: &Error{Reason: ReasonErrImageNeverPull, Message: `Container image "a@sha256:` + strings.Repeat("0", 64) + `" is not present with pull policy of Never`},
			events: []string{
				`Warning ErrImageNeverPull Container image "a@sha256:` + strings.Repeat("0", 64) + `" is not present with pull policy of Never`,
				"Warning Failed Error: ErrImageNeverPull",
			},
			calls: []string{"status a@sha256:" + strings.Repeat("0", 64)},
		},
		"Secrets": {
			reason: "only credentials for the image's registry are sent to it; a missing secret is an Event",
			image:  "registry.example/team/a:1", policy: v1.PullIfNotPresent, secrets: []string{"other", "gone", "", "mine"}, ref: "sha256:registry.example/team/a:1",
			events: []string{
				"Warning FailedToRetrieveImagePullSecret Unable to retrieve some image pull secrets (gone); attempting to pull the image may not succeed.",
				"Normal " + events.PullingImage + ` Pulling image "registry.example/team/a:1"`,
				fmt.Sprintf(pulled, "registry.example/team/a:1"),
			},
			calls: []string{
				"status registry.example/team/a:1", "status registry.example/team/a:1",
				`pull registry.example/team/a:1 as "me"`, "status sha256:registry.example/team/a:1",
			},
		},
		"Refused": {
			reason: "the registry's words are in the Event and the status",
			image:  "a:1", policy: v1.PullAlways, refuse: refused,
			err: &Error{Reason: ReasonErrImagePull, Message: refused.Error()},
			events: []string{
				"Normal " + events.PullingImage + ` Pulling image "a:1"`,
				eventFailedWarning + `Failed to pull image "a:1": ` + refused.Error(),
				"Warning Failed Error: ErrImagePull",
			},
			calls: []string{`pull a:1 as ""`},
		},
		"Unavailable": {
			reason: "a registry that does not answer has a reason of its own",
			image:  "a:1", policy: v1.PullAlways, refuse: status.Error(codes.Unknown, "RegistryUnavailable: try later"),
			err: &Error{Reason: "RegistryUnavailable", Message: "image pull failed for a:1 because the registry is unavailable: try later"},
			events: []string{
				"Normal " + events.PullingImage + ` Pulling image "a:1"`,
				eventFailedWarning + `Failed to pull image "a:1": rpc error: code = Unknown desc = RegistryUnavailable: try later`,
				"Warning Failed Error: RegistryUnavailable",
			},
			calls: []string{`pull a:1 as ""`},
		},
		"Invalid": {
			reason: "a name that is none never reaches the runtime",
			image:  "A B", policy: v1.PullAlways,
			err: &Error{Reason: ReasonInvalidImageName, Message: `Failed to apply default image tag "A B": couldn't parse image reference "A B": invalid reference format: repository name (library/A B) must be lowercase`},
			events: []string{
				`Warning InspectFailed Failed to apply default image tag "A B": couldn't parse image reference "A B": invalid reference format: repository name (library/A B) must be lowercase`,
				"Warning Failed Error: InvalidImageName",
			},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, r := newTest(tc.present...)
				if tc.refuse != nil {
					r.refuse[tc.image] = tc.refuse
				}
				ref, e, events := ensure(t, m, testPod(tc.secrets...), tc.image, tc.policy)
				if diff := cmp.Diff(tc.ref, ref); diff != "" {
					t.Errorf("%s\nEnsure() -want +got:\n%s", tc.reason, diff)
				}
				if e != nil {
					e = &Error{Reason: e.Reason, Message: e.Message}
				}
				if diff := cmp.Diff(tc.err, e); diff != "" {
					t.Errorf("%s\nerror -want +got:\n%s", tc.reason, diff)
				}
				if diff := cmp.Diff(tc.events, events); diff != "" {
					t.Errorf("%s\nevents -want +got:\n%s", tc.reason, diff)
				}
				pulls := strings.Count(strings.Join(events, "\n"), "Successfully pulled")
				if r.notified != pulls {
					t.Errorf("Pulled was called %d times, want %d", r.notified, pulls)
				}
				if diff := cmp.Diff(tc.calls, r.calls); diff != "" {
					t.Errorf("%s\ncalls -want +got:\n%s", tc.reason, diff)
				}
			})
		})
	}
}

func TestBackOff(t *testing.T) { synctest.Test(t, testBackOff) }

func testBackOff(t *testing.T) {
	m, r := newTest()
	r.refuse["a:1"] = errors.New("no")
	var delays []time.Duration
	for range 7 {
		_, e, _ := ensure(t, m, testPod(), "a:1", v1.PullAlways)
		if e.Reason != ReasonErrImagePull {
			t.Fatalf("reason %s, want %s", e.Reason, ReasonErrImagePull)
		}
		delays = append(delays, time.Until(e.RetryAt)/time.Second)
		// Asking too early says so, and does not ask the registry.
		pulls := len(r.calls)
		_, early, events := ensure(t, m, testPod(), "a:1", v1.PullAlways)
		if early.Reason != ReasonImagePullBackOff || early.Message != `Back-off pulling image "a:1": ErrImagePull: no` || !early.RetryAt.Equal(e.RetryAt) || len(r.calls) != pulls {
			t.Fatalf("asked too early: %+v", early)
		}
		if diff := cmp.Diff([]string{`Normal BackOff Back-off pulling image "a:1"`, "Warning Failed Error: ImagePullBackOff"}, events); diff != "" {
			t.Fatalf("events -want +got:\n%s", diff)
		}
		time.Sleep(time.Until(e.RetryAt)) // of the bubble
	}
	if diff := cmp.Diff([]time.Duration{10, 20, 40, 80, 160, 300, 300}, delays); diff != "" {
		t.Errorf("delays in seconds -want +got:\n%s", diff)
	}
	// Another Pod may have better credentials.
	other := testPod()
	other.UID = "v"
	if _, e, _ := ensure(t, m, other, "a:1", v1.PullAlways); e.Reason != ReasonErrImagePull {
		t.Errorf("another Pod got %s", e.Reason)
	}
	// Success forgets.
	delete(r.refuse, "a:1")
	if ref, e, _ := ensure(t, m, testPod(), "a:1", v1.PullAlways); e != nil || ref != "sha256:a:1" {
		t.Errorf("Ensure() = %q, %v", ref, e)
	}
}

func TestOnePullPerImage(t *testing.T) {
	m, r := newTest()
	r.block = make(chan struct{})
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if ref, e, _ := ensure(t, m, testPod(), "a:1", v1.PullIfNotPresent); e != nil || ref != "sha256:a:1" {
				t.Errorf("Ensure() = %q, %v", ref, e)
			}
		})
	}
	// Another image does not wait.
	close(r.block)
	wg.Wait()
	pulls := 0
	for _, call := range r.calls {
		if strings.HasPrefix(call, "pull") {
			pulls++
		}
	}
	if pulls != 1 || len(m.pulling) != 0 {
		t.Errorf("%d pulls for five containers, want 1; %d locks left, want 0", pulls, len(m.pulling))
	}
}

func TestCancelledPullIsNoFailure(t *testing.T) {
	m, r := newTest()
	r.block = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := m.Ensure(ctx, testPod(), &v1.Container{Image: "a:1", ImagePullPolicy: v1.PullAlways}, nil, func(_, reason, _ string) {
		if reason == events.FailedToPullImage {
			t.Error("an Event about a failure that is none")
		}
	})
	if !errors.Is(err, context.Canceled) || len(m.backoff) != 0 {
		t.Errorf("Ensure() = %v with %d in back-off, want cancelled and none", err, len(m.backoff))
	}
}

func TestUser(t *testing.T) {
	m, r := newTest("a:1")
	ref, _, _ := ensure(t, m, testPod(), "a:1", v1.PullIfNotPresent)
	calls := len(r.calls)
	uid, name, err := m.User(t.Context(), ref)
	if err != nil || uid != nil || name != "web" || len(r.calls) != calls {
		t.Errorf("User() = %v, %q, %v after %d calls, want web from memory", uid, name, err, len(r.calls)-calls)
	}
	if _, _, err := m.User(t.Context(), "sha256:none"); err == nil {
		t.Error("User() of an image that is not there succeeded")
	}
}

func TestEnsureVolume(t *testing.T) {
	cases := map[string]struct {
		reason string
		vol    v1.ImageVolumeSource
		ref    string
		err    string
		pulled int
	}{
		"Present":    {reason: "what is there is not pulled", vol: v1.ImageVolumeSource{Reference: "here:1", PullPolicy: v1.PullIfNotPresent}, ref: "sha256:here:1"},
		"Always":     {reason: "unless it is asked for", vol: v1.ImageVolumeSource{Reference: "here:1", PullPolicy: v1.PullAlways}, ref: "sha256:here:1", pulled: 1},
		"Default":    {reason: "as with containers", vol: v1.ImageVolumeSource{Reference: "here:1"}, ref: "sha256:here:1"},
		"DefaultTag": {reason: "as with containers", vol: v1.ImageVolumeSource{Reference: "latest"}, ref: "sha256:latest:latest", pulled: 1},
		"Never":      {reason: "with upstream's reason", vol: v1.ImageVolumeSource{Reference: "there:1", PullPolicy: v1.PullNever}, err: ReasonErrImageNeverPull},
		"Refused":    {reason: "with upstream's reason", vol: v1.ImageVolumeSource{Reference: "refused:1"}, err: ReasonErrImagePull},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			m, r := newTest("here:1")
			r.refuse["refused:1"] = errors.New("no")
			last := ""
			ref, err := m.EnsureVolume(t.Context(), testPod(), &tc.vol, nil, func(kind, reason, message string) { last = kind + " " + reason + " " + message })
			if ref != tc.ref || r.notified != tc.pulled {
				t.Errorf("%s: %q after %d pulls, want %q after %d", tc.reason, ref, r.notified, tc.ref, tc.pulled)
			}
			if e, ok := errors.AsType[*Error](err); (tc.err != "") != ok || ok && (e.Reason != tc.err || last != "Warning Failed Error: "+tc.err) {
				t.Errorf("%s: error %v after Event %q, want %s", tc.reason, err, last, tc.err)
			}
		})
	}
}

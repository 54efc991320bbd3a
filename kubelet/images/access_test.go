package images

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	"k8s.io/kubernetes/pkg/credentialprovider"
	internalconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
)

const (
	private  = "registry.example/team/a:1"
	imported = "registry.example/base:1"
	byID     = "sha256:0123456789012345678901234567890123456789012345678901234567890123"
)

// registry is a runtime whose registry gives its images to those who say that they are me.
type registry struct {
	*runtime
}

func (r registry) PullImage(ctx context.Context, in *runtimeapi.PullImageRequest, opts ...grpc.CallOption) (*runtimeapi.PullImageResponse, error) {
	if in.Auth.GetUsername() != "me" && in.Image.Image != "public.example/a:1" {
		r.notef("refuse %s to %q", in.Image.Image, in.Auth.GetUsername())
		return nil, status.Error(codes.Unknown, "401 Unauthorized")
	}
	return r.runtime.PullImage(ctx, in, opts...)
}

func (r registry) ListImages(context.Context, *runtimeapi.ListImagesRequest, ...grpc.CallOption) (*runtimeapi.ListImagesResponse, error) {
	list := &runtimeapi.ListImagesResponse{}
	r.mu.Lock()
	stored := maps.Clone(r.present)
	r.mu.Unlock()
	for name, image := range stored {
		if name == image.Id {
			list.Images = append(list.Images, &runtimeapi.Image{Id: image.Id, RepoTags: r.tags(image)})
		}
	}
	return list, nil
}

func (r registry) ImageStatus(ctx context.Context, in *runtimeapi.ImageStatusRequest, opts ...grpc.CallOption) (*runtimeapi.ImageStatusResponse, error) {
	resp, err := r.runtime.ImageStatus(ctx, in, opts...)
	if resp.GetImage() != nil {
		return &runtimeapi.ImageStatusResponse{Image: &runtimeapi.Image{Id: resp.Image.Id, RepoTags: r.tags(resp.Image)}}, nil
	}
	return resp, err
}

// tags are the names of an image, without its IDs.
func (r registry) tags(image *runtimeapi.Image) (tags []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, other := range r.present {
		if other == image && !strings.HasPrefix(name, "sha256:") {
			tags = append(tags, canonical(name))
		}
	}
	return tags
}

// tenant is a Pod in a namespace of its own, whose Secret of this name has credentials of user.
func tenant(namespace, secret string) *v1.Pod {
	p := testPod()
	p.Namespace, p.UID = namespace, types.UID(namespace)
	if secret != "" {
		p.Spec.ImagePullSecrets = []v1.LocalObjectReference{{Name: secret}}
	}
	return p
}

// newNode is a node whose runtime has one image that was imported. Two calls with the same dir and
// runtime are a restart.
func newNode(t *testing.T, dir string, r *runtime, policy kubeletconfig.ImagePullCredentialsVerificationPolicy, allowlist ...string) *Manager {
	t.Helper()
	access, err := NewAccess(t.Context(), AccessConfig{Dir: dir, Images: registry{r}, Policy: string(policy), Allowlist: allowlist})
	if err != nil {
		t.Fatal(err)
	}
	known := secrets{}
	for name, user := range map[string]string{"mine": "me", "same": "me", "wrong": "you"} {
		s := dockerConfig("registry.example", user)
		s.Name, s.Namespace, s.UID = name, "of-"+name, types.UID(name)
		known[name] = s
	}
	known["rotated"] = dockerConfig("registry.example", "me2")
	known["rotated"].Name, known["rotated"].Namespace, known["rotated"].UID = "mine", "of-mine", "mine"
	known["broken"] = &v1.Secret{Type: v1.SecretTypeDockerConfigJson, Data: map[string][]byte{v1.DockerConfigJsonKey: []byte("{")}}
	return New(Config{Images: registry{r}, Secrets: known, Access: access})
}

func newRuntime() *runtime {
	image := &runtimeapi.Image{Id: "sha256:" + imported}
	return &runtime{present: map[string]*runtimeapi.Image{imported: image, image.Id: image}, refuse: map[string]error{}}
}

// outcome is how a Pod gets the image: "present", "pulled", or the reason why not.
func outcome(t *testing.T, m *Manager, p *v1.Pod, image string, policy v1.PullPolicy) string {
	t.Helper()
	_, e, events := ensure(t, m, p, image, policy)
	switch {
	case e != nil:
		return e.Reason
	case slices.ContainsFunc(events, func(e string) bool { return e == fmt.Sprintf("Normal %s Pulling image %q", "Pulling", image) }):
		return "pulled"
	}
	return "present"
}

// TestAccess: Pod A pulled a private image and a public one, a third was imported; the kubelet has
// restarted since.
func TestAccess(t *testing.T) {
	const (
		refused = ReasonErrImagePull
		absent  = ReasonErrImageNeverPull
	)
	cases := map[string]struct {
		reason    string
		policy    kubeletconfig.ImagePullCredentialsVerificationPolicy
		allowlist []string
		image     string
		secret    string
		want      string // with IfNotPresent
		never     string // with Never
	}{
		"SameSecret":      {reason: "what it was pulled with", image: private, secret: "mine", want: "present", never: "present"},
		"SameCredentials": {reason: "as good as the same Secret", image: private, secret: "same", want: "present", never: "present"},
		"Rotated":         {reason: "access to the Secret is access to the image", image: private, secret: "rotated", want: "present", never: "present"},
		"None":            {reason: "a private image needs credentials", image: private, want: refused, never: absent},
		"Wrong":           {reason: "the registry says no", image: private, secret: "wrong", want: refused, never: absent},
		"Gone":            {reason: "no Secret, no credentials", image: private, secret: "gone", want: refused, never: absent},
		"Broken":          {reason: "what cannot be read allows nothing", image: private, secret: "broken", want: refused, never: absent},
		"ByID":            {reason: "another name of it opens nothing", image: byID, want: refused, never: absent},
		"Public":          {reason: "no credentials were needed", image: "public.example/a:1", want: "present", never: "present"},
		"Imported":        {reason: "preloaded images are for all", image: imported, want: "present", never: "present"},

		"NeverVerify":         {reason: "nothing is checked", policy: kubeletconfig.NeverVerify, image: private, want: "present", never: "present"},
		"AlwaysNone":          {reason: "everything is checked", policy: kubeletconfig.AlwaysVerify, image: private, want: refused, never: absent},
		"AlwaysSame":          {reason: "and found", policy: kubeletconfig.AlwaysVerify, image: private, secret: "mine", want: "present", never: "present"},
		"AlwaysPublic":        {reason: "and found", policy: kubeletconfig.AlwaysVerify, image: "public.example/a:1", want: "present", never: "present"},
		"AlwaysImported":      {reason: "imported images, too", policy: kubeletconfig.AlwaysVerify, image: imported, want: refused, never: absent},
		"AlwaysImportedMine":  {reason: "their registry decides", policy: kubeletconfig.AlwaysVerify, image: imported, secret: "mine", want: "pulled", never: absent},
		"Allowed":             {reason: "for all by name, with any credentials", policy: kubeletconfig.NeverVerifyAllowlistedImages, allowlist: []string{"registry.example/team/a"}, image: private, want: "present", never: "present"},
		"AllowedPattern":      {reason: "for all by beginning", policy: kubeletconfig.NeverVerifyAllowlistedImages, allowlist: []string{"registry.example/*"}, image: imported, want: "present", never: "present"},
		"NotAllowed":          {reason: "imported, and not listed", policy: kubeletconfig.NeverVerifyAllowlistedImages, allowlist: []string{"registry.example/team/*"}, image: imported, want: refused, never: absent},
		"NotAllowedNone":      {reason: "not listed and no credentials", policy: kubeletconfig.NeverVerifyAllowlistedImages, image: private, want: refused, never: absent},
		"NotAllowedSame":      {reason: "not listed, but with credentials", policy: kubeletconfig.NeverVerifyAllowlistedImages, image: private, secret: "mine", want: "present", never: "present"},
		"NotAllowedLookAlike": {reason: "a name is not its beginning", policy: kubeletconfig.NeverVerifyAllowlistedImages, allowlist: []string{"registry.example/te"}, image: private, want: refused, never: absent},
	}
	for name, tc := range cases {
		for policy, want := range map[v1.PullPolicy]string{v1.PullIfNotPresent: tc.want, v1.PullNever: tc.never} {
			t.Run(name+"/"+string(policy), func(t *testing.T) {
				dir, r := t.TempDir(), newRuntime()
				m := newNode(t, dir, r, tc.policy, tc.allowlist...)
				for _, image := range []string{private, "public.example/a:1"} {
					if got := outcome(t, m, tenant("a", "mine"), image, v1.PullIfNotPresent); got != "pulled" {
						t.Fatalf("the first Pod's image is %s, want pulled", got)
					}
				}
				r.present[byID] = r.present[private] // a runtime finds images by ID, too
				for _, when := range []string{"before", "after"} {
					if got := outcome(t, m, tenant("b-"+when, tc.secret), tc.image, policy); got != want {
						t.Errorf("%s\n%s a restart it is %s, want %s", tc.reason, when, got, want)
					}
					if want == "pulled" {
						break // it has a record now
					}
					m = newNode(t, dir, r, tc.policy, tc.allowlist...)
				}
			})
		}
	}
}

// TestAccessWhilePulled: a Pod that waits for the pull of another gets no access to its image.
func TestAccessWhilePulled(t *testing.T) {
	r := newRuntime()
	m := newNode(t, t.TempDir(), r, "")
	unlock, err := m.lockPull(t.Context(), private)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	go func() { got <- outcome(t, m, tenant("b", ""), private, v1.PullIfNotPresent) }()
	for { // until it waits
		m.mu.Lock()
		users := m.pulling[private].users
		m.mu.Unlock()
		if users == 2 {
			break
		}
		goruntime.Gosched()
	}
	image := &runtimeapi.Image{Id: "sha256:" + private}
	if err := m.cfg.Access.pulling(t.Context(), private); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.present[private], r.present[image.Id] = image, image
	r.mu.Unlock()
	m.cfg.Access.pulled(t.Context(), private, image.Id, secretOf("mine"))
	unlock()
	if got := <-got; got != ReasonErrImagePull {
		t.Errorf("the Pod that waited got %s, want %s", got, ReasonErrImagePull)
	}
}

func secretOf(name string) *credentialprovider.TrackedAuthConfig {
	return &credentialprovider.TrackedAuthConfig{
		AuthConfigHash: "hash", Source: &credentialprovider.CredentialSource{Secret: &credentialprovider.SecretCoordinates{UID: name, Namespace: "of-" + name, Name: name}},
	}
}

// TestAccessOfVolumes: the image of a volume is as private as that of a container.
func TestAccessOfVolumes(t *testing.T) {
	m := newNode(t, t.TempDir(), newRuntime(), "")
	for _, step := range []struct {
		secret, want string
		policy       v1.PullPolicy
	}{{"mine", "", v1.PullIfNotPresent}, {"same", "", v1.PullNever}, {"", ReasonErrImageNeverPull, v1.PullNever}, {"", ReasonErrImagePull, v1.PullIfNotPresent}} {
		vol := &v1.ImageVolumeSource{Reference: private, PullPolicy: step.policy}
		_, err := m.EnsureVolume(t.Context(), tenant("ns", step.secret), vol, nil, func(_, _, _ string) {})
		e, _ := errors.AsType[*Error](err)
		if e == nil && step.want != "" || e != nil && e.Reason != step.want {
			t.Errorf("with the Secret %q and policy %s: %v, want %q", step.secret, step.policy, err, step.want)
		}
	}
}

// TestAccessOfNames: two ways to write a name are one image.
func TestAccessOfNames(t *testing.T) {
	r := newRuntime()
	m := newNode(t, t.TempDir(), r, "")
	image := &runtimeapi.Image{Id: "sha256:b"}
	for _, name := range []string{"base:1", "docker.io/library/base:1"} {
		r.present[name] = image
	}
	if err := m.cfg.Access.pulling(t.Context(), "base:1"); err != nil {
		t.Fatal(err)
	}
	m.cfg.Access.pulled(t.Context(), "base:1", image.Id, nil)
	if got := outcome(t, m, tenant("b", ""), "docker.io/library/base:1", v1.PullNever); got != "present" {
		t.Errorf("under its long name the image is %s, want present", got)
	}
}

// TestAccessOfContent: an image that was imported under one name stays for all when a Pod pulls the
// same content under another, and not the other way round.
func TestAccessOfContent(t *testing.T) {
	for _, imported := range []string{"before", "after"} {
		dir, r := t.TempDir(), newRuntime()
		image := &runtimeapi.Image{Id: "sha256:" + private} // as the pull makes it
		if imported == "before" {
			r.present["base:2"] = image
		}
		m := newNode(t, dir, r, "")
		outcome(t, m, tenant("a", "mine"), private, v1.PullIfNotPresent)
		r.present["base:2"] = r.present[private]
		for _, when := range []string{"before", "after"} {
			if got := outcome(t, m, tenant("b", ""), "base:2", v1.PullNever); got != "present" {
				t.Errorf("imported %s the pull, %s a restart it is %s, want present", imported, when, got)
			}
			if got := outcome(t, m, tenant("b", ""), private, v1.PullNever); got != ReasonErrImageNeverPull {
				t.Errorf("imported %s the pull, %s a restart its private name is %s, want %s", imported, when, got, ReasonErrImageNeverPull)
			}
			m = newNode(t, dir, r, "")
		}
		m = newNode(t, dir, r, kubeletconfig.AlwaysVerify)
		if got := outcome(t, m, tenant("b", ""), "base:2", v1.PullNever); got != ReasonErrImageNeverPull {
			t.Errorf("with the policy AlwaysVerify it is %s, want %s", got, ReasonErrImageNeverPull)
		}
	}
}

// TestInterruptedPull: the kubelet ended between the runtime's pull and its own record of it.
func TestInterruptedPull(t *testing.T) {
	dir, r := t.TempDir(), newRuntime()
	if err := newNode(t, dir, r, "").cfg.Access.pulling(t.Context(), private); err != nil {
		t.Fatal(err)
	}
	image := &runtimeapi.Image{Id: "sha256:" + private}
	r.present[private], r.present[image.Id] = image, image
	m := newNode(t, dir, r, "")
	for _, step := range []struct{ secret, want string }{{"", ReasonErrImagePull}, {"mine", "pulled"}, {"same", "present"}} {
		if got := outcome(t, m, tenant("of-"+step.secret, step.secret), private, v1.PullIfNotPresent); got != step.want {
			t.Errorf("with the Secret %q it is %s, want %s", step.secret, got, step.want)
		}
	}
}

// TestFailedPull: a pull that fails leaves nothing behind, so that an image that is imported
// instead is for all.
func TestFailedPull(t *testing.T) {
	dir, r := t.TempDir(), newRuntime()
	m := newNode(t, dir, r, "")
	if got := outcome(t, m, tenant("a", "wrong"), private, v1.PullIfNotPresent); got != ReasonErrImagePull {
		t.Fatalf("the pull ended with %s, want %s", got, ReasonErrImagePull)
	}
	image := &runtimeapi.Image{Id: "sha256:" + private}
	r.present[private], r.present[image.Id] = image, image
	if got := outcome(t, m, tenant("b", ""), private, v1.PullNever); got != "present" {
		t.Errorf("once imported it is %s, want present", got)
	}
}

// TestFailedPullThatStored: a pull fails, and the image may be there nevertheless. Before, the name
// may have meant another image, that was imported.
func TestFailedPullThatStored(t *testing.T) {
	const was, is = "sha256:was", "sha256:is"
	disk := status.Error(codes.Unknown, "no space left on device")
	unreachable := status.Error(codes.Unknown, `failed to pull and unpack image: failed to resolve reference "registry.example/team/a:1": i/o timeout`)
	for name, tc := range map[string]struct {
		reason        string
		before, after string // ID
		err           error
		blind         bool // the runtime does not say what is there
		want          string
	}{
		"Stored":    {reason: "no credentials are known for it", after: is, err: disk, want: ReasonErrImageNeverPull},
		"Cancelled": {reason: "the answer is lost, not the image", after: is, err: context.Canceled, want: ReasonErrImageNeverPull},
		"Another":   {reason: "the name means another image now", before: was, after: is, err: disk, want: ReasonErrImageNeverPull},
		"Blind":     {reason: "it may be there", after: is, err: disk, blind: true, want: ReasonErrImageNeverPull},
		"Same":      {reason: "an imported image stays for all", before: was, after: was, err: disk, want: "present"},
		"SameAgain": {reason: "also if the Pod is deleted", before: was, after: was, err: context.Canceled, want: "present"},
		"Imported":  {reason: "the pull did not even begin", after: is, err: unreachable, want: "present"},
		"Attempts":  {reason: "none of several began", after: is, err: errors.Join(unreachable, unreachable), want: "present"},
		"Mixed":     {reason: "one of several did", after: is, err: errors.Join(unreachable, disk), want: ReasonErrImageNeverPull},
	} {
		t.Run(name, func(t *testing.T) {
			dir, r := t.TempDir(), newRuntime()
			put := func(id string) {
				image := &runtimeapi.Image{Id: id}
				r.present[private], r.present[id] = image, image
			}
			if tc.before != "" {
				put(tc.before)
			}
			m := newNode(t, dir, r, "")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			m.cfg.Images = storing{registry: registry{r}, blind: &tc.blind, pull: func() error {
				put(tc.after)
				if errors.Is(tc.err, context.Canceled) {
					cancel()
				}
				return tc.err
			}}
			c := &v1.Container{Name: "c", Image: private, ImagePullPolicy: v1.PullAlways}
			if _, err := m.Ensure(ctx, tenant("a", "mine"), c, nil, func(string, string, string) {}); err == nil {
				t.Fatal("the pull did not fail")
			}
			tc.blind = false
			for _, when := range []string{"before", "after"} {
				if got := outcome(t, m, tenant("b", ""), private, v1.PullNever); got != tc.want {
					t.Errorf("%s: %s a restart it is %s, want %s", tc.reason, when, got, tc.want)
				}
				m = newNode(t, dir, r, "")
			}
			if got := outcome(t, m, tenant("a", "mine"), private, v1.PullAlways); got != "pulled" {
				t.Errorf("with credentials it is %s, want pulled", got)
			}
		})
	}
}

// TestPullWithoutID: a runtime that answers with a digest, and then not at all, leaves open which
// image to write into the record.
func TestPullWithoutID(t *testing.T) {
	r := newRuntime()
	m := newNode(t, t.TempDir(), r, "")
	blind := false
	m.cfg.Images = storing{registry: registry{r}, blind: &blind, pull: func() error {
		image := &runtimeapi.Image{Id: "sha256:" + private}
		r.present[private], r.present[image.Id] = image, image
		return nil
	}}
	if got := outcome(t, m, tenant("a", "mine"), private, v1.PullIfNotPresent); got != "pulled" {
		t.Fatalf("it is %s, want pulled", got)
	}
	blind = false
	if got := outcome(t, m, tenant("b", ""), private, v1.PullNever); got != ReasonErrImageNeverPull {
		t.Errorf("without credentials it is %s, want %s", got, ReasonErrImageNeverPull)
	}
}

// storing is a runtime whose pulls do what pull does, and that says nothing of images after one if
// it is blind, or if its answer was a digest.
type storing struct {
	registry
	pull  func() error
	blind *bool
}

func (s storing) PullImage(context.Context, *runtimeapi.PullImageRequest, ...grpc.CallOption) (*runtimeapi.PullImageResponse, error) {
	s.notef("pulled")
	if err := s.pull(); err != nil {
		return nil, err
	}
	*s.blind = true
	return &runtimeapi.PullImageResponse{ImageRef: "registry.example/team/a@" + byID}, nil
}

func (s storing) ImageStatus(ctx context.Context, in *runtimeapi.ImageStatusRequest, opts ...grpc.CallOption) (*runtimeapi.ImageStatusResponse, error) {
	s.mu.Lock()
	silent := *s.blind && slices.Contains(s.calls, "pulled")
	s.mu.Unlock()
	if silent {
		return nil, status.Error(codes.Unavailable, "no answer")
	}
	return s.registry.ImageStatus(ctx, in, opts...)
}

// TestNoRecordNoPull: all Pods might use an image without a record.
func TestNoRecordNoPull(t *testing.T) {
	dir, r := t.TempDir(), newRuntime()
	m := newNode(t, dir, r, "")
	intents := filepath.Join(dir, "image_manager", "pulling")
	if err := errors.Join(os.RemoveAll(intents), os.WriteFile(intents, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if got := outcome(t, m, tenant("a", "mine"), private, v1.PullIfNotPresent); got != ReasonErrImagePull || r.present[private] != nil {
		t.Errorf("it is %s, and present: %t, want %s and not", got, r.present[private] != nil, ReasonErrImagePull)
	}
}

// TestPrune: the record of an image goes with the image, unless a pull may just have brought it
// back.
func TestPrune(t *testing.T) {
	cases := map[string]struct {
		reason string
		left   []string
		during func(*Access)
		before func(*Access)
		want   string // the outcome for a Pod without credentials, once the image is imported
	}{
		"Gone":   {reason: "an image that comes back is another one", want: "present"},
		"There":  {reason: "a record stays with its image", left: []string{"sha256:" + private}, want: ReasonErrImageNeverPull},
		"Pulled": {reason: "the list is older than the pull", during: func(a *Access) { begin(a); a.pulled(context.Background(), "other", "", nil) }, want: ReasonErrImageNeverPull},
		"Pulls":  {reason: "the list may be older than the pull", during: begin, want: ReasonErrImageNeverPull},
		"Before": {reason: "a pull that runs may be of this image", before: begin, want: ReasonErrImageNeverPull},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			m := newNode(t, t.TempDir(), newRuntime(), "")
			outcome(t, m, tenant("a", "mine"), private, v1.PullIfNotPresent)
			if tc.before != nil {
				tc.before(m.cfg.Access)
			}
			if err := m.cfg.Access.Prune(t.Context(), func() ([]string, error) {
				if tc.during != nil {
					tc.during(m.cfg.Access)
				}
				return tc.left, nil
			}); err != nil {
				t.Fatal(err)
			}
			if got := outcome(t, m, tenant("b", ""), private, v1.PullNever); got != tc.want {
				t.Errorf("%s\nit is %s, want %s", tc.reason, got, tc.want)
			}
		})
	}
}

func begin(a *Access) {
	if err := a.pulling(context.Background(), "other"); err != nil {
		panic(err)
	}
}

// TestRecorded: what is kept of credentials names their source and has no secret in it.
func TestRecorded(t *testing.T) {
	for name, tc := range map[string]struct {
		with *credentialprovider.TrackedAuthConfig
		want internalconfig.ImagePullCredentials
	}{
		"None":      {nil, internalconfig.ImagePullCredentials{NodePodsAccessible: true}},
		"OfTheNode": {&credentialprovider.TrackedAuthConfig{}, internalconfig.ImagePullCredentials{NodePodsAccessible: true}},
		"Secret":    {secretOf("s"), internalconfig.ImagePullCredentials{KubernetesSecrets: []internalconfig.ImagePullSecret{{UID: "s", Namespace: "of-s", Name: "s", CredentialHash: "hash"}}}},
		"Unknown":   {&credentialprovider.TrackedAuthConfig{Source: &credentialprovider.CredentialSource{}}, internalconfig.ImagePullCredentials{}},
	} {
		if diff := cmp.Diff(tc.want, recorded(tc.with)); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
	}
}

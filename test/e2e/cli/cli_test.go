// Package cli tests what the program says of itself, of its host, of its parts and of its images.
package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/tarball"
	corev1 "k8s.io/api/core/v1"

	"flyball.dev/test/e2e/internal/cluster"
	"flyball.dev/test/images"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// flyball runs the program and returns what it printed, its errors, and its exit code.
func flyball(t *testing.T, args ...string) (out, errs string, code int) {
	t.Helper()
	var o, e strings.Builder
	cmd := exec.CommandContext(t.Context(), cluster.Binary(), args...)
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

// succeeds is flyball that must not fail.
func succeeds(t *testing.T, args ...string) string {
	t.Helper()
	out, errs, code := flyball(t, args...)
	if code != 0 {
		t.Fatalf("flyball %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

func decode(t *testing.T, data string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(data), into); err != nil {
		t.Fatalf("%v in:\n%s", err, data)
	}
}

func TestVersion(t *testing.T) {
	var v struct {
		Flyball string
		Parts   []struct{ Name, Version string }
	}
	decode(t, succeeds(t, "version", "-o", "json"), &v)
	if v.Flyball == "" || v.Flyball == "unknown" {
		t.Errorf("flyball itself is %q", v.Flyball)
	}
	missing := map[string]bool{}
	for _, name := range []string{
		"go", "kubernetes", "etcd", "coredns", "controller-runtime", "containerd", "containerd-shim-runc-v2", "runc",
		"cni bridge", "cni host-local", "cni loopback", "cni portmap",
	} {
		missing[name] = true
	}
	number := regexp.MustCompile(`^(v|go)\d+\.\d+(\.\d+)?`)
	text := succeeds(t, "version")
	for _, p := range v.Parts {
		delete(missing, p.Name)
		if !number.MatchString(p.Version) {
			t.Errorf("%s is of version %q", p.Name, p.Version)
		}
		if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(p.Name) + ` +` + regexp.QuoteMeta(p.Version) + `$`).MatchString(text) {
			t.Errorf("the table has no line for %s %s:\n%s", p.Name, p.Version, text)
		}
	}
	if len(missing) > 0 {
		t.Errorf("there are no versions of %v", missing)
	}

	var k struct {
		ClientVersion, ServerVersion struct{ GitVersion, Major, Minor string }
	}
	decode(t, succeeds(t, "kubectl", "version", "-o", "json"), &k)
	for side, got := range map[string]struct{ GitVersion, Major, Minor string }{"server": k.ServerVersion, "client": k.ClientVersion} {
		if got.GitVersion != "v1.37.2+flyball" || got.Major != "1" || got.Minor != "37" {
			t.Errorf("the %s is %+v", side, got)
		}
	}
}

type finding struct {
	Name, Detail, Remedy string
	OK, Required         bool
}

func TestCheck(t *testing.T) {
	line := regexp.MustCompile(`^ [✓!✗] [^:]+: .+`)
	// A cluster that runs is no conflict with itself.
	out := succeeds(t, "check")
	for l := range strings.Lines(out) {
		if !line.MatchString(l) {
			t.Errorf("a line is %q", l)
		}
	}
	var found []finding
	decode(t, succeeds(t, "check", "-o", "json"), &found)
	if len(found) != strings.Count(out, "\n") || len(found) < 5 {
		t.Errorf("there are %d findings, and as text\n%s", len(found), out)
	}
	for _, f := range found {
		if !f.OK && (f.Required || f.Remedy == "") {
			t.Errorf("%+v", f)
		}
	}
}

func TestImages(t *testing.T) {
	registry, err := images.NewRegistry("", "")
	if err != nil {
		t.Fatal(err)
	}
	defer registry.Close()
	tag, img, err := images.Build(t.Context(), "toolbox")
	if err != nil {
		t.Fatal(err)
	}
	list := func() string { return succeeds(t, "image", "list") }
	for _, ref := range []string{"flyball.dev/pause:1", cluster.Hello, cluster.Toolbox} {
		if !strings.Contains(list(), ref+" ") {
			t.Errorf("%s is not in the list:\n%s", ref, list())
		}
	}

	t.Run("Pull", func(t *testing.T) {
		ref, err := registry.Push("team/pulled:1", img)
		if err != nil {
			t.Fatal(err)
		}
		before := registry.Requests()
		succeeds(t, "image", "pull", ref)
		if registry.Requests() == before {
			t.Error("nothing was asked of the registry")
		}
		if !strings.Contains(list(), ref+" ") {
			t.Errorf("%s is not in the list:\n%s", ref, list())
		}
		// A Pod needs the registry no more.
		registry.SetDown(true)
		defer registry.SetDown(false)
		c := corev1.Container{Image: ref, ImagePullPolicy: corev1.PullNever, Args: []string{"echo", "pulled"}}
		if got := cluster.Output(t, cluster.Namespace(t), "pulled", corev1.PodSpec{Containers: []corev1.Container{c}}); got != "pulled\n" {
			t.Errorf("the image's container printed %q", got)
		}
	})
	t.Run("PullNothing", func(t *testing.T) {
		ref := registry.Host + "/team/nosuch:1"
		if out, errs, code := flyball(t, "image", "pull", ref); code != 1 || out != "" || !strings.Contains(errs, ref) || strings.Count(errs, "\n") != 1 {
			t.Errorf("pulling what is not there: exit code %d, %q, %q", code, out, errs)
		}
	})
	t.Run("Import", func(t *testing.T) {
		named := tag.Tag("imported")
		file := filepath.Join(t.TempDir(), "image.tar")
		if err := tarball.WriteToFile(file, named, img); err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(succeeds(t, "image", "import", file)); got != named.Name() {
			t.Errorf("importing printed %q, want %q", got, named.Name())
		}
		if !strings.Contains(list(), named.Name()+" ") {
			t.Errorf("%s is not in the list:\n%s", named, list())
		}
		if err := os.WriteFile(file, []byte("no archive"), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, errs, code := flyball(t, "image", "import", file); code != 1 || out != "" || !strings.Contains(errs, file) {
			t.Errorf("importing what is no archive: exit code %d, %q, %q", code, out, errs)
		}
	})
}

// TestStatus kills containerd until it is seen to be down.
func TestStatus(t *testing.T) {
	down := regexp.MustCompile(`(?m)^containerd +(down|starting) .*process \d+ ended`)
	for l := range strings.Lines(succeeds(t, "status")) {
		if !strings.HasPrefix(l, "PART ") && !strings.Contains(l, " up ") {
			t.Errorf("all is well, and a line is %q", l)
		}
	}
	cluster.Eventually(t, cluster.Soon, func() error {
		// The second time, it waits for a moment before it starts containerd again.
		_ = syscall.Kill(cluster.PID(t, "containerd/containerd"), syscall.SIGKILL)
		out, errs, code := flyball(t, "status")
		if code != 1 || !down.MatchString(out) {
			return fmt.Errorf("without containerd: exit code %d\n%s%s", code, out, errs)
		}
		return nil
	})
	cluster.Eventually(t, cluster.Soon, func() error {
		if out, _, code := flyball(t, "status"); code != 0 {
			return fmt.Errorf("containerd is not started again:\n%s", out)
		}
		return nil
	})
	var all []struct {
		Parts []struct {
			Name, LastError string
			Restarts        int
		}
	}
	decode(t, succeeds(t, "status", "-o", "json"), &all)
	for _, p := range all[0].Parts {
		if p.Name == "containerd" && (p.Restarts == 0 || !strings.Contains(p.LastError, "ended")) {
			t.Errorf("afterwards it is %+v", p)
		}
	}
	if got := cluster.Output(t, cluster.Namespace(t), "afterwards", corev1.PodSpec{Containers: []corev1.Container{{Args: []string{"echo", "hello"}}}}); got != "hello\n" {
		t.Errorf("a Pod afterwards printed %q", got)
	}
}

// TestWithoutCluster comes last: it takes the cluster down.
func TestWithoutCluster(t *testing.T) {
	if err := cluster.Flyball("down"); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"status"}, {"image", "list"}} {
		if out, errs, code := flyball(t, args...); code != 1 || out != "" || !strings.Contains(errs, "not running") || !strings.Contains(errs, "flyball up") {
			t.Errorf("flyball %v without a cluster: exit code %d, %q, %q", args, code, out, errs)
		}
	}
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	out, _, code := flyball(t, "check", "--port", port)
	if want := regexp.MustCompile(`(?m)^ ✗ port ` + port + ` \(API server\): .*cli\.test.*; .*stop`); code != 1 || !want.MatchString(out) {
		t.Errorf("with its port in use: exit code %d\n%s", code, out)
	}
}

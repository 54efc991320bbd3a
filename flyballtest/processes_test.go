package flyballtest_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"flyball.dev/flyballtest"
)

// role says what this process is to be for the test that has started it.
const role = "FLYBALLTEST_ROLE"

// again is the command that runs a test of this program in a process of its own, in a role.
func again(t *testing.T, as string, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(append(os.Environ(), role+"="+as), env...)
	return cmd
}

// goEnv is a setting of go.
func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// Processes that start clusters at the same time, as those of one `go test ./...` do, share neither
// ports nor directories, and leave nothing behind. None of them has the program: one builds it, and
// the others wait.
func TestProcesses(t *testing.T) {
	if as := os.Getenv(role); as != "" {
		oneOfSeveral(t, as)
		return
	}
	temporary, goPath := t.TempDir(), filepath.Join(goEnv(t, "GOROOT"), "bin")
	env := []string{"TMPDIR=" + temporary}
	if !testing.Short() {
		env = append(env, "FLYBALL_ASSETS=", "KUBEBUILDER_ASSETS=", "PATH="+goPath, "XDG_CACHE_HOME="+t.TempDir(), "GOCACHE="+goEnv(t, "GOCACHE"))
	}
	type child struct {
		name string
		done func()
		*exec.Cmd
	}
	var children []child
	for i := range 3 {
		c := child{name: fmt.Sprintf("process-%d", i)}
		c.Cmd = again(t, c.name, env...)
		stdin, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		c.done = func() { _ = stdin.Close() }
		children = append(children, c)
	}
	taken := map[string]string{}
	lines := make([]*bufio.Reader, len(children))
	for i, c := range children {
		stdout, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		c.Stderr = c.Stdout
		lines[i] = bufio.NewReader(stdout)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range children { // all of them run now
		var said strings.Builder
		for {
			line, err := lines[i].ReadString('\n')
			said.WriteString(line)
			if has, found := strings.CutPrefix(line, "has "); found {
				for what := range strings.FieldsSeq(has) {
					if other := taken[what]; other != "" {
						t.Errorf("%s and %s both have %s", c.name, other, what)
					}
					taken[what] = c.name
				}
				break
			}
			if err != nil {
				t.Fatalf("%s has no cluster: %v\n%s", c.name, err, said.String())
			}
		}
	}
	for i, c := range children {
		c.done()
		rest, _ := io.ReadAll(lines[i])
		if err := c.Wait(); err != nil {
			t.Errorf("%s: %v\n%s", c.name, err, rest)
		}
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("left in the directory for temporary files: %v, %v", left, err)
	}
}

// oneOfSeveral has a cluster until standard input ends, and sees that nobody else uses it.
func oneOfSeveral(t *testing.T, name string) {
	cluster := flyballtest.Start(t, flyballtest.WithoutControllers(), flyballtest.WithCRDs("testdata/crd"), flyballtest.WithWebhooks("testdata/webhooks"))
	client, _ := clients(t, cluster)
	mine := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := client.CoreV1().ConfigMaps("default").Create(t.Context(), mine, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	hooks := cluster.Webhooks()
	fmt.Printf("\nhas %s https://%s:%d %s\n", cluster.Config().Host, hooks.Host, hooks.Port, cluster.Kubeconfig())
	_, _ = io.Copy(io.Discard, os.Stdin)
	list, err := client.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 || list.Items[0].Name != name {
		t.Errorf("the cluster of %s has %v, %v", name, list.Items, err)
	}
}

// A test that fails shows the logs of its cluster. One that passes does not.
func TestLogs(t *testing.T) {
	const failing, passing = "failing", "passing"
	if as := os.Getenv(role); as != "" {
		flyballtest.Start(t, flyballtest.WithoutControllers())
		if as == failing {
			t.Fail()
		}
		return
	}
	for _, as := range []string{failing, passing} {
		t.Run(as, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^TestLogs$")
			cmd.Env = append(os.Environ(), role+"="+as)
			out, err := cmd.CombinedOutput()
			if exit := new(exec.ExitError); (as == failing) != errors.As(err, &exit) {
				t.Fatalf("it ends with %v:\n%s", err, out)
			}
			for _, name := range []string{"etcd", "kube-apiserver"} {
				if shown := strings.Contains(string(out), "the end of the log of "+name); shown != (as == failing) {
					t.Errorf("the log of %s is shown: %v\n%s", name, shown, out)
				}
			}
		})
	}
}

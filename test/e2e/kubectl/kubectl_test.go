// Package kubectl tests what kubectl asks the node agent for: logs, exec, attach, port-forward and cp.
package kubectl

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"flyball.dev/test/e2e/internal/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

func run(t *testing.T, ns, name string, args ...string) {
	t.Helper()
	cluster.Run(t, ns, name, corev1.PodSpec{Containers: []corev1.Container{{Args: args}}})
	cluster.Await(t, ns, name, cluster.Ready)
}

func TestLogs(t *testing.T) {
	ns := cluster.Namespace(t)
	cluster.Run(t, ns, "done", corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Args: []string{"lines", "10", "0.3"}}}})

	// Following ends with the container, and misses nothing.
	cluster.Await(t, ns, "done", func(p *corev1.Pod) error {
		if p.Status.Phase == corev1.PodPending {
			return errors.New("it has not started")
		}
		return nil
	})
	followed := cluster.Kubectl(t, "logs", "-n", ns, "done", "-f")
	if got := strings.Count(followed, "line "); got != 10 {
		t.Errorf("following gave %d lines, want 10:\n%s", got, followed)
	}
	cluster.Await(t, ns, "done", cluster.Phase(corev1.PodSucceeded))
	logs := func(args ...string) string {
		return cluster.Kubectl(t, append([]string{"logs", "-n", ns, "done"}, args...)...)
	}
	if got := logs(); got != followed {
		t.Errorf("without following it is\n%s\nwith it was\n%s", got, followed)
	}
	if got := logs("--tail=2"); strings.Count(got, "\n") != 2 || !strings.HasSuffix(got, "line 9\n") {
		t.Errorf("the last two lines are\n%s", got)
	}
	if got := logs("--limit-bytes=6"); got != "line 0" {
		t.Errorf("six bytes are %q", got)
	}
	stamped := strings.Split(logs("--timestamps"), "\n")
	last, _, _ := strings.Cut(stamped[9], " ")
	// kubectl sends whole seconds, in which there may be three more lines.
	if since := logs("--since-time=" + last); strings.Contains(since, "line 0\n") || !strings.Contains(since, "line 9\n") {
		t.Errorf("since the last line's second it is\n%s", since)
	}
	if got := logs("--since=1h"); got != followed {
		t.Errorf("since an hour it is\n%s", got)
	}
}

func TestPreviousLogs(t *testing.T) {
	ns := cluster.Namespace(t)
	run(t, ns, "again", "serve", "http=:8080")
	pod := cluster.Await(t, ns, "again", cluster.Ready)
	url := "http://" + pod.Status.PodIP + ":8080/"
	cluster.Eventually(t, cluster.Soon, func() error {
		_, err := cluster.Get(t.Context(), url)
		return err
	})
	_, _ = cluster.Get(t.Context(), url+"exit")
	cluster.Await(t, ns, "again", func(p *corev1.Pod) error {
		if p.Status.ContainerStatuses[0].RestartCount != 1 {
			return errors.New("it was not started again")
		}
		return cluster.Ready(p)
	})
	if got := cluster.Kubectl(t, "logs", "-n", ns, "again"); strings.Contains(got, "GET /") {
		t.Errorf("the new container's log has lines of the old one's:\n%s", got)
	}
	if got := cluster.Kubectl(t, "logs", "-n", ns, "again", "--previous"); !strings.Contains(got, "GET / ") {
		t.Errorf("the previous container's log is\n%s", got)
	}
}

func TestExec(t *testing.T) {
	ns := cluster.Namespace(t)
	run(t, ns, "box", "sleep", "inf")
	in := func(input string, args ...string) (string, error) {
		return cluster.TryKubectl(t, input, append([]string{"exec", "-n", ns, "box"}, args...)...)
	}
	if got, err := in("", "--", "echo", "hello", "there"); err != nil || got != "hello there\n" {
		t.Errorf("exec echo: %q, %v", got, err)
	}
	large := strings.Repeat("0123456789abcdef", 1<<16)
	if got, err := in(large, "-i", "--", "cat"); err != nil || got != large {
		t.Errorf("a megabyte through cat: %d bytes, %v", len(got), err)
	}
	_, err := in("", "--", "toolbox", "exit", "7")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("exit code 7 became %v", err)
	}
	if _, err := in("", "--", "nosuch"); err == nil {
		t.Error("a program that does not exist was run")
	}
	if got := terminal(t, "exec", "-it", "-n", ns, "box", "--", "echo", "on a terminal"); got != "on a terminal\r\n" {
		t.Errorf("with a terminal: %q", got)
	}
}

func TestAttach(t *testing.T) {
	ns := cluster.Namespace(t)
	cluster.Run(t, ns, "cat", corev1.PodSpec{Containers: []corev1.Container{{Args: []string{"cat"}, Stdin: true, StdinOnce: true}}, RestartPolicy: corev1.RestartPolicyNever})
	cluster.Await(t, ns, "cat", cluster.Ready)
	if got := cluster.KubectlInput(t, "said\n", "attach", "-i", "-n", ns, "cat"); got != "said\n" {
		t.Errorf("attached to cat: %q", got)
	}
	cluster.Await(t, ns, "cat", cluster.Phase(corev1.PodSucceeded))
}

func TestPortForward(t *testing.T) {
	ns := cluster.Namespace(t)
	run(t, ns, "web", "serve", "http=:8080")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, cluster.Binary(), "kubectl", "--kubeconfig", cluster.Kubeconfig, "port-forward", "-n", ns, "pod/web", ":8080")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	port := regexp.MustCompile(`127\.0\.0\.1:(\d+)`).FindStringSubmatch(line)
	if port == nil {
		t.Fatalf("it says %q", line)
	}
	for range 3 {
		got, err := cluster.Get(t.Context(), "http://127.0.0.1:"+port[1]+"/")
		if err != nil || got != "web\n" {
			t.Errorf("through the forwarded port: %q, %v", got, err)
		}
	}
}

func TestCopy(t *testing.T) {
	ns := cluster.Namespace(t)
	run(t, ns, "box", "sleep", "inf")
	dir := t.TempDir()
	content := bytes.Repeat([]byte("flyball\n"), 1<<15)
	if err := os.WriteFile(filepath.Join(dir, "there"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	cluster.Kubectl(t, "cp", filepath.Join(dir, "there"), ns+"/box:/tmp/copied")
	cluster.Kubectl(t, "cp", ns+"/box:/tmp/copied", filepath.Join(dir, "back"))
	got, err := os.ReadFile(filepath.Join(dir, "back"))
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("a file came back with %d bytes of %d: %v", len(got), len(content), err)
	}
}

// TestRun is what people try first.
func TestRun(t *testing.T) {
	ns := cluster.Namespace(t)
	got := cluster.KubectlInput(t, "first try\n", "run", "-n", ns, "once", "--image", cluster.Toolbox, "--restart=Never", "--rm", "-i", "--quiet", "--", "cat")
	if !strings.HasPrefix(got, "first try\n") {
		t.Errorf("kubectl run: %q", got)
	}
	if got := cluster.Kubectl(t, "version"); !strings.Contains(got, "Server Version: v1.37.2+flyball") {
		t.Errorf("kubectl version says %s", got)
	}
}

// terminal runs kubectl with a terminal, and returns what it wrote there.
func terminal(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	main, child, err := openTerminal()
	if err != nil {
		t.Fatal(err)
	}
	defer main.Close()
	cmd := exec.CommandContext(ctx, cluster.Binary(), append([]string{"kubectl", "--kubeconfig", cluster.Kubeconfig}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = child, child, child
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	child.Close()
	var out bytes.Buffer
	_, _ = io.Copy(&out, main) // ends with EIO when the last user of the terminal is gone
	if err := cmd.Wait(); err != nil {
		t.Errorf("kubectl %s on a terminal: %v", strings.Join(args, " "), fmt.Errorf("%w: %s", err, &out))
	}
	return out.String()
}

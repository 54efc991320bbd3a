package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Kubeconfig is that of the administrator.
const Kubeconfig = "/etc/flyball/kubeconfig"

// Times that waiting may take.
const (
	// Soon is for what takes a second on an idle machine.
	Soon = 60 * time.Second
	// Interval between two looks at a condition.
	Interval = 50 * time.Millisecond
)

// Client talks to the cluster as its administrator.
func Client(t testing.TB) kubernetes.Interface {
	t.Helper()
	c, err := kubernetes.NewForConfig(RESTConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// RESTConfig is the administrator's.
func RESTConfig(t testing.TB) *rest.Config {
	t.Helper()
	cfg, err := clientcmd.BuildConfigFromFlags("", Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	cfg.QPS = -1
	return cfg
}

// Namespace makes a namespace of its own for the test, in which Pods can be created. It goes away with the test.
func Namespace(t testing.TB) string {
	t.Helper()
	c := Client(t)
	ns, err := c.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		zero := int64(0)
		ctx := context.WithoutCancel(t.Context())
		// Without Pods that take their time to end, the namespace goes at once.
		_ = c.CoreV1().Pods(ns.Name).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &zero}, metav1.ListOptions{})
		_ = c.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{})
	})
	Eventually(t, Soon, func() error {
		_, err := c.CoreV1().ServiceAccounts(ns.Name).Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	return ns.Name
}

// Eventually calls check until it returns nil, and fails the test with its last error after timeout.
func Eventually(t testing.TB, timeout time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	tick := time.NewTicker(Interval)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s still: %v", timeout, err)
		}
		<-tick.C
	}
}

// Kubectl runs the built-in kubectl and returns what it printed. It fails the test if kubectl fails.
func Kubectl(t testing.TB, args ...string) string {
	t.Helper()
	return KubectlInput(t, "", args...)
}

// KubectlInput is Kubectl with standard input.
func KubectlInput(t testing.TB, input string, args ...string) string {
	t.Helper()
	out, err := TryKubectl(t, input, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TryKubectl is KubectlInput that returns the error.
func TryKubectl(t testing.TB, input string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), Binary(), append([]string{"kubectl", "--kubeconfig", Kubeconfig}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("running kubectl %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

// Get answers with the body of a URL, asked for on a connection of its own.
func Get(ctx context.Context, url string) (string, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Second}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("getting %s: %s", url, resp.Status)
	}
	return string(body), err
}

// Gone returns nil if the error says that there is no such object.
func Gone(err error) error {
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err == nil:
		return errors.New("it is still there")
	}
	return err
}

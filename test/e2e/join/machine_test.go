package join

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"flyball.dev/test/e2e/internal/cluster"
)

const (
	// second is the machine that joins, secondIP its address and serverIP the server's on the link between them.
	second   = "joining"
	secondIP = "192.168.79.2"
	serverIP = "192.168.79.1"
	// leftoversVariable makes this program list what is left of Flyball in the machine that it runs in.
	leftoversVariable = "FLYBALL_E2E_LEFTOVERS"
)

// program makes the second machine; test/machine says what it is.
var program string

// prepare makes the second machine: the server's address is on the link to it.
func prepare(dir string) error {
	program = filepath.Join(dir, "machine")
	build := exec.Command("go", "build", "-o", program, "./test/machine")
	build.Dir = cluster.Root()
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building test/machine: %w: %s", err, out)
	}
	// One that an interrupted run left would have joined already.
	for _, args := range [][]string{
		{"remove", second}, {"run", second, "--address", secondIP + "/24", "--host", serverIP + "/24", "--", "true"},
	} {
		if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("making a second machine: %w: %s", err, out)
		}
	}
	return nil
}

// there runs a command on the second machine and returns all that it printed. One that should have failed and runs on is
// ended.
func there(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*cluster.Soon)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append([]string{"exec", second, "--"}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it passes this on
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// flyball runs the program under test on the second machine.
func flyball(t *testing.T, args ...string) string {
	t.Helper()
	fmt.Println(second+"$ flyball", strings.Join(args, " "))
	out, err := there(append([]string{cluster.Binary()}, args...)...)
	if err != nil {
		t.Fatalf("flyball %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// refused runs the program under test on the second machine, where it must fail with an error that says all of this.
func refused(t *testing.T, says []string, args ...string) {
	t.Helper()
	out, err := there(append([]string{cluster.Binary()}, args...)...)
	if err == nil {
		t.Errorf("flyball %s did not fail: %s", strings.Join(args, " "), out)
	}
	for _, part := range says {
		if !strings.Contains(out, part) {
			t.Errorf("flyball %s says %q, which does not say %q", strings.Join(args, " "), out, part)
		}
	}
}

// token makes a token on the server and returns the arguments of the command to join with.
func token(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.Command(cluster.Binary(), append([]string{"token", "create"}, args...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Fields(string(out))
	if len(line) != 6 || line[0] != "flyball" || line[1] != "agent" {
		t.Fatalf("flyball token create printed %q", out)
	}
	return line[1:]
}

// leftovers lists what is left of Flyball in the second machine, data included.
func leftovers(t *testing.T) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err := there("env", leftoversVariable+"=1", self)
	if err != nil {
		t.Fatal(err, out)
	}
	return slices.DeleteFunc(strings.Split(out, "\n"), func(line string) bool { return line == "" })
}

// listLeftovers is what this program does in the second machine.
func listLeftovers() {
	var b bytes.Buffer
	for _, what := range cluster.Leftovers() {
		fmt.Fprintln(&b, what)
	}
	for _, path := range []string{"/var/lib/flyball", "/etc/flyball", "/var/log/pods", "/var/log/containers"} {
		if _, err := os.Stat(path); err == nil {
			fmt.Fprintln(&b, path)
		}
	}
	_, _ = os.Stdout.Write(b.Bytes())
}

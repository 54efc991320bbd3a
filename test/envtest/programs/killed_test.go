package programs

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// role says what this process is to be for the test that has started it.
const role = "PROGRAMS_TEST_ROLE"

// A test process that is killed, as `go test` and CI jobs do, cannot stop the programs. They end by themselves, and remove what
// envtest would have removed.
func TestKilled(t *testing.T) {
	if os.Getenv(role) == "suite" {
		env := &envtest.Environment{ControlPlaneStartTimeout: patience}
		if _, err := env.Start(); err != nil {
			t.Fatal(err)
		}
		fmt.Println("started")
		select {} // until it is killed
	}
	temporary := t.TempDir()
	suite := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilled$")
	suite.Env = append(os.Environ(), role+"=suite", "TMPDIR="+temporary, "KUBEBUILDER_ASSETS="+assets(t), "FLYBALL_ENVTEST=controllers,nodes=1",
		"KUBEBUILDER_ATTACH_CONTROL_PLANE_OUTPUT=true") // so that the programs hold our pipe, too
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	suite.Stdout, suite.Stderr = in, in
	if err := suite.Start(); err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	var said strings.Builder
	lines := bufio.NewScanner(io.TeeReader(out, &said))
	for lines.Scan() && lines.Text() != "started" {
	}
	made, err := filepath.Glob(filepath.Join(temporary, "k8s_test_framework_*"))
	if err != nil || len(made) == 0 {
		t.Errorf("envtest has made no directories (error: %v), so that this test does not look at the right ones:\n%s", err, &said)
	}
	if err := suite.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = suite.Wait()
	if err := out.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, out); err != nil { // until the last program has ended
		t.Fatalf("waiting for the programs to end: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(temporary, "k8s_test_framework_*")); len(left) > 0 {
		t.Errorf("directories are left behind: %v", left)
	}
}

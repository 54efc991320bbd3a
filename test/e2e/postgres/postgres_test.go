// Package postgres tests that a database on a claim loses no row that it has acknowledged, whatever ends under it: its Pod, or
// the flyball process. It takes longer than continuous integration allows; `make postgres` runs it.
package postgres

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"flyball.dev/test/e2e/internal/cluster"
)

const (
	// imageEnv names a file with the image, which `make postgres` builds of Debian's packages.
	imageEnv = "FLYBALL_POSTGRES"
	image    = "flyball.dev/postgres:1"
	// rounds is how often the Pod is deleted, and how often flyball is killed.
	rounds = 20
	// between is how many rows are written before something ends.
	between = 10
	// recovery is how long a database may take to start again, on a busy host.
	recovery = 3 * time.Minute
)

func TestMain(m *testing.M) {
	if os.Getenv(imageEnv) == "" {
		fmt.Println("skipping the database: `make postgres` runs it")
		return
	}
	cluster.Main(m)
}

func TestPostgres(t *testing.T) {
	if err := cluster.Flyball("image", "import", os.Getenv(imageEnv)); err != nil {
		t.Fatal(err)
	}
	ns := cluster.Namespace(t)
	first := start(t, ns, "first", "")
	first.survive(t)
	// Rows are written meanwhile: what the snapshot has is as after a power cut.
	written := first.acknowledged(t)
	cluster.KubectlInput(t, snapshot, "apply", "-n", ns, "-f", "-")
	cluster.Kubectl(t, "wait", "-n", ns, "volumesnapshot/first", "--for=jsonpath={.status.readyToUse}=true", "--timeout", recovery.String())
	first.end(t)

	second := start(t, ns, "second", restoredClaim)
	second.has(t, written)
	second.survive(t)
	second.end(t)
}

// database is a StatefulSet of one, and a Pod that writes to it.
type database struct{ namespace, name, dir string }

// start deploys a database, with what else it needs, and waits until rows are written.
func start(t *testing.T, namespace, name, others string) database {
	t.Helper()
	d := database{namespace: namespace, name: name, dir: filepath.Join(cluster.DataDir, "acknowledged-"+name)}
	if err := os.Mkdir(d.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	cluster.KubectlInput(t, others+"---"+strings.NewReplacer("NAME", name, "IMAGE", image, "DIR", d.dir).Replace(manifest), "apply", "-n", namespace, "-f", "-")
	d.more(t)
	return d
}

// survive ends the database's Pod and flyball itself, time and again. Rows are written meanwhile.
func (d database) survive(t *testing.T) {
	t.Helper()
	for range rounds {
		d.deletePod(t)
		d.more(t)
		kill(t)
		d.more(t)
	}
}

// end stops writing, and looks for each row that was acknowledged.
func (d database) end(t *testing.T) {
	t.Helper()
	cluster.Kubectl(t, "delete", "pod", "-n", d.namespace, d.name+"-writer", "--grace-period=1")
	rows := d.acknowledged(t)
	t.Logf("%s acknowledged %d rows", d.name, len(rows))
	d.has(t, rows)
}

// deletePod deletes the Pod, and waits until another one has its place.
func (d database) deletePod(t *testing.T) {
	t.Helper()
	pods := cluster.Client(t).CoreV1().Pods(d.namespace)
	old, err := pods.Get(t.Context(), d.name+"-0", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := pods.Delete(t.Context(), old.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, recovery, func() error {
		now, err := pods.Get(t.Context(), old.Name, metav1.GetOptions{})
		if err == nil && now.UID == old.UID {
			err = errors.New("the old Pod is still there")
		}
		return err
	})
}

// kill ends flyball without a warning, and starts it again.
func kill(t *testing.T) {
	t.Helper()
	pid := cluster.PID(t, "flyball")
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, cluster.Soon, func() error { return cluster.Ended(pid) })
	if err := cluster.Up(); err != nil {
		t.Fatal(err)
	}
}

// more waits until more rows are written.
func (d database) more(t *testing.T) {
	t.Helper()
	want := len(d.acknowledged(t)) + between
	cluster.Eventually(t, recovery, func() error {
		if got := len(d.acknowledged(t)); got < want {
			return fmt.Errorf("the database %s has acknowledged %d rows, want %d", d.name, got, want)
		}
		return nil
	})
}

// acknowledged are the rows that the database said it has. The writer appends them to a file of this machine, one a line.
func (d database) acknowledged(t *testing.T) []string {
	t.Helper()
	body, err := os.ReadFile(filepath.Join(d.dir, "rows"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	// A line that is being written counts once it ends.
	lines := strings.Split(string(body), "\n")
	return lines[:len(lines)-1]
}

// has fails the test for each of the rows that the database does not have.
func (d database) has(t *testing.T, rows []string) {
	t.Helper()
	var out string
	cluster.Eventually(t, recovery, func() (err error) {
		out, err = cluster.TryKubectl(t, "", "exec", "-n", d.namespace, d.name+"-0", "--", "psql", "-h", "/tmp", "-U", "postgres", "-Atc", "SELECT id FROM rows")
		return err
	})
	got := map[string]bool{}
	for id := range strings.FieldsSeq(out) {
		got[id] = true
	}
	lost := slices.DeleteFunc(slices.Clone(rows), func(id string) bool { return got[id] })
	if len(lost) > 0 || len(rows) == 0 {
		t.Errorf("the database %s has %d rows, and lost %d of %d that it had acknowledged: %v", d.name, len(got), len(lost), len(rows), lost)
	}
}

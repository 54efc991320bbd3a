package controlplane

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"flyball.dev/controlplane/pki"
)

func TestPresence(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		others bool
		want   bool // upstream's leases
	}{
		"Alone":   {reason: "nobody looks for its leases, and each costs the disk a write every ten seconds"},
		"Several": {reason: "the others must notice when it is gone", others: true, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t.TempDir())
			cfg.OtherServers = tc.others
			flags := apiServerFlags(cfg, &credentials{ca: &pki.CA{}, frontProxyCA: &pki.CA{}}, "")
			endpoints := slices.Contains(flags, "--endpoint-reconciler-type=master-count")
			peers := slices.Contains(flags, "--feature-gates=UnknownVersionInteroperabilityProxy=false")
			if endpoints == tc.want || peers == tc.want {
				t.Errorf("%s: flags %v", tc.reason, flags)
			}
		})
	}
}

// TestDurableBeforeDatabase kills a control plane whose last writes are in etcd's log only, and
// finds them after the next start.
func TestDurableBeforeDatabase(t *testing.T) {
	if testing.Short() {
		t.Skip("starts whole control planes")
	}
	dir, port := t.TempDir(), freePort(t)
	t.Setenv(childEnv+"_PORT", strconv.Itoa(port))
	cfg := testConfig(dir)
	p := startProcess(t, dir, port)
	p.awaitUp(t)
	for _, prefix := range []string{"/registry/masterleases/", "/registry/peerserverleases/"} {
		if keys := listEtcd(t, cfg, prefix); len(keys) > 0 {
			t.Errorf("a server that is alone keeps writing %v", keys)
		}
	}
	admin := connect(t, cfg.AdminKubeconfig)
	const writes = 20
	for i := range writes {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("acknowledged-%02d", i)}}
		if _, err := admin.CoreV1().ConfigMaps("default").Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	if n := inDatabase(t, cfg, "/registry/configmaps/default/acknowledged-"); n == writes {
		t.Errorf("all %d writes are in the database already: each costs the disk much more than its place in the log", n)
	}
	startProcess(t, dir, port).awaitUp(t)
	list, err := admin.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kept := slices.DeleteFunc(list.Items, func(cm corev1.ConfigMap) bool { return !strings.HasPrefix(cm.Name, "acknowledged-") })
	if len(kept) != writes {
		t.Errorf("after a kill and a start %d of %d acknowledged writes are there", len(kept), writes)
	}
}

func listEtcd(t *testing.T, cfg Config, prefix string) (keys []string) {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + cfg.etcdSocket()}, DialTimeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	got, err := client.Get(t.Context(), prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range got.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}

// inDatabase counts the revisions of keys with a prefix in the database of a control plane that is
// not running.
func inDatabase(t *testing.T, cfg Config, prefix string) (n int) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(cfg.server("etcd"), "member", "snap", "db"), 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("key")).ForEach(func(_, v []byte) error {
			if bytes.Contains(v, []byte(prefix)) {
				n++
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

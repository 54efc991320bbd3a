package volumes

import (
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"
)

func anchor(text string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(text)}))
}

func trustBundle(text string) *certificatesv1.ClusterTrustBundle {
	return &certificatesv1.ClusterTrustBundle{
		ObjectMeta: metav1.ObjectMeta{Name: "ctb"}, Spec: certificatesv1.ClusterTrustBundleSpec{TrustBundle: anchor(text)},
	}
}

func projectedVolume(sources ...v1.VolumeProjection) v1.Volume {
	return vol(v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{DefaultMode: ptr.To[int32](0o644), Sources: sources}})
}

func TestTrustBundle(t *testing.T) {
	f := newFixture(t)
	p := pod(projectedVolume(v1.VolumeProjection{ClusterTrustBundle: &v1.ClusterTrustBundleProjection{Name: new("ctb"), Path: "ca.pem"}}))
	message := `MountVolume.SetUp failed for volume "v" : clustertrustbundle.certificates.k8s.io "ctb" not found`
	if _, err := f.Mount(t.Context(), p); err == nil || err.Error() != message {
		t.Fatalf("Mount() = %v, want %s", err, message)
	}
	f.watching("clustertrustbundles")
	api := f.client.CertificatesV1().ClusterTrustBundles()
	if _, err := api.Create(t.Context(), trustBundle("old"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if uid := f.nextChanged(); uid != p.UID {
		t.Errorf("Changed(%s), want the Pod that waits", uid)
	}
	dir := f.mount(p)["v"].HostPath
	if diff := cmp.Diff(map[string]string{"ca.pem": "-rw-r--r-- " + anchor("old")}, files(t, dir)); diff != "" {
		t.Errorf("files -want +got:\n%s", diff)
	}
	if _, err := api.Update(t.Context(), trustBundle("new"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the file has the new certificate", func() bool { return contentOf(dir, "ca.pem") == anchor("new") })
}

// TestChangedWhileMounting: a change during Mount has the Pod reconciled after it, since the first
// call of Changed may have come too early.
func TestChangedWhileMounting(t *testing.T) {
	f := newFixture(t)
	p := pod(projectedVolume(v1.VolumeProjection{ClusterTrustBundle: &v1.ClusterTrustBundleProjection{Name: new("ctb"), Path: "ca.pem"}}))
	if _, err := f.Mount(t.Context(), p); err == nil {
		t.Fatal("mounted what is not there")
	}
	for range 2 {
		f.refreshing.Add(p.UID)
		if uid := f.nextChanged(); uid != p.UID {
			t.Errorf("Changed(%s)", uid)
		}
	}
}

func TestPodCertificate(t *testing.T) {
	f := newFixture(t,
		&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1", UID: "n"}},
		&v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: "ns", UID: "a"}},
	)
	var asked atomic.Int32
	f.client.PrependReactor("create", "podcertificaterequests", func(a clienttesting.Action) (bool, runtime.Object, error) {
		r, _ := a.(clienttesting.CreateAction).GetObject().(*certificatesv1.PodCertificateRequest)
		r.Name = fmt.Sprintf("req-%d", asked.Add(1)) // the fake generates no names
		return false, nil, nil
	})
	p := pod(projectedVolume(
		v1.VolumeProjection{PodCertificate: &v1.PodCertificateProjection{SignerName: "example.com/s", KeyType: "ED25519", CredentialBundlePath: "both.pem"}},
		v1.VolumeProjection{PodCertificate: &v1.PodCertificateProjection{SignerName: "example.com/s", KeyType: "ECDSAP256", KeyPath: "key.pem", CertificateChainPath: "chain.pem"}},
	))
	p.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: ptr.To[int64](7)}
	api := f.client.CertificatesV1().PodCertificateRequests("ns")
	go func() { // the signer
		f.watching("podcertificaterequests")
		for signed := 0; signed < 2; time.Sleep(time.Millisecond) {
			list, err := api.List(t.Context(), metav1.ListOptions{})
			if err != nil {
				return
			}
			for _, r := range list.Items {
				if r.Status.CertificateChain != "" {
					continue
				}
				r.Status = certificatesv1.PodCertificateRequestStatus{
					CertificateChain: anchor(r.Name),
					Conditions:       []metav1.Condition{{Type: certificatesv1.PodCertificateRequestConditionTypeIssued, Status: metav1.ConditionTrue}},
					BeginRefreshAt:   &metav1.Time{Time: time.Now().Add(time.Hour)}, NotAfter: &metav1.Time{Time: time.Now().Add(2 * time.Hour)},
				}
				if _, err := api.UpdateStatus(t.Context(), &r, metav1.UpdateOptions{}); err != nil {
					return
				}
				signed++
			}
		}
	}()
	dir := f.mount(p)["v"].HostPath
	for name, blocks := range map[string][]string{
		"both.pem": {"PRIVATE KEY", "CERTIFICATE"}, "key.pem": {"PRIVATE KEY"}, "chain.pem": {"CERTIFICATE"},
	} {
		var got []string
		for block, rest := pem.Decode([]byte(contentOf(dir, name))); block != nil; block, rest = pem.Decode(rest) {
			got = append(got, block.Type)
		}
		if diff := cmp.Diff(blocks, got); diff != "" {
			t.Errorf("%s -want +got:\n%s", name, diff)
		}
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("%s has mode %v, %v: a key is for the Pod's group alone", name, info.Mode(), err)
		}
	}
	before := contentOf(dir, "key.pem")
	f.mount(p)
	if contentOf(dir, "key.pem") != before {
		t.Error("mounting again has changed the key")
	}
}

func TestImage(t *testing.T) {
	f := newFixture(t)
	p := pod(vol(v1.VolumeSource{Image: &v1.ImageVolumeSource{Reference: "a:1"}}))
	if diff := cmp.Diff(map[string]Mounted{"v": {Image: true, ReadOnly: true}}, f.mount(p)); diff != "" {
		t.Errorf("Mount() -want +got:\n%s", diff)
	}
}

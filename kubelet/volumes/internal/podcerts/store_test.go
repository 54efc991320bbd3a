package podcerts

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"
)

// fixture is a Store with an API server and a signer that answers what the test wants.
type fixture struct {
	*Store
	t       *testing.T
	client  *fake.Clientset
	changed chan []types.UID
	events  []string
	asked   int
	// refusals are answers of the API server to the first attempts to create a request.
	refusals []error
}

func newFixture(t *testing.T) *fixture {
	w := &fixture{t: t, changed: make(chan []types.UID, 100)}
	w.client = fake.NewClientset(
		&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "node-uid"}},
		&v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot", Namespace: "ns", UID: "account-uid"}},
	)
	w.client.PrependReactor("create", "podcertificaterequests", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if len(w.refusals) > 0 {
			err := w.refusals[0]
			w.refusals = w.refusals[1:]
			return true, nil, err
		}
		w.asked++
		r, _ := a.(clienttesting.CreateAction).GetObject().(*certificatesv1.PodCertificateRequest)
		r.Name = fmt.Sprintf("req-%d", w.asked)
		return false, nil, nil
	})
	w.Store = New(Config{
		Client: w.client, NodeName: "n1",
		Changed: func(pods []types.UID) { w.changed <- pods },
		Event: func(_ *v1.Pod, kind, reason, message string) {
			w.events = append(w.events, kind+" "+reason+" "+message)
		},
	})
	t.Cleanup(w.Close)
	w.Hold("pod-uid", true)
	return w
}

var (
	testPod = &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "pod-uid"},
		Spec:       v1.PodSpec{ServiceAccountName: "robot"},
	}
	testSource = Source{Pod: "pod-uid", Volume: "v"}
	testWish   = &v1.PodCertificateProjection{
		SignerName: "example.com/signer", KeyType: "ED25519", MaxExpirationSeconds: ptr.To[int32](3600),
		UserAnnotations: map[string]string{"example.com/a": "b"},
	}
)

func (w *fixture) credential() (Credential, error) {
	return w.Credential(w.t.Context(), testPod, testSource, testWish)
}

// answer gives a request a status.
func (w *fixture) answer(name, condition string) {
	w.t.Helper()
	api := w.client.CertificatesV1().PodCertificateRequests("ns")
	r, err := api.Get(context.Background(), name, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	r.Status.Conditions = []metav1.Condition{{Type: condition, Status: metav1.ConditionTrue, Reason: "R", Message: "M"}}
	if condition == certificatesv1.PodCertificateRequestConditionTypeIssued {
		r.Status.CertificateChain = "text\n" + chain(name)
		r.Status.BeginRefreshAt = &metav1.Time{Time: time.Now().Add(30 * time.Minute)}
		r.Status.NotAfter = &metav1.Time{Time: time.Now().Add(time.Hour)}
	}
	if _, err := api.UpdateStatus(context.Background(), r, metav1.UpdateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

func chain(name string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(name)}))
}

func TestIssuedAndRefreshed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFixture(t)
		go func() {
			synctest.Wait()
			w.answer("req-1", "Issued")
		}()
		began := time.Now()
		first, err := w.credential()
		if err != nil || time.Since(began) > 0 {
			t.Fatalf("Credential() took %v, error %v: an answer is to be taken at once", time.Since(began), err)
		}
		if string(first.Chain) != chain("req-1") {
			t.Errorf("chain is %q", first.Chain)
		}
		if block, _ := pem.Decode(first.Key); block == nil || block.Type != "PRIVATE KEY" {
			t.Errorf("key is %q", first.Key)
		}
		if wait := time.Until(first.Next); wait < 30*time.Minute || wait > 35*time.Minute {
			t.Errorf("refreshes in %v, want what the signer said and up to five minutes", wait)
		}
		request, err := w.client.CertificatesV1().PodCertificateRequests("ns").Get(t.Context(), "req-1", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		csr := request.Spec.StubPKCS10Request
		request.Spec.StubPKCS10Request = nil
		want := certificatesv1.PodCertificateRequestSpec{
			SignerName: "example.com/signer", PodName: "p", PodUID: "pod-uid", ServiceAccountName: "robot", ServiceAccountUID: "account-uid",
			NodeName: "n1", NodeUID: "node-uid", MaxExpirationSeconds: ptr.To[int32](3600), UnverifiedUserAnnotations: map[string]string{"example.com/a": "b"},
		}
		if diff := cmp.Diff(want, request.Spec); diff != "" {
			t.Errorf("request -want +got:\n%s", diff)
		}
		if parsed, err := x509.ParseCertificateRequest(csr); err != nil || parsed.CheckSignature() != nil {
			t.Errorf("the request proves nothing: %v", err)
		}

		again, err := w.credential()
		if err != nil || string(again.Key) != string(first.Key) || w.asked != 1 {
			t.Errorf("asked %d times for one certificate, error %v", w.asked, err)
		}
		time.Sleep(time.Until(first.Next))
		old, err := w.credential()
		if err != nil || string(old.Chain) != chain("req-1") || w.asked != 2 {
			t.Errorf("while refreshing: %q, %v, asked %d times", old.Chain, err, w.asked)
		}
		synctest.Wait()
		for len(w.changed) > 0 {
			<-w.changed
		}
		w.answer("req-2", "Issued")
		if pods := <-w.changed; len(pods) != 1 || pods[0] != "pod-uid" {
			t.Errorf("changed %v", pods)
		}
		renewed, err := w.credential()
		if err != nil || string(renewed.Chain) != chain("req-2") || string(renewed.Key) == string(first.Key) {
			t.Errorf("refreshed: %q, %v, same key: %v", renewed.Chain, err, string(renewed.Key) == string(first.Key))
		}
		if len(w.events) > 0 {
			t.Errorf("Events %q", w.events)
		}
	})
}

func TestRefused(t *testing.T) {
	for condition, how := range map[string]string{"Denied": "was denied", "Failed": "failed"} {
		t.Run(condition, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newFixture(t)
				go func() {
					synctest.Wait()
					w.answer("req-1", condition)
				}()
				message := fmt.Sprintf(`PodCertificateRequest ns/req-1 %s, reason="R", message="M"`, how)
				for range 2 {
					if _, err := w.credential(); err == nil || err.Error() != message {
						t.Errorf("Credential() = %v, want %s", err, message)
					}
				}
				if diff := cmp.Diff([]string{"Warning " + condition + " " + message}, w.events); diff != "" || w.asked != 1 {
					t.Errorf("asked %d times, Events -want +got:\n%s", w.asked, diff)
				}
			})
		})
	}
}

func TestSilentSigner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFixture(t)
		_, err := w.credential()
		if err == nil || !strings.Contains(err.Error(), `signer "example.com/signer" has not answered PodCertificateRequest ns/req-1 yet`) {
			t.Errorf("Credential() = %v, want who is silent", err)
		}
		w.answer("req-1", "Issued")
		<-w.changed
		if _, err := w.credential(); err != nil || w.asked != 1 {
			t.Errorf("asked %d times, error %v", w.asked, err)
		}
	})
}

func TestRequestDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFixture(t)
		if _, err := w.credential(); err == nil {
			t.Fatal("a credential without a signer")
		}
		if err := w.client.CertificatesV1().PodCertificateRequests("ns").Delete(t.Context(), "req-1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		<-w.changed
		if _, err := w.credential(); err == nil || !strings.Contains(err.Error(), "ns/req-2") {
			t.Errorf("Credential() = %v, want another request", err)
		}
	})
}

func TestAdmissionBehind(t *testing.T) {
	behind := &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: 500, Message: "while retrieving pod"}}
	forbidden := apierrors.NewForbidden(certificatesv1.Resource("podcertificaterequests"), "", errors.New("not running on node"))
	invalid := apierrors.NewInvalid(certificatesv1.SchemeGroupVersion.WithKind("PodCertificateRequest").GroupKind(), "r", nil)
	cases := map[string]struct {
		reason   string
		refusals []error
		message  string
	}{
		"Behind":  {reason: "the admission learns of the Pod a moment later", refusals: []error{behind, forbidden, behind}, message: "has not answered"},
		"Invalid": {reason: "what is wrong stays wrong", refusals: []error{invalid}, message: `creating a PodCertificateRequest for signer "example.com/signer"`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newFixture(t)
				w.refusals = tc.refusals
				if _, err := w.credential(); err == nil || !strings.Contains(err.Error(), tc.message) {
					t.Errorf("%s: Credential() = %v, want %s", tc.reason, err, tc.message)
				}
			})
		})
	}
}

func TestRefreshCannotBeAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFixture(t)
		go func() {
			synctest.Wait()
			w.answer("req-1", "Issued")
		}()
		first, err := w.credential()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(first.Next))
		w.refusals = []error{apierrors.NewServiceUnavailable("later")}
		again, err := w.credential()
		if err != nil || string(again.Chain) != chain("req-1") || time.Until(again.Next) > retryAfter {
			t.Errorf("%q, %v, next in %v: the old one is to be used and the refresh tried again soon", again.Chain, err, time.Until(again.Next))
		}
	})
}

func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFixture(t)
		_, _ = w.credential()
		w.Hold("pod-uid", false)
		if len(w.entries) != 0 {
			t.Errorf("remembers %v of a Pod that is gone", w.entries)
		}
		if _, err := w.credential(); err == nil {
			t.Error("a credential for a Pod that does not hold")
		}
	})
}

func TestKeys(t *testing.T) {
	// RSA4096 is the same as RSA3072, and takes seconds.
	for _, keyType := range []string{"RSA3072", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"} {
		t.Run(keyType, func(t *testing.T) {
			key, csr, err := newKey(keyType)
			if err != nil {
				t.Fatal(err)
			}
			request, err := x509.ParseCertificateRequest(csr)
			if err != nil || request.CheckSignature() != nil || request.Subject.String() != "" {
				t.Errorf("request %v, %v: want an empty one with a good signature", request, err)
			}
			block, rest := pem.Decode(key)
			if block == nil || len(rest) > 0 {
				t.Fatalf("key is %q", key)
			}
			if _, err := x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
				t.Error(err)
			}
		})
	}
	if _, _, err := newKey("DSA"); err == nil {
		t.Error("made a key of a type that does not exist")
	}
}

package faults

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/controllers/internal/testenv"
)

const refusal = "not on my watch"

// webhook lets so many requests through and refuses the others, until the test opens it.
type webhook struct {
	left    atomic.Int64
	refused atomic.Int64
}

func (w *webhook) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(request.Body).Decode(&review); err != nil {
		http.Error(response, err.Error(), http.StatusBadRequest)
		return
	}
	answer := &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: w.left.Add(-1) >= 0}
	if !answer.Allowed {
		w.refused.Add(1)
		answer.Result = &metav1.Status{Message: refusal}
	}
	review.Request, review.Response = nil, answer
	if err := json.NewEncoder(response).Encode(review); err != nil {
		http.Error(response, err.Error(), http.StatusInternalServerError)
	}
}

// refuse asks a webhook about requests in the rollout's namespace, which lets n through.
func (r *rollout) refuse(n int64, operation admissionregistrationv1.OperationType, resource string) *webhook {
	r.Helper()
	w := &webhook{} // refuses all, until it is known
	server := httptest.NewTLSServer(w)
	r.Cleanup(server.Close)
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: r.namespace},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: "refuses.example.com", SideEffects: ptr.To(admissionregistrationv1.SideEffectClassNone),
			FailurePolicy: ptr.To(admissionregistrationv1.Fail), AdmissionReviewVersions: []string{"v1"},
			ClientConfig: admissionregistrationv1.WebhookClientConfig{
				URL: &server.URL, CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
			},
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": r.namespace}},
			// The others' writes are none of its business.
			MatchConditions: []admissionregistrationv1.MatchCondition{{Name: "loops", Expression: "request.userInfo.username == 'system:flyball:controllers'"}},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{operation},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{"*"}, APIVersions: []string{"*"}, Resources: []string{resource}},
			}},
		}},
	}
	if err := env.Client.Create(r.Context(), configuration); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = env.Client.Delete(context.WithoutCancel(r.Context()), configuration) })
	r.known(w, operation, resource)
	w.left.Store(n)
	w.refused.Store(0)
	return w
}

// known waits until the API server asks the webhook, by dry runs in the name of the loops.
func (r *rollout) known(w *webhook, operation admissionregistrationv1.OperationType, resource string) {
	r.Helper()
	cfg := rest.CopyConfig(env.Admin)
	cfg.Impersonate.UserName = "system:flyball:controllers"
	loops, err := client.New(cfg, client.Options{Scheme: env.Client.Scheme()})
	if err != nil {
		r.Fatal(err)
	}
	set := r.owned("image:1")
	testenv.Eventually(r.T, func() error {
		var err error
		switch {
		case operation == admissionregistrationv1.Delete:
			err = loops.Delete(r.Context(), &env.Pods(r.T, r.namespace, nil)[0], client.DryRunAll)
		case resource == "pods":
			template := testenv.Template(nil, "image:1")
			err = loops.Create(r.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "dry"}, Spec: template.Spec}, client.DryRunAll)
		case operation == admissionregistrationv1.Create:
			_, err = r.ReplicaSets.Create(r.Context(), client.NewDryRunClient(loops), testenv.ReplicaSet(r.namespace, "dry", 0))
		default:
			object := r.ReplicaSets.New()
			object.SetNamespace(r.namespace)
			object.SetName(set.Name)
			patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"example.com/n":"1"}},"status":{"availableReplicas":1}}`))
			if resource == "replicasets" {
				err = loops.Patch(r.Context(), object, patch, client.DryRunAll)
			} else {
				err = loops.Status().Patch(r.Context(), object, patch, client.DryRunAll)
			}
		}
		if err == nil || !strings.Contains(err.Error(), refusal) {
			return fmt.Errorf("the webhook is not asked yet: %w", err)
		}
		return nil
	})
}

// allow ends the refusals.
func (w *webhook) allow() { w.left.Store(1 << 40) }

// TestWebhookRefusesPods in the middle of a rollout: the status and an Event say so, what runs
// keeps running, and the rollout goes on by itself once the webhook allows it.
func TestWebhookRefusesPods(t *testing.T) {
	each(t, func(r *rollout) {
		w := r.refuse(4, admissionregistrationv1.Create, "pods")
		r.image("2")
		r.until("the refusal is reported", func(d *appsv1.Deployment) bool {
			m := message(d, appsv1.DeploymentReplicaFailure)
			return strings.HasPrefix(m, "FailedCreate: ") && strings.Contains(m, refusal) && d.Status.UpdatedReplicas == 4 && d.Status.AvailableReplicas >= size-unavailable
		})
		testenv.Eventually(r.T, func() error { return said(env.Events(r.T, r.owned("image:2"))["FailedCreate"], refusal) })
		w.allow()
		r.complete("image:1 0", "image:2 12")
		w.wasAsked(r)
	})
}

// TestWebhookRefusesDeletion: old Pods that cannot be deleted do not make new ones more.
func TestWebhookRefusesDeletion(t *testing.T) {
	each(t, func(r *rollout) {
		w := r.refuse(5, admissionregistrationv1.Delete, "pods")
		r.image("2")
		r.until("the refusal is reported", func(d *appsv1.Deployment) bool {
			m := message(d, appsv1.DeploymentReplicaFailure)
			return strings.HasPrefix(m, "FailedDelete: ") && strings.Contains(m, refusal)
		})
		w.allow()
		r.complete("image:1 0", "image:2 12")
		w.wasAsked(r)
	})
}

// TestWebhookRefusesReplicaSets: the new one cannot be made, or the old ones not be scaled.
func TestWebhookRefusesReplicaSets(t *testing.T) {
	t.Run("Create", func(t *testing.T) {
		each(t, func(r *rollout) {
			w := r.refuse(0, admissionregistrationv1.Create, "replicasets")
			r.image("2")
			// As upstream's, the status is that of the last generation that has a ReplicaSet.
			testenv.Eventually(r.T, func() error {
				d, _, err := r.Deployments.Get(r.Context(), env.Client, client.ObjectKeyFromObject(r.d))
				if err != nil {
					return err
				}
				m := message(d, appsv1.DeploymentProgressing)
				if !strings.HasPrefix(m, "ReplicaSetCreateError: ") || !strings.Contains(m, refusal) || d.Status.AvailableReplicas != size {
					return fmt.Errorf("the refusal is not reported: %+v", d.Status)
				}
				return nil
			})
			testenv.Eventually(r.T, func() error { return said(env.Events(r.T, r.d)["ReplicaSetCreateError"], refusal) })
			w.allow()
			r.complete("image:1 0", "image:2 12")
			w.wasAsked(r)
		})
	})
	t.Run("Update", func(t *testing.T) {
		each(t, func(r *rollout) {
			w := r.refuse(2, admissionregistrationv1.Update, "replicasets")
			r.image("2")
			testenv.Eventually(r.T, func() error { return w.refusedSome() })
			w.allow()
			r.complete("image:1 0", "image:2 12")
		})
	})
	t.Run("Status", func(t *testing.T) {
		each(t, func(r *rollout) {
			w := r.refuse(3, admissionregistrationv1.Update, "replicasets/status")
			r.image("2")
			testenv.Eventually(r.T, func() error { return w.refusedSome() })
			w.allow()
			r.complete("image:1 0", "image:2 12")
		})
	})
}

func (w *webhook) refusedSome() error {
	if w.refused.Load() < 3 {
		return errors.New("the webhook has refused nothing yet")
	}
	return nil
}

func (w *webhook) wasAsked(r *rollout) {
	r.Helper()
	if w.refused.Load() == 0 {
		r.Error("the webhook was never asked")
	}
}

func said(messages []string, what string) error {
	for _, m := range messages {
		if strings.Contains(m, what) {
			return nil
		}
	}
	return fmt.Errorf("no Event says %q: %q", what, messages)
}

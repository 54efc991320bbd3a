package tokens

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"
	bootstraputil "k8s.io/cluster-bootstrap/token/util"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func TestLifeOfTokens(t *testing.T) {
	ctx, client := t.Context(), fake.NewClientset()
	ever, err := Create(ctx, client, 0, "for ever", now)
	if err != nil {
		t.Fatal(err)
	}
	day, err := Create(ctx, client, 24*time.Hour, "", now)
	if err != nil {
		t.Fatal(err)
	}
	hour, err := Create(ctx, client, time.Hour, "", now)
	if err != nil {
		t.Fatal(err)
	}
	if !bootstraputil.IsValidBootstrapToken(day.ID + "." + day.Secret) {
		t.Error("it is not a bootstrap token of upstream's")
	}
	secret, err := client.CoreV1().Secrets("kube-system").Get(ctx, "bootstrap-token-"+day.ID, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if secret.Type != bootstrapapi.SecretTypeBootstrapToken || string(secret.Data["expiration"]) != "2026-11-23T12:00:00Z" {
		t.Errorf("the Secret is %s and expires %s", secret.Type, secret.Data["expiration"])
	}
	// For signing alone: nobody joins with it.
	signing := (Token{ID: "aaaaaa", Secret: "0123456789abcdef"}).secret()
	delete(signing.Data, bootstrapapi.BootstrapTokenUsageAuthentication)
	if _, err := client.CoreV1().Secrets("kube-system").Create(ctx, signing, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}

	list := func(at time.Time) []string {
		all, err := List(ctx, client, at)
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, one := range all {
			if one.Secret != "" {
				t.Error("the list tells a secret")
			}
			ids = append(ids, one.ID)
		}
		return ids
	}
	if diff := cmp.Diff([]string{hour.ID, day.ID, ever.ID}, list(now)); diff != "" {
		t.Errorf("the first to expire comes first: -want +got\n%s", diff)
	}
	if diff := cmp.Diff([]string{day.ID, ever.ID}, list(now.Add(2*time.Hour))); diff != "" {
		t.Errorf("expired tokens are not listed: -want +got\n%s", diff)
	}
	if err := Delete(ctx, client, ever.ID); err != nil {
		t.Error(err)
	}
	if err := Delete(ctx, client, day.ID+"."+day.Secret+".and-its-hash"); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{hour.ID}, list(now)); diff != "" {
		t.Errorf("after deleting: -want +got\n%s", diff)
	}
}

func TestDeleteErrors(t *testing.T) {
	for given, want := range map[string]string{"abcdef": "no such token", "not-a-token": "is not a token ID", "": "is not a token ID"} {
		if err := Delete(t.Context(), fake.NewClientset(), given); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "flyball token list") {
			t.Errorf("deleting %q: %v, want an error that says %q and what to do", given, err, want)
		}
	}
}

func TestServer(t *testing.T) {
	for name, tc := range map[string]struct{ data, want string }{
		"Missing": {"", "the server's URL"},
		"Empty":   {"apiVersion: v1\nkind: Config\n", "names no cluster"},
		"NoCA":    {"apiVersion: v1\nkind: Config\nclusters: [{name: '', cluster: {server: 'https://a:1'}}]\n", "CA"},
	} {
		t.Run(name, func(t *testing.T) {
			client := fake.NewClientset()
			if tc.data != "" {
				client = fake.NewClientset(&v1.ConfigMap{
					ObjectMeta: metav1.ObjectMeta{Namespace: "kube-public", Name: "cluster-info"}, Data: map[string]string{"kubeconfig": tc.data},
				})
			}
			if _, _, err := Server(t.Context(), client); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error is %v, want one that says %q", err, tc.want)
			}
		})
	}
}

// Package tokens creates, lists and deletes the tokens that nodes join with. They are upstream's
// bootstrap tokens: Secrets of the type bootstrap.kubernetes.io/token in kube-system, which
// kube-apiserver accepts as the user system:bootstrap:ID in the group system:bootstrappers.
// manifests/join.yaml has the permissions of that group; upstream's token cleaner removes expired
// tokens. Package join uses them.
package tokens

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	certutil "k8s.io/client-go/util/cert"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"
	bootstraputil "k8s.io/cluster-bootstrap/token/util"
	bootstrapsecrets "k8s.io/cluster-bootstrap/util/secrets"
	bootstraptoken "k8s.io/kubernetes/cmd/kubeadm/app/apis/bootstraptoken/v1"
)

// Token is a bootstrap token.
type Token struct {
	ID, Secret  string
	Description string
	// Expires is zero if the token does not expire.
	Expires time.Time
}

// Create creates a token that is valid for ttl, or forever if that is zero.
func Create(ctx context.Context, client kubernetes.Interface, ttl time.Duration, description string, now time.Time) (Token, error) {
	whole, err := bootstraputil.GenerateBootstrapToken()
	if err != nil {
		return Token{}, fmt.Errorf("generating a token: %w", err)
	}
	t := Token{Description: description}
	t.ID, t.Secret, _ = strings.Cut(whole, ".")
	if ttl > 0 {
		t.Expires = now.Add(ttl).UTC().Truncate(time.Second)
	}
	if _, err := client.CoreV1().Secrets(metav1.NamespaceSystem).Create(ctx, t.secret(), metav1.CreateOptions{}); err != nil {
		return Token{}, fmt.Errorf("storing the token %s: %w", t.ID, err)
	}
	return t, nil
}

func (t Token) secret() *v1.Secret {
	token := bootstraptoken.BootstrapToken{
		Token:       &bootstraptoken.BootstrapTokenString{ID: t.ID, Secret: t.Secret},
		Description: t.Description, Usages: []string{"authentication"},
	}
	if !t.Expires.IsZero() {
		token.Expires = &metav1.Time{Time: t.Expires}
	}
	return bootstraptoken.BootstrapTokenToSecret(&token)
}

// List returns all valid tokens without their secrets, sorted by expiry.
func List(ctx context.Context, client kubernetes.Interface, now time.Time) ([]Token, error) {
	list, err := client.CoreV1().Secrets(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("type", string(bootstrapapi.SecretTypeBootstrapToken)).String(),
	})
	if err != nil {
		return nil, fmt.Errorf("listing tokens: %w", err)
	}
	var all []Token
	for _, s := range list.Items {
		id, named := bootstrapsecrets.ParseName(s.Name)
		if !named || bootstrapsecrets.HasExpired(&s, now) || bootstrapsecrets.GetData(&s, bootstrapapi.BootstrapTokenUsageAuthentication) != "true" {
			continue
		}
		t := Token{ID: id, Description: bootstrapsecrets.GetData(&s, bootstrapapi.BootstrapTokenDescriptionKey)}
		t.Expires, _ = time.Parse(time.RFC3339, bootstrapsecrets.GetData(&s, bootstrapapi.BootstrapTokenExpirationKey))
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b Token) int {
		if a.Expires.IsZero() != b.Expires.IsZero() {
			return lo.Ternary(a.Expires.IsZero(), 1, -1) // never comes last
		}
		return cmp.Or(a.Expires.Compare(b.Expires), strings.Compare(a.ID, b.ID))
	})
	return all, nil
}

// Delete deletes a token, given whole or by its ID.
func Delete(ctx context.Context, client kubernetes.Interface, token string) error {
	id, _, _ := strings.Cut(token, ".")
	if !bootstraputil.IsValidBootstrapTokenID(id) {
		return fmt.Errorf("deleting a token: %q is not a token ID of six letters and digits; `flyball token list` shows the IDs", id)
	}
	err := client.CoreV1().Secrets(metav1.NamespaceSystem).Delete(ctx, bootstraputil.BootstrapTokenSecretName(id), metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting the token %s: there is no such token; `flyball token list` shows all tokens", id)
	}
	if err != nil {
		return fmt.Errorf("deleting the token %s: %w", id, err)
	}
	return nil
}

// Server returns the URL at which other hosts reach the cluster, and its CA, as the control plane
// has published both.
func Server(ctx context.Context, client kubernetes.Interface) (url string, ca *x509.Certificate, err error) {
	cm, err := client.CoreV1().ConfigMaps(metav1.NamespacePublic).Get(ctx, bootstrapapi.ConfigMapClusterInfo, metav1.GetOptions{})
	if err != nil {
		return "", nil, fmt.Errorf("reading the server's URL: %w", err)
	}
	config, err := clientcmd.Load([]byte(cm.Data[bootstrapapi.KubeConfigKey]))
	if err == nil && config.Clusters[""] == nil {
		err = errors.New("it names no cluster")
	}
	if err != nil {
		return "", nil, fmt.Errorf("reading the server's URL from ConfigMap %s/%s: %w", cm.Namespace, cm.Name, err)
	}
	certs, err := certutil.ParseCertsPEM(config.Clusters[""].CertificateAuthorityData)
	if err != nil {
		return "", nil, fmt.Errorf("reading the cluster's CA from ConfigMap %s/%s: %w", cm.Namespace, cm.Name, err)
	}
	return config.Clusters[""].Server, certs[0], nil
}

// Heading names the columns of Row, separated by tabs.
const Heading = "ID\tEXPIRES IN\tDESCRIPTION"

// Row is the token as a line of a table, without its secret.
func (t Token) Row(now time.Time) string {
	expires := "never"
	if !t.Expires.IsZero() {
		expires = duration.HumanDuration(t.Expires.Sub(now))
	}
	return fmt.Sprintf("%s\t%s\t%s", t.ID, expires, t.Description)
}

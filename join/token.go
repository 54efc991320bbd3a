package join

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	bootstraputil "k8s.io/cluster-bootstrap/token/util"
)

// Token is an upstream bootstrap token, and the pin of the CA that the server must have.
type Token struct {
	// ID and Secret are the two halves of a bootstrap token. The ID is no secret.
	ID, Secret string
	// Pin is what the function Pin returns for the cluster's CA.
	Pin string
}

// tokenForm is how errors describe a token.
const tokenForm = "it has the form ID.SECRET.HASH, of 6, 16 and 64 letters and digits, as `flyball token create` prints it on the server"

// ParseToken parses the value of --token. Errors do not repeat it: it is a secret.
func ParseToken(s string) (Token, error) {
	id, rest, _ := strings.Cut(s, ".")
	secret, pin, pinned := strings.Cut(rest, ".")
	switch {
	case !pinned && bootstraputil.IsValidBootstrapToken(s):
		return Token{}, errors.New("reading --token: it lacks the hash of the cluster's CA, without which the server cannot be trusted; " + tokenForm)
	case strings.ContainsFunc(s, unicode.IsSpace):
		return Token{}, errors.New("reading --token: it is malformed, it contains white space; " + tokenForm)
	case !bootstraputil.IsValidBootstrapToken(id + "." + secret):
		return Token{}, fmt.Errorf("reading --token: it is malformed, it has %s; %s", lengths(s), tokenForm)
	}
	if hash, err := hex.DecodeString(pin); err != nil || len(hash) != sha256.Size {
		return Token{}, fmt.Errorf("reading --token: its hash has %d characters and must have %d hexadecimal digits; %s", len(pin), 2*sha256.Size, tokenForm)
	}
	return Token{ID: id, Secret: secret, Pin: strings.ToLower(pin)}, nil
}

// lengths describes the form of a malformed token.
func lengths(s string) string {
	var each []string
	for part := range strings.SplitSeq(s, ".") {
		each = append(each, strconv.Itoa(len(part)))
	}
	const shown = 4
	if len(each) > shown {
		return fmt.Sprintf("%d parts", len(each))
	}
	return strings.Join(each, ".") + " characters"
}

// Bearer returns the bootstrap token, which the API server accepts.
func (t Token) Bearer() string { return bootstraputil.TokenFromIDAndSecret(t.ID, t.Secret) }

// String returns the whole token. It is a secret.
func (t Token) String() string { return t.Bearer() + "." + t.Pin }

// Pin returns the SHA-256 of a CA's public key in hexadecimal: kubeadm calls it the discovery token
// CA certificate hash. RFC 7469 says why it is of the key and not of the certificate.
func Pin(ca *x509.Certificate) string {
	sum := sha256.Sum256(ca.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

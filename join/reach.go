package join

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// newClient is a client of a server as it was told, without limits of its own.
func newClient(c *rest.Config) (kubernetes.Interface, error) {
	c.QPS, c.UserAgent, c.ContentType = -1, "flyball-join", "application/json"
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		return nil, fmt.Errorf("preparing to reach the server at %s: %w", c.Host, err)
	}
	return client, nil
}

// unreachable says why there was no answer within that time, and what to do about it. Which of the server's paths was asked for does not
// matter to anybody.
func unreachable(server string, err error, within time.Duration, now time.Time) error {
	if asked, is := errors.AsType[*url.Error](err); is {
		err = asked.Err
	}
	if why := untrusted(err, now); why != "" {
		return fmt.Errorf("trusting the server at %s: %s", server, why)
	}
	why := fmt.Sprintf("%v; check that it runs (`flyball status` there), that this machine may reach its port, and --server", err)
	unknown, isUnknown := errors.AsType[*net.DNSError](err)
	_, isNotTLS := errors.AsType[tls.RecordHeaderError](err)
	late, isLate := errors.AsType[net.Error](err)
	switch {
	case isUnknown:
		why = fmt.Sprintf("looking up the name %s: %s; --server takes a name that this machine can look up, or an address", unknown.Name, unknown.Err)
	case errors.Is(err, syscall.ECONNREFUSED):
		why = fmt.Sprintf("connection refused: nothing listens on %s; check that it runs (`flyball status` there), and the port of --server, which is 6443 unless the server was told another", hostPort(server))
	case errors.Is(err, http.ErrSchemeMismatch) || isNotTLS:
		why = fmt.Sprintf("what listens on %s does not speak TLS; check the port of --server, which is 6443 unless the server was told another", hostPort(server))
	case errors.Is(err, context.DeadlineExceeded) || isLate && late.Timeout():
		why = fmt.Sprintf("no answer within %s; check that the machine is up, that no firewall keeps this one from %s, and --server", within, hostPort(server))
	}
	return fmt.Errorf("reaching the server at %s: %s", server, why)
}

// untrusted says why the certificate that a server has shown does not do; "" if that is not what is wrong.
func untrusted(err error, now time.Time) string {
	const clocks = "the clock of this machine says %s; set the clock that is wrong"
	if wrong, is := errors.AsType[x509.HostnameError](err); is {
		return fmt.Sprintf("%v; --server takes one of the names and addresses that its certificate is for", wrong)
	}
	if _, is := errors.AsType[x509.UnknownAuthorityError](err); is {
		return "its certificate is not signed by the authority of the cluster that --token is for: something between it and this machine answers in its place, or it is another server"
	}
	invalid, is := errors.AsType[x509.CertificateInvalidError](err)
	if !is || invalid.Reason != x509.Expired || invalid.Cert == nil {
		return ""
	}
	if begins := invalid.Cert.NotBefore; now.Before(begins) {
		return fmt.Sprintf("its certificate is not valid yet, it begins on %s, and "+clocks, moment(begins), moment(now))
	}
	return fmt.Sprintf("its certificate expired on %s, and "+clocks+", or start Flyball there again, which renews it",
		moment(invalid.Cert.NotAfter), moment(now))
}

func moment(t time.Time) string { return t.UTC().Format(time.DateTime) + " UTC" }

// hostPort is where the server of a URL listens.
func hostPort(server string) string {
	u, err := url.Parse(server)
	switch {
	case err != nil:
		return server
	case u.Port() == "":
		return net.JoinHostPort(u.Hostname(), "443") + " (--server names no port)"
	}
	return u.Host
}

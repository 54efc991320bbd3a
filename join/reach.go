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

// newClient returns a client without client-side limits.
func newClient(c *rest.Config) (kubernetes.Interface, error) {
	c.QPS, c.UserAgent, c.ContentType = -1, "flyball-join", "application/json"
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		return nil, fmt.Errorf("creating a client for the server at %s: %w", c.Host, err)
	}
	return client, nil
}

// unreachable returns an error that says why there was no answer within a time, and what to do
// about it. It leaves out the path of the request.
func unreachable(server string, err error, within time.Duration, now time.Time) error {
	if asked, is := errors.AsType[*url.Error](err); is {
		err = asked.Err
	}
	if why := untrusted(err, now); why != "" {
		return fmt.Errorf("trusting the server at %s: %s", server, why)
	}
	why := fmt.Sprintf("%v; check that it runs (`flyball status` there), that this host may connect to its port, and --server", err)
	unknown, isUnknown := errors.AsType[*net.DNSError](err)
	_, isNotTLS := errors.AsType[tls.RecordHeaderError](err)
	late, isLate := errors.AsType[net.Error](err)
	switch {
	case isUnknown:
		why = fmt.Sprintf("resolving the name %s: %s; --server takes a name that this host can resolve, or an address", unknown.Name, unknown.Err)
	case errors.Is(err, syscall.ECONNREFUSED):
		why = fmt.Sprintf("connection refused: nothing listens on %s; check that it runs (`flyball status` there), and the port of --server, which is 6443 unless the server is configured otherwise", hostPort(server))
	case errors.Is(err, http.ErrSchemeMismatch) || isNotTLS:
		why = fmt.Sprintf("the service on %s does not speak TLS; check the port of --server, which is 6443 unless the server is configured otherwise", hostPort(server))
	case errors.Is(err, context.DeadlineExceeded) || isLate && late.Timeout():
		why = fmt.Sprintf("no answer within %s; check that the host is up, that no firewall blocks %s, and --server", within, hostPort(server))
	}
	return fmt.Errorf("reaching the server at %s: %s", server, why)
}

// untrusted returns why the server's certificate is not trusted; "" if err has another cause.
func untrusted(err error, now time.Time) string {
	const clocks = "the clock of this host says %s; set the clock that is wrong"
	if wrong, is := errors.AsType[x509.HostnameError](err); is {
		return fmt.Sprintf("%v; --server takes one of the names and addresses in its certificate", wrong)
	}
	if _, is := errors.AsType[x509.UnknownAuthorityError](err); is {
		return "its certificate is not signed by the CA of the cluster that --token belongs to: it is another server, or a proxy answers in its place"
	}
	invalid, is := errors.AsType[x509.CertificateInvalidError](err)
	if !is || invalid.Reason != x509.Expired || invalid.Cert == nil {
		return ""
	}
	if begins := invalid.Cert.NotBefore; now.Before(begins) {
		return fmt.Sprintf("its certificate is not valid yet, it begins on %s, and "+clocks, moment(begins), moment(now))
	}
	return fmt.Sprintf("its certificate expired on %s, and "+clocks+", or restart Flyball there, which renews it",
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

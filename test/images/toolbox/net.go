package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

const netTimeout = 5 * time.Second

// serve runs the servers that its arguments name, until SIGTERM.
func serve(ctx context.Context, args []string) error {
	if len(args) == 0 {
		args = []string{"http=:8080"}
	}
	failed := make(chan error, len(args))
	for _, a := range args {
		kind, address, _ := strings.Cut(a, "=")
		start, ok := map[string]func(string) error{"http": serveHTTP, "tcp": serveTCP, "udp": serveUDP}[kind]
		if !ok {
			return fmt.Errorf("there is no server %q", kind)
		}
		go func() { failed <- start(address) }()
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// serveHTTP answers / with the host name, /client with the client's address, /echo with the body, /healthz with 200 until
// somebody asks for /break, /env/NAME with a variable, and /exit by ending with code 3.
func serveHTTP(address string) error {
	var broken atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) {
		name, _ := os.Hostname()
		fmt.Printf("%s %s from %s\n", r.Method, r.URL.Path, r.RemoteAddr)
		_, _ = fmt.Fprintln(w, name)
	})
	mux.HandleFunc("/client", func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		_, _ = fmt.Fprintln(w, host)
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	mux.HandleFunc("/env/{name}", func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintln(w, os.Getenv(r.PathValue("name")))
	})
	mux.HandleFunc("/break", func(http.ResponseWriter, *http.Request) { broken.Store(true) })
	mux.HandleFunc("/mend", func(http.ResponseWriter, *http.Request) { broken.Store(false) })
	mux.HandleFunc("/exit", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			http.Error(w, "broken", http.StatusInternalServerError)
		}
	})
	return (&http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: netTimeout}).ListenAndServe()
}

// serveTCP answers each connection with host name and client address, then echoes.
func serveTCP(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = conn.Close() }()
			_, _ = io.WriteString(conn, greeting(conn.RemoteAddr()))
			_, _ = io.Copy(conn, conn)
		}()
	}
}

func serveUDP(address string) error {
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		_, _ = conn.WriteTo(append([]byte(greeting(from)), buf[:n]...), from)
	}
}

func greeting(client net.Addr) string {
	name, _ := os.Hostname()
	host, _, _ := net.SplitHostPort(client.String())
	return name + " " + host + "\n"
}

func dial(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("name a URL")
	}
	u, err := url.Parse(args[0])
	if err != nil {
		return err
	}
	text := strings.Join(args[1:], " ")
	ctx, cancel := context.WithTimeout(ctx, netTimeout)
	defer cancel()
	if u.Scheme == "http" || u.Scheme == "https" {
		return get(ctx, args[0], text)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, u.Scheme, u.Host)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(netTimeout))
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	if c, ok := conn.(*net.TCPConn); ok {
		_ = c.CloseWrite()
		_, err = io.Copy(os.Stdout, conn)
		return err
	}
	buf := make([]byte, 64<<10)
	n, err := conn.Read(buf)
	_, _ = os.Stdout.Write(buf[:n])
	return err
}

func get(ctx context.Context, address, body string) error {
	method := http.MethodGet
	if body != "" {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(os.Stdout, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("the server answers %s", resp.Status)
	}
	return nil
}

func resolve(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("name one name")
	}
	ctx, cancel := context.WithTimeout(ctx, netTimeout)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, args[0])
	if err != nil {
		return err
	}
	fmt.Println(strings.Join(addresses, "\n"))
	return nil
}

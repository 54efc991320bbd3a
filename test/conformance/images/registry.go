package images

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"sigs.k8s.io/yaml"
)

// Port is where the registry listens, at Address and wherever else a node needs it. It is below the NodePorts and the
// ephemeral ports: no Service and no connection of the cluster can have it first.
const Port = "25000"

// Address is where the registry listens. It is fixed, because nodes keep images by it. Container runtimes speak plain
// HTTP to loopback without being told; a node with another loopback is told by a hosts.toml (Hosts).
const Address = "127.0.0.1:" + Port

// Registry serves a layout, read-only, by the protocol of the OCI distribution specification.
type Registry struct {
	dir       string
	manifests map[string]stored // by digest
	tags      map[string]string // NAME:TAG to digest
	server    *http.Server
	host      string
}

type stored struct{ mediaType, digest string }

// Serve starts the registry on the layout that a Builder with this directory has built, listening on all addresses. Its
// images are known by the first one.
func Serve(dir string, addresses ...string) (*Registry, error) {
	r := &Registry{dir: filepath.Join(dir, "layout"), manifests: map[string]stored{}, tags: map[string]string{}}
	path, err := layout.FromPath(r.dir)
	if err != nil {
		return nil, fmt.Errorf("opening the image layout: %w", err)
	}
	index, err := path.ImageIndex()
	if err != nil {
		return nil, fmt.Errorf("reading the image layout: %w", err)
	}
	list, err := index.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("reading the image layout: %w", err)
	}
	for _, d := range list.Manifests {
		_, name, _ := strings.Cut(d.Annotations[refAnnotation], "/")
		r.tags[name] = d.Digest.String()
		r.manifests[d.Digest.String()] = stored{string(d.MediaType), d.Digest.String()}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2/", r.serve)
	r.server = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: mux}
	for _, address := range addresses {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("starting the image registry: %w", err), r.Close())
		}
		if r.host == "" {
			r.host = l.Addr().String()
		}
		go func() { _ = r.server.Serve(l) }()
	}
	return r, nil
}

// serve answers /v2/, /v2/NAME/manifests/TAG-or-DIGEST and /v2/NAME/blobs/DIGEST; NAME may have slashes.
func (r *Registry) serve(w http.ResponseWriter, req *http.Request) {
	path := strings.TrimPrefix(req.URL.Path, "/v2/")
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if path == "" {
		return
	}
	if name, ref, ok := cutLast(path, "/manifests/"); ok {
		digest := ref
		if d, ok := r.tags[name+":"+ref]; ok {
			digest = d
		}
		m, ok := r.manifests[digest]
		if !ok {
			refuse(w, "MANIFEST_UNKNOWN", name+" has no "+ref)
			return
		}
		w.Header().Set("Content-Type", m.mediaType)
		r.blob(w, req, m.digest)
		return
	}
	if _, digest, ok := cutLast(path, "/blobs/"); ok {
		w.Header().Set("Content-Type", "application/octet-stream")
		r.blob(w, req, digest)
		return
	}
	refuse(w, "NAME_UNKNOWN", path)
}

func (r *Registry) blob(w http.ResponseWriter, req *http.Request, digest string) {
	algorithm, hex, ok := strings.Cut(digest, ":")
	path := filepath.Join(r.dir, "blobs", algorithm, hex)
	if !ok || strings.ContainsAny(digest, "/.") {
		refuse(w, "DIGEST_INVALID", digest)
		return
	}
	if _, err := os.Stat(path); err != nil {
		refuse(w, "BLOB_UNKNOWN", digest)
		return
	}
	w.Header().Set("Docker-Content-Digest", digest)
	http.ServeFile(w, req, path)
}

func refuse(w http.ResponseWriter, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusNotFound)
	_, _ = fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, message)
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// Host is the first part of its images' references, such as 127.0.0.1:25000.
func (r *Registry) Host() string { return r.host }

// Close ends the registry.
func (r *Registry) Close() error { return r.server.Close() }

// RepoList returns what KUBE_TEST_REPO_LIST is to name: where the suite's registries are. The registries that must not
// answer, or that ask for the credentials of somebody else, stay where they are.
func RepoList(host string) ([]byte, error) {
	return yaml.Marshal(map[string]string{
		"promoterE2eRegistry":      host + "/e2e-test-images",
		"buildImageRegistry":       host + "/build-image",
		"gcEtcdRegistry":           host,
		"gcRegistry":               host,
		"sigStorageRegistry":       host + "/sig-storage",
		"dockerLibraryRegistry":    host + "/library",
		"cloudProviderGcpRegistry": host + "/cloud-provider-gcp",
	})
}

// Hosts returns the hosts.toml of the registry for a node that reaches it at another address, such as one in a network
// namespace of its own. It belongs into registries/127.0.0.1:25000/ of the node's data directory.
func Hosts(address string) []byte {
	return fmt.Appendf(nil, "server = \"http://%s\"\n\n[host.\"http://%s\"]\n  capabilities = [\"pull\", \"resolve\"]\n", address, address)
}

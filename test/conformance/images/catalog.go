package images

import (
	"maps"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	suite "k8s.io/kubernetes/test/utils/image"
)

// Spec says what is in an image of the suite.
type Spec struct {
	// Ref is the name that the suite gives it, with the registry that the original lies in.
	Ref string
	// Base is the short name of an image whose layers come below its own. Without one, the layer of busybox does.
	Base string
	// Packages are Debian packages; what they depend on comes with them.
	Packages []string
	// Programs are Go packages by the path of their program in the image.
	Programs map[string]string
	// ModuleFiles are files of the module k8s.io/kubernetes, by path in the image.
	ModuleFiles map[string]string
	// Files are small files by path, Links are symbolic links by path.
	Files, Links map[string]string
	// Setuid are the programs that run as their owner.
	Setuid []string
	// Bare leaves the layer of busybox out.
	Bare bool
	// Apart is an image that the suite does not ask for. It is built when it is named only.
	Apart  bool
	Config v1.Config
}

// Unbuilt is an image that is not built, and what that costs.
type Unbuilt struct{ Ref, Why, Costs string }

const (
	images      = "k8s.io/kubernetes/test/images/"
	moduleFiles = "test/images/"
)

// accounts of the images that come from Alpine or busybox.
const (
	passwd = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n"
	group  = "root:x:0:\ndaemon:x:1:\nnobody:x:65534:\n"
)

// nginxConf serves the files that Debian's package brings, in the foreground, as the original image does.
const nginxConf = `worker_processes 1;
error_log /dev/stderr notice;
pid /run/nginx.pid;
events { worker_connections 1024; }
http {
  include /etc/nginx/mime.types;
  default_type application/octet-stream;
  access_log /dev/stdout;
  server {
    listen 80;
    listen [::]:80;
    location / { root /usr/share/nginx/html; index index.html index.htm; }
  }
}
`

// postgresPrograms are where Debian's package has them, in the release that the host's apt is of: each has one version.
const postgresPrograms = "/usr/lib/postgresql/15/bin:/usr/lib/postgresql/17/bin:/usr/lib/postgresql/19/bin"

func ref(id suite.ImageID) string {
	c := suite.GetOriginalImageConfigs()[id]
	return c.GetE2EImage()
}

func ports(list ...string) map[string]struct{} {
	m := map[string]struct{}{}
	for _, p := range list {
		m[p] = struct{}{}
	}
	return m
}

// Catalog returns the images by short name. Versions come from the suite.
func Catalog() map[string]Spec {
	agnhost := Spec{
		Ref: ref(suite.Agnhost),
		// curl, nc, dig, ss and socat are what the tests run in it, besides what busybox has. The wget of Debian's busybox
		// crashes when it gets a timeout, and it has no printenv, which is in coreutils. Its nsenter runs programs of its own in
		// place of the host's: that of util-linux does not.
		Packages: []string{"bash", "bind9-dnsutils", "coreutils", "curl", "iperf", "iproute2", "libc-bin", "netcat-openbsd", "socat", "util-linux", "wget"},
		Programs: map[string]string{"agnhost": images + "agnhost", "coredns": "flyball.dev/test/conformance/images/coredns"},
		ModuleFiles: map[string]string{
			"localhost.crt": moduleFiles + "agnhost/porter/localhost.crt",
			"localhost.key": moduleFiles + "agnhost/porter/localhost.key",
		},
		Files: map[string]string{
			// A test asks for the groups that the image itself gives a user.
			"etc/passwd":     passwd + "user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh\n",
			"etc/group":      group + "user-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n",
			"uploads/.empty": "",
			// As the original's wget, it tries once.
			"etc/wgetrc": "tries = 1\n",
		},
		Links: map[string]string{"agnhost-2": "agnhost", "usr/bin/nc": "nc.openbsd", "usr/local/bin/iperf": "/usr/bin/iperf"},
		Config: v1.Config{
			Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}, WorkingDir: "/",
			ExposedPorts: ports("80/tcp", "8080/tcp", "8081/tcp", "9376/tcp", "5000/tcp"),
		},
	}
	previous := agnhost
	previous.Ref = ref(suite.AgnhostPrev)
	nginx := Spec{
		Ref: ref(suite.Nginx), Packages: []string{"nginx", "nginx-common"},
		Files:  map[string]string{"etc/nginx/nginx.conf": nginxConf, "etc/passwd": passwd + "nginx:x:101:101:nginx:/nonexistent:/bin/false\n", "etc/group": group + "nogroup:x:65533:\nnginx:x:101:\n"},
		Config: v1.Config{Cmd: []string{"nginx", "-g", "daemon off;"}, ExposedPorts: ports("80/tcp"), StopSignal: "SIGQUIT"},
	}
	newer := nginx
	newer.Ref = ref(suite.NginxNew)
	catalog := map[string]Spec{
		"agnhost":      agnhost,
		"agnhost-prev": previous,
		"busybox": {
			Ref: ref(suite.BusyBox), Programs: map[string]string{"bin/sh": "flyball.dev/test/conformance/images/sh"},
			Config: v1.Config{Cmd: []string{"sh"}},
		},
		"nginx":     nginx,
		"nginx-new": newer,
		"pause": {
			Ref: ref(suite.Pause), Bare: true, Programs: map[string]string{"pause": "flyball.dev/test/images/pause"},
			Config: v1.Config{Entrypoint: []string{"/pause"}, User: "65535:65535", Env: []string{"GOMAXPROCS=1", "GOGC=off"}},
		},
		"kitten":   page("kitten", ref(suite.Kitten)),
		"nautilus": page("nautilus", ref(suite.Nautilus)),
		"nonroot":  {Ref: ref(suite.NonRoot), Config: v1.Config{Cmd: []string{"/bin/sh"}, User: "1234"}},
		"nonewprivs": {
			Ref: ref(suite.Nonewprivs), Programs: map[string]string{"usr/local/bin/nnp": images + "nonewprivs"},
			Setuid: []string{"usr/local/bin/nnp"}, Config: v1.Config{Cmd: []string{"nnp"}},
		},
		"perl": {Ref: ref(suite.Perl), Packages: []string{"perl", "bash"}, Config: v1.Config{Cmd: []string{"perl", "-de0"}}},
		"glibc-dns-testing": {
			Ref: ref(suite.GlibcDnsTesting), Packages: []string{"bash", "bind9-dnsutils", "coreutils", "hostname", "libc-bin"},
			Programs: map[string]string{"coredns": "flyball.dev/test/conformance/images/coredns"}, Config: v1.Config{Cmd: []string{"bash"}},
		},
		"ipc-utils": {Ref: ref(suite.IpcUtils), Packages: []string{"util-linux"}, Config: v1.Config{Cmd: []string{"/bin/sh"}}},
		"resource-consumer": {
			Ref: ref(suite.ResourceConsumer), Packages: []string{"stress"},
			Programs: map[string]string{"consumer": images + "resource-consumer", "consume-cpu/consume-cpu": images + "resource-consumer/consume-cpu"},
			Config:   v1.Config{Entrypoint: []string{"/consumer"}, ExposedPorts: ports("8080/tcp")},
		},
		"sample-apiserver": {
			Ref: ref(suite.APIServer), Programs: map[string]string{"sample-apiserver": "k8s.io/sample-apiserver"},
			Config: v1.Config{Entrypoint: []string{"/sample-apiserver"}},
		},
		"etcd": {
			Ref: ref(suite.Etcd), Programs: map[string]string{"usr/local/bin/etcd": "go.etcd.io/etcd/server/v3"},
			Config: v1.Config{Cmd: []string{"etcd"}, ExposedPorts: ports("2379/tcp", "2380/tcp")},
		},
		"sample-device-plugin": {
			Ref: ref(suite.SampleDevicePlugin), Programs: map[string]string{"sampledeviceplugin": images + "sample-device-plugin"},
			Config: v1.Config{Entrypoint: []string{"/sampledeviceplugin", "-alsologtostderr"}},
		},
		"regression-issue-74839": {
			Ref: ref(suite.RegressionIssue74839), Programs: map[string]string{"regression-issue-74839": images + "regression-issue-74839"},
			Config: v1.Config{Entrypoint: []string{"/regression-issue-74839"}},
		},
	}
	maps.Copy(catalog, storage())
	catalog["postgres"] = Spec{
		Ref: "flyball.dev/postgres:1", Apart: true, Packages: []string{"bash", "coreutils", "postgresql"},
		Files:  map[string]string{"etc/passwd": passwd + "postgres:x:999:999::/data:/bin/sh\n", "etc/group": group + "postgres:x:999:\n"},
		Config: v1.Config{Env: []string{"PATH=" + postgresPrograms + ":/usr/local/bin:/usr/bin:/bin"}},
	}
	return catalog
}

// page is an image that serves a picture: of agnhost's layers, with the page the update demo asks for.
func page(name, ref string) Spec {
	return Spec{
		Ref: ref, Base: "agnhost",
		ModuleFiles: map[string]string{
			name + ".jpg": moduleFiles + name + "/html/" + name + ".jpg",
			"data.json":   moduleFiles + name + "/html/data.json",
		},
		// A test of image volumes reads there what the original is based on.
		Files: map[string]string{"etc/os-release": "NAME=\"Alpine Linux\"\nID=alpine\nPRETTY_NAME=\"Alpine Linux\"\n"},
		Config: v1.Config{
			Entrypoint: []string{"/agnhost"}, Cmd: []string{"test-webserver"}, WorkingDir: "/",
			ExposedPorts: ports("80/tcp", "8080/tcp", "8081/tcp", "9376/tcp", "5000/tcp"),
		},
	}
}

// none are the images that are on purpose in no registry.
var none = map[suite.ImageID]bool{suite.InvalidRegistryImage: true}

// reasons are those for images that are not built, by a part of their name; the first that matches counts.
var reasons = []Unbuilt{
	{"/sig-storage/nfs-provisioner", "its source is outside of k8s.io/kubernetes", "dynamic provisioning over NFS; no conformance test"},
	{"/sig-storage/csi-snapshot-metadata", "its source is in no Go module", "metadata of snapshots, a feature that is off by default; no conformance test"},
	{"/sig-storage/", "its source is in no Go module", "tests with the CSI hostpath driver in the cluster; no conformance test"},
	{"k8s-authenticated-test/", "its registry asks for Google's credentials", "tests that pull from gcr.io with a secret; no conformance test"},
	{"/node-perf/", "a benchmark", "node performance; no conformance test"},
	{"/volume/", "needs a kernel server for NFS or iSCSI", "volumes over NFS and iSCSI; no conformance test"},
	{"/apparmor-loader", "needs AppArmor on the host", "AppArmor profiles; no conformance test"},
	{"/distroless-iptables", "is asked for by one test of kube-proxy's own rules", "kube-proxy's rules; no conformance test"},
	{"", "its source is outside of k8s.io/kubernetes", "no conformance test"},
}

// Missing lists the images that the suite names and that are not built.
func Missing() []Unbuilt {
	have := map[string]bool{}
	for _, s := range Catalog() {
		have[s.Ref] = true
	}
	var list []Unbuilt
	for id, c := range suite.GetOriginalImageConfigs() {
		name := c.GetE2EImage()
		if have[name] || none[id] {
			continue
		}
		i := slices.IndexFunc(reasons, func(u Unbuilt) bool { return strings.Contains(name, u.Ref) })
		list = append(list, Unbuilt{Ref: name, Why: reasons[i].Why, Costs: reasons[i].Costs})
	}
	slices.SortFunc(list, func(a, b Unbuilt) int { return strings.Compare(a.Ref, b.Ref) })
	return list
}

// Names returns the short names of the suite's images, those that others are based on first. CSI sidecars, which have modules of
// their own and take minutes to build, are left out unless tests with a mock CSI driver need them.
func Names(mock bool) []string {
	c := Catalog()
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(c)), func(n string) bool { return c[n].Apart || isSidecar(c[n]) && !mock })
	slices.SortStableFunc(names, func(a, b string) int { return min(len(c[a].Base), 1) - min(len(c[b].Base), 1) })
	return names
}

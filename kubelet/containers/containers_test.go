package containers

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/cri"
	"flyball.dev/kubelet/volumes"
)

func basePod() *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u", Labels: map[string]string{"tier": "web"}},
		Spec: v1.PodSpec{
			NodeName: "node-1", ServiceAccountName: "default", DNSPolicy: v1.DNSClusterFirst,
			Containers: []v1.Container{{Name: "c", Image: "img"}},
		},
	}
}

// TestOwner: labels of the Pod do not override the owner.
func TestOwner(t *testing.T) {
	pod := basePod()
	pod.Labels = map[string]string{cri.LabelOwner: "forged", cri.LabelPodUID: "forged"}
	config, err := Sandbox(pod, SandboxOptions{Node: testNode()})
	if err != nil {
		t.Fatal(err)
	}
	if got := config.Labels; got[cri.LabelOwner] != testNode().Owner || got[cri.LabelPodUID] != string(pod.UID) {
		t.Errorf("labels of the sandbox: %v", got)
	}
}

func TestDNS(t *testing.T) {
	cluster := &runtimeapi.DNSConfig{
		Servers:  []string{"10.43.0.10"},
		Searches: []string{"ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.com"},
		Options:  []string{"ndots:5"},
	}
	host := testNode().Resolver.HostDNS().DNSConfig
	loopback := func(n *Node) {
		n.Resolver = &Resolver{file: "testdata/loopback.resolv.conf"}
	}
	cases := map[string]struct {
		reason   string
		pod      func(*v1.PodSpec)
		node     func(*Node)
		want     *runtimeapi.DNSConfig
		warnings []string
	}{
		"ClusterFirst":            {reason: "the cluster's server first, the host's domains last", want: cluster},
		"Default":                 {reason: "as on the host", pod: func(s *v1.PodSpec) { s.DNSPolicy = v1.DNSDefault }, want: host},
		"HostNetwork":             {reason: "ClusterFirst means Default on the host's network", pod: func(s *v1.PodSpec) { s.HostNetwork = true }, want: host},
		"ClusterFirstWithHostNet": {reason: "unless it is said explicitly", pod: func(s *v1.PodSpec) { s.HostNetwork = true; s.DNSPolicy = v1.DNSClusterFirstWithHostNet }, want: cluster},
		"None": {reason: "nothing but what the Pod brings", pod: func(s *v1.PodSpec) {
			s.DNSPolicy = v1.DNSNone
			s.DNSConfig = &v1.PodDNSConfig{Nameservers: []string{"192.0.2.1"}}
		}, want: &runtimeapi.DNSConfig{Servers: []string{"192.0.2.1"}}},
		"Merge": {
			reason: "dnsConfig is added, and replaces options of the same name",
			pod: func(s *v1.PodSpec) {
				s.DNSConfig = &v1.PodDNSConfig{Searches: []string{"cluster.local", "x.example"}, Options: []v1.PodDNSConfigOption{{Name: "ndots", Value: new("1")}, {Name: "edns0"}}}
			},
			want: &runtimeapi.DNSConfig{Servers: cluster.Servers, Searches: append(append([]string{}, cluster.Searches...), "x.example"), Options: []string{"ndots:1", "edns0"}},
		},
		"NoClusterDNS": {
			reason:   "without a cluster DNS the Pod gets an Event and the host's",
			node:     func(n *Node) { n.ClusterDNS = nil },
			want:     host,
			warnings: []string{"MissingClusterDNS"},
		},
		"Loopback": {
			reason:   "the loopback of a Pod is its own, and an empty config means a copy of the host's file to containerd",
			pod:      func(s *v1.PodSpec) { s.DNSPolicy = v1.DNSDefault },
			node:     loopback,
			want:     &runtimeapi.DNSConfig{Options: []string{"ndots:1"}},
			warnings: []string{"DNSConfigForming"},
		},
		"LoopbackOfHost": {
			reason: "on the host's network the loopback is the host's",
			pod:    func(s *v1.PodSpec) { s.HostNetwork = true },
			node:   loopback,
			want:   &runtimeapi.DNSConfig{Servers: []string{"127.0.0.53"}},
		},
		"TooManyServers": {
			reason: "resolvers read three name servers",
			pod: func(s *v1.PodSpec) {
				s.DNSConfig = &v1.PodDNSConfig{Nameservers: []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}}
			},
			want:     &runtimeapi.DNSConfig{Servers: []string{"10.43.0.10", "192.0.2.1", "192.0.2.2"}, Searches: cluster.Searches, Options: cluster.Options},
			warnings: []string{"DNSConfigForming"},
		},
		"LongSearch": {
			reason:   "a domain of more than 253 characters is left out",
			pod:      func(s *v1.PodSpec) { s.DNSConfig = &v1.PodDNSConfig{Searches: []string{strings.Repeat("a", 254)}} },
			want:     cluster,
			warnings: []string{"DNSConfigForming"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod, node := basePod(), testNode()
			if tc.pod != nil {
				tc.pod(&pod.Spec)
			}
			if tc.node != nil {
				tc.node(&node)
			}
			got, warnings := DNS(pod, node)
			var reasons []string
			for _, w := range warnings {
				reasons = append(reasons, w.Reason)
			}
			opts := cmp.Options{cmpopts.IgnoreUnexported(runtimeapi.DNSConfig{}), cmpopts.EquateEmpty()}
			if diff := cmp.Diff(tc.want, got, opts); diff != "" {
				t.Errorf("%s\nDNS() -want +got:\n%s", tc.reason, diff)
			}
			if diff := cmp.Diff(tc.warnings, reasons); diff != "" {
				t.Errorf("%s\nwarnings -want +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func TestHosts(t *testing.T) {
	pod := basePod()
	pod.Spec.Subdomain = "sub"
	pod.Spec.HostAliases = []v1.HostAlias{{IP: "192.0.2.9", Hostnames: []string{"x", "y"}}}
	got, err := hostsFile(pod, []string{"10.42.0.7"}, "cluster.local")
	if err != nil {
		t.Fatal(err)
	}
	want := &volumes.HostsFile{Header: hostsHeader, Entries: hostsLocal +
		"10.42.0.7\tp.sub.ns.svc.cluster.local\tp\n\n# Entries added by HostAliases.\n192.0.2.9\tx\ty\n"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("hostsFile() -want +got:\n%s", diff)
	}
}

func TestHostname(t *testing.T) {
	cases := map[string]struct {
		reason string
		pod    func(*v1.Pod)
		want   string
		err    string
	}{
		"Name":     {reason: "a Pod is named as it is", want: "p"},
		"Spec":     {reason: "unless it says otherwise", pod: func(p *v1.Pod) { p.Spec.Hostname = "h" }, want: "h"},
		"Override": {reason: "an override may be a whole domain", pod: func(p *v1.Pod) { p.Spec.HostnameOverride = new("a.b"); p.Spec.Subdomain = "s" }, want: "a.b"},
		"Long":     {reason: "the kernel takes 63 characters, and none may end in a dash", pod: func(p *v1.Pod) { p.Name = strings.Repeat("a", 62) + "-b" }, want: strings.Repeat("a", 62)},
		"HostNet":  {reason: "on the host's network the name is the host's", pod: func(p *v1.Pod) { p.Spec.HostNetwork = true }},
		"FQDN":     {reason: "setHostnameAsFQDN", pod: func(p *v1.Pod) { p.Spec.Subdomain = "s"; p.Spec.SetHostnameAsFQDN = new(true) }, want: "p.s.ns.svc.cluster.local"},
		"LongFQDN": {reason: "a name that does not fit is an error", pod: func(p *v1.Pod) {
			p.Name = strings.Repeat("a", 60)
			p.Spec.Subdomain = "s"
			p.Spec.SetHostnameAsFQDN = new(true)
		}, err: "is too long"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := basePod()
			if tc.pod != nil {
				tc.pod(pod)
			}
			got, err := kernelHostname(pod, "cluster.local")
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s\nkernelHostname() -want +got:\n%s", tc.reason, diff)
			}
			wantError(t, tc.err, err)
		})
	}
}

func wantError(t *testing.T, want string, got error) {
	t.Helper()
	if (want == "") != (got == nil) || got != nil && !strings.Contains(got.Error(), want) {
		t.Errorf("error = %v, want %q", got, want)
	}
}

func TestNonRoot(t *testing.T) {
	cases := map[string]struct {
		reason string
		user   *int64
		image  ImageUser
		err    string
	}{
		"UserSet":       {reason: "a user other than root is fine", user: ptr.To[int64](7)},
		"UserRoot":      {reason: "root is not", user: ptr.To[int64](0), err: "container's runAsUser breaks non-root policy (pod: \"p_ns(u)\", container: c)"},
		"ImageRoot":     {reason: "nor by way of the image", image: ImageUser{UID: ptr.To[int64](0)}, err: "container has runAsNonRoot and image will run as root"},
		"ImageName":     {reason: "a name cannot be judged", image: ImageUser{Name: "web"}, err: "container has runAsNonRoot and image has non-numeric user (web), cannot verify user is non-root"},
		"ImageNonRoot":  {reason: "a number can", image: ImageUser{UID: ptr.To[int64](5)}},
		"ImageTooLarge": {reason: "if it is one", image: ImageUser{UID: ptr.To[int64](1 << 40)}, err: "invalid user id"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := basePod()
			pod.Spec.SecurityContext = &v1.PodSecurityContext{RunAsNonRoot: new(true), RunAsUser: tc.user}
			_, err := Container(Input{Node: testNode(), Pod: pod, Container: &pod.Spec.Containers[0], ImageUser: tc.image})
			wantError(t, tc.err, err)
			var e *Error
			if tc.err != "" && (!errors.As(err, &e) || e.Reason != ReasonCreateContainerConfigError) {
				t.Errorf("%s: the error has no reason: %v", tc.reason, err)
			}
		})
	}
}

func TestMountErrors(t *testing.T) {
	cases := map[string]struct {
		reason string
		mount  v1.VolumeMount
		err    string
	}{
		"Unknown":  {reason: "a volume that is not mounted", mount: v1.VolumeMount{Name: "x", MountPath: "/x"}, err: `cannot find volume "x" to mount into container "c"`},
		"Absolute": {reason: "subPaths are relative", mount: v1.VolumeMount{Name: "v", SubPath: "/etc"}, err: "must not be an absolute path"},
		"Backstep": {reason: "and do not lead out", mount: v1.VolumeMount{Name: "v", SubPath: "a/../../b"}, err: "must not contain '..'"},
		"Missing":  {reason: "an empty variable would give away the whole volume", mount: v1.VolumeMount{Name: "v", SubPathExpr: "a/$(NONE)"}, err: "missing value for NONE"},
		"Unmade":   {reason: "as would a subPath that was not prepared", mount: v1.VolumeMount{Name: "v", SubPath: "a"}, err: "failed to prepare subPath"},
		"RRO":      {reason: "recursive needs read-only", mount: v1.VolumeMount{Name: "v", RecursiveReadOnly: ptr.To(v1.RecursiveReadOnlyEnabled)}, err: "but it is not read-only"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := basePod()
			pod.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{tc.mount}
			in := Input{Node: testNode(), Pod: pod, Container: &pod.Spec.Containers[0], Volumes: map[string]volumes.Mounted{"v": {HostPath: "/v"}}}
			_, err := Files(in)
			if err == nil {
				_, err = Container(in)
			}
			wantError(t, tc.err, err)
		})
	}
}

func TestDevices(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		device v1.VolumeDevice
		mount  *v1.VolumeMount
		want   *runtimeapi.Device
		err    string
	}{
		"Writable": {
			reason: "mknod, read and write, as upstream's",
			device: v1.VolumeDevice{Name: "rw", DevicePath: "/dev/data"},
			want:   &runtimeapi.Device{ContainerPath: "/dev/data", HostPath: "/rw", Permissions: "mrw"},
		},
		"ReadOnly": {
			reason: "the Pod's use of the claim is read-only",
			device: v1.VolumeDevice{Name: "ro", DevicePath: "/dev/data"},
			want:   &runtimeapi.Device{ContainerPath: "/dev/data", HostPath: "/ro", Permissions: "r"},
		},
		"Relative": {
			reason: "in upstream's words",
			device: v1.VolumeDevice{Name: "rw", DevicePath: "data"}, err: "error DevicePath `data` must be an absolute path",
		},
		"Directory": {
			reason: "a directory is no device",
			device: v1.VolumeDevice{Name: "dir", DevicePath: "/dev/data"}, err: `cannot find volume "dir" to pass into container "c"`,
		},
		"Mounted": {
			reason: "nor is a device a directory",
			device: v1.VolumeDevice{Name: "rw", DevicePath: "/dev/data"}, mount: &v1.VolumeMount{Name: "rw", MountPath: "/data"},
			err: `cannot find volume "rw" to mount into container "c"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			pod := basePod()
			c := &pod.Spec.Containers[0]
			c.VolumeDevices = []v1.VolumeDevice{tc.device}
			if tc.mount != nil {
				c.VolumeMounts = []v1.VolumeMount{*tc.mount}
			}
			config, err := Container(Input{Node: testNode(), Pod: pod, Container: c, Volumes: map[string]volumes.Mounted{
				"rw": {HostPath: "/rw", Device: true}, "ro": {HostPath: "/ro", Device: true, ReadOnly: true}, "dir": {HostPath: "/dir"},
			}})
			if tc.err != "" || err != nil {
				wantError(t, tc.err, err)
				return
			}
			if diff := cmp.Diff([]*runtimeapi.Device{tc.want}, config.Devices, cmpopts.IgnoreUnexported(runtimeapi.Device{})); diff != "" {
				t.Errorf("%s\ndevices -want +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func TestResources(t *testing.T) {
	pod := basePod()
	pod.Spec.Containers[0].Resources = v1.ResourceRequirements{Limits: v1.ResourceList{v1.ResourceCPU: resource.MustParse("250m"), v1.ResourceMemory: resource.MustParse("64Mi")}}
	pod.Spec.Containers[0].Resources.Requests = pod.Spec.Containers[0].Resources.Limits
	node := testNode()
	node.CgroupV2, node.SwapController, node.LowestOOMScoreAdj = true, true, 0
	got := Resources(node, pod, &pod.Spec.Containers[0])
	want := &runtimeapi.LinuxContainerResources{
		CpuShares: 256, CpuQuota: 25000, CpuPeriod: 100000, MemoryLimitInBytes: 64 << 20,
		OomScoreAdj:    0, // Guaranteed would be -997, which may not be set here
		HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB"}},
		Unified:        map[string]string{"memory.oom.group": "1", "memory.swap.max": "0"},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(runtimeapi.LinuxContainerResources{}, runtimeapi.HugepageLimit{})); diff != "" {
		t.Errorf("Resources() -want +got:\n%s", diff)
	}
}

func TestInfo(t *testing.T) {
	pod := basePod()
	pod.Spec.TerminationGracePeriodSeconds = ptr.To[int64](7)
	c := &pod.Spec.Containers[0]
	c.Lifecycle = &v1.Lifecycle{PreStop: &v1.LifecycleHandler{Sleep: &v1.SleepAction{Seconds: 3}}}
	c.Ports = []v1.ContainerPort{{Name: "bye", ContainerPort: 8080}}
	config, err := Container(Input{Node: testNode(), Pod: pod, Container: c, Attempt: 2})
	if err != nil {
		t.Fatal(err)
	}
	want := cri.Info{
		TerminationGracePeriod: ptr.To[int64](7), PreStop: c.Lifecycle.PreStop, Ports: c.Ports,
		Created: &cri.CreatedResources{Container: c.Resources},
	}
	if diff := cmp.Diff(want, cri.ParseInfo(config.Annotations)); diff != "" {
		t.Errorf("ParseInfo() -want +got:\n%s", diff)
	}
	if got := config.Annotations[cri.AnnotationHash]; got != Hash(c) {
		t.Errorf("the hash is %q, want %q", got, Hash(c))
	}
	other := c.DeepCopy()
	other.Image = "other"
	if Hash(other) == Hash(c) {
		t.Error("Hash() does not depend on the image")
	}
}

// objects is a volumes.Source of fixed objects.
type objects struct {
	configMaps map[string]*v1.ConfigMap
	secrets    map[string]*v1.Secret
}

func (o objects) ConfigMap(_ context.Context, _, name string) (*v1.ConfigMap, error) {
	if cm := o.configMaps[name]; cm != nil {
		return cm, nil
	}
	return nil, apierrors.NewNotFound(v1.Resource("configmap"), name)
}

func (o objects) Secret(_ context.Context, _, name string) (*v1.Secret, error) {
	if s := o.secrets[name]; s != nil {
		return s, nil
	}
	return nil, apierrors.NewNotFound(v1.Resource("secret"), name)
}

func TestEnvironment(t *testing.T) {
	src := EnvSources{
		Objects: objects{
			configMaps: map[string]*v1.ConfigMap{"cm": {Data: map[string]string{"B": "cm-b", "A": "cm-a"}}},
			secrets:    map[string]*v1.Secret{"s": {Data: map[string][]byte{"K": []byte("secret")}}},
		},
		Services: func(_ context.Context, ns string) ([]*v1.Service, error) {
			service := func(name, ip string) *v1.Service {
				return &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns}, Spec: v1.ServiceSpec{ClusterIP: ip, Ports: []v1.ServicePort{{Port: 443, Protocol: v1.ProtocolTCP}}}}
			}
			if ns == "default" {
				return []*v1.Service{service("kubernetes", "10.43.0.1"), service("other", "10.43.0.2")}, nil
			}
			return []*v1.Service{service("db", "10.43.0.3"), service("headless", "None")}, nil
		},
	}
	ref := func(name string) v1.LocalObjectReference { return v1.LocalObjectReference{Name: name} }
	cases := map[string]struct {
		reason string
		c      v1.Container
		links  bool
		want   []string
		err    string
	}{
		"EnvFrom": {
			reason: "keys are sorted and prefixed; later sources win; env wins over all",
			c: v1.Container{
				EnvFrom: []v1.EnvFromSource{
					{ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: ref("cm")}},
					{Prefix: "P_", SecretRef: &v1.SecretEnvSource{LocalObjectReference: ref("s")}},
					{ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: ref("no"), Optional: new(true)}},
				},
				Env: []v1.EnvVar{{Name: "B", Value: "own $(A) $(P_K) $$(A) $(NONE)"}},
			},
			want: []string{"A=cm-a", "B=own cm-a secret $(A) $(NONE)", "P_K=secret"},
		},
		"ValueFrom": {
			reason: "every source of a single value",
			c: v1.Container{Env: []v1.EnvVar{
				{Name: "CM", ValueFrom: &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: ref("cm"), Key: "A"}}},
				{Name: "S", ValueFrom: &v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{LocalObjectReference: ref("s"), Key: "K"}}},
				{Name: "NOKEY", ValueFrom: &v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{LocalObjectReference: ref("s"), Key: "X", Optional: new(true)}}},
				{Name: "LABEL", ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.labels['tier']"}}},
				{Name: "NODE", ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "spec.nodeName"}}},
				{Name: "HOST", ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "status.hostIP"}}},
				{Name: "IP", ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "status.podIPs"}}},
				{Name: "MEM", ValueFrom: &v1.EnvVarSource{ResourceFieldRef: &v1.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}}},
				{Name: "URL", Value: "http://$(IP)/$(CM)"},
			}},
			want: []string{"CM=cm-a", "S=secret", "LABEL=web", "NODE=node-1", "HOST=192.0.2.10", "IP=10.42.0.7", "MEM=4096", "URL=http://10.42.0.7/cm-a"},
		},
		"Links": {
			reason: "Services of the Pod's namespace, and kubernetes, can be used in values",
			c:      v1.Container{Env: []v1.EnvVar{{Name: "DB", Value: "$(DB_SERVICE_HOST)"}}},
			links:  true,
			want: []string{
				"DB=10.43.0.3", "DB_PORT=tcp://10.43.0.3:443", "DB_PORT_443_TCP=tcp://10.43.0.3:443", "DB_PORT_443_TCP_ADDR=10.43.0.3",
				"DB_PORT_443_TCP_PORT=443", "DB_PORT_443_TCP_PROTO=tcp", "DB_SERVICE_HOST=10.43.0.3", "DB_SERVICE_PORT=443",
			},
		},
		"MissingConfigMap": {
			reason: "in upstream's words",
			c:      v1.Container{EnvFrom: []v1.EnvFromSource{{ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: ref("no")}}}},
			err:    `configmap "no" not found`,
		},
		"MissingKey": {
			reason: "in upstream's words",
			c:      v1.Container{Env: []v1.EnvVar{{Name: "X", ValueFrom: &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: ref("cm"), Key: "no"}}}}},
			err:    "couldn't find key no in ConfigMap ns/cm",
		},
		"MissingSecretKey": {
			reason: "in upstream's words",
			c:      v1.Container{Env: []v1.EnvVar{{Name: "X", ValueFrom: &v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{LocalObjectReference: ref("s"), Key: "no"}}}}},
			err:    "couldn't find key no in Secret ns/s",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := basePod()
			pod.Spec.EnableServiceLinks = new(tc.links)
			got, err := Environment(t.Context(), src, Input{Node: testNode(), Pod: pod, Container: &tc.c, PodIPs: []string{"10.42.0.7"}})
			wantError(t, tc.err, err)
			var env []string
			kubernetes := 0
			for _, kv := range got {
				if strings.HasPrefix(kv.Key, "KUBERNETES_") {
					kubernetes++
					continue
				}
				env = append(env, kv.Key+"="+string(kv.Value))
			}
			if diff := cmp.Diff(tc.want, env); diff != "" {
				t.Errorf("%s\nEnvironment() -want +got:\n%s", tc.reason, diff)
			}
			if tc.err == "" && kubernetes != 7 {
				t.Errorf("%d variables of the Service kubernetes, want 7 in every container", kubernetes)
			}
		})
	}
}

func TestParseResolvConf(t *testing.T) {
	got := parseResolvConf("# by hand\nnameserver 192.0.2.1\nnameserver 192.0.2.2 # two\nsearch old.example\nsearch a.example. . b.example\noptions ndots:2 edns0\nnameserver\n")
	want := &runtimeapi.DNSConfig{Servers: []string{"192.0.2.1", "192.0.2.2"}, Searches: []string{"a.example", "b.example"}, Options: []string{"ndots:2", "edns0"}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(runtimeapi.DNSConfig{})); diff != "" {
		t.Errorf("parseResolvConf() -want +got:\n%s", diff)
	}
}

func TestDetectNode(t *testing.T) {
	node, err := DetectNode("/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	if node.Resolver == nil || node.LowestOOMScoreAdj < -1000 || node.LowestOOMScoreAdj > 1000 {
		t.Errorf("DetectNode() = %+v", node)
	}
}

func TestUserNamespacesAreRefused(t *testing.T) {
	pod := basePod()
	pod.Spec.HostUsers = new(false)
	_, err := Sandbox(pod, SandboxOptions{Node: testNode()})
	wantError(t, "hostUsers: false is not supported yet", err)
}

func TestImageVolumes(t *testing.T) {
	image := func(ref string) *runtimeapi.ImageSpec {
		return &runtimeapi.ImageSpec{Image: ref, UserSpecifiedImage: "a:1", RuntimeHandler: "h", Annotations: map[string]string{"k": "v"}}
	}
	cases := map[string]struct {
		reason string
		mount  v1.VolumeMount
		ref    string
		want   *runtimeapi.Mount
		err    string
	}{
		"Whole": {
			reason: "an image is read-only, and has no path on the host", ref: "sha256:a", mount: v1.VolumeMount{},
			want: &runtimeapi.Mount{ContainerPath: "/m", Readonly: true, Image: image("sha256:a")},
		},
		"SubPath": {
			reason: "the runtime finds the path in the image", ref: "sha256:a", mount: v1.VolumeMount{SubPath: "etc/x"},
			want: &runtimeapi.Mount{ContainerPath: "/m", Readonly: true, Image: image("sha256:a"), ImageSubPath: "etc/x"},
		},
		"SubPathExpr": {
			reason: "with variables", ref: "sha256:a", mount: v1.VolumeMount{SubPathExpr: "$(D)/x"},
			want: &runtimeapi.Mount{ContainerPath: "/m", Readonly: true, Image: image("sha256:a"), ImageSubPath: "d/x"},
		},
		"Escape":  {reason: "never out of it", ref: "sha256:a", mount: v1.VolumeMount{SubPath: "../x"}, err: "unable to provision SubPath `../x`: must not contain '..'"},
		"NoImage": {reason: "never without it", err: `cannot find the image of volume "v" to mount into container "c"`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := basePod()
			pod.Annotations = map[string]string{"k": "v"}
			pod.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{Image: &v1.ImageVolumeSource{Reference: "a:1"}}}}
			tc.mount.Name, tc.mount.MountPath = "v", "/m"
			pod.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{tc.mount}
			in := Input{
				Node: testNode(), Pod: pod, Container: &pod.Spec.Containers[0], RuntimeHandler: "h", Env: []*runtimeapi.KeyValue{{Key: "D", Value: []byte("d")}},
				Volumes: map[string]volumes.Mounted{"v": {Image: true, ReadOnly: true}}, VolumeImages: map[string]string{"v": tc.ref},
			}
			spec, err := Files(in)
			if err == nil && len(spec.SubPaths) > 0 {
				t.Errorf("%s: wants %v made on the host", tc.reason, spec.SubPaths)
			}
			config, err := Container(in)
			if tc.err != "" || err != nil {
				if err == nil || err.Error() != tc.err {
					t.Errorf("%s: error %v, want %s", tc.reason, err, tc.err)
				}
				return
			}
			if diff := cmp.Diff(tc.want, config.Mounts[0], cmpopts.IgnoreUnexported(runtimeapi.Mount{}, runtimeapi.ImageSpec{})); diff != "" {
				t.Errorf("%s\nmount -want +got:\n%s", tc.reason, diff)
			}
			if got := config.Annotations[cri.AnnotationImageVolumes]; got != tc.ref {
				t.Errorf("the annotation of image volumes is %q, want %q", got, tc.ref)
			}
		})
	}
}

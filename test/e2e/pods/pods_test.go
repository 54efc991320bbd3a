// Package pods tests what a Pod's specification asks of the node agent: what its containers see, when they run, and what
// its status says.
package pods

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"flyball.dev/test/e2e/internal/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

func container(args ...string) corev1.Container { return corev1.Container{Args: args} }

func pod(containers ...corev1.Container) corev1.PodSpec {
	return corev1.PodSpec{Containers: containers}
}

// has fails the test for each wanted line that the output lacks.
func has(t *testing.T, output string, want ...string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(output), "\n")
	for _, w := range want {
		if !slices.Contains(lines, w) {
			t.Errorf("there is no line %q in:\n%s", w, output)
		}
	}
}

// sources creates the ConfigMap and the Secret that Pods refer to.
func sources(t *testing.T, ns string) {
	t.Helper()
	c := cluster.Client(t).CoreV1()
	_, err := c.ConfigMaps(ns).Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "settings"}, Data: map[string]string{"color": "red", "size": "large"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Secrets(ns).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "secrets"}, StringData: map[string]string{"password": "hunter2"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func TestEnvironment(t *testing.T) {
	ns := cluster.Namespace(t)
	sources(t, ns)
	c := container("env")
	field := func(path string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
	}
	c.Env = []corev1.EnvVar{
		{Name: "PLAIN", Value: "one"},
		{Name: "EXPANDED", Value: "$(PLAIN) and $$(PLAIN)"},
		{Name: "NAME", ValueFrom: field("metadata.name")},
		{Name: "NODE", ValueFrom: field("spec.nodeName")},
		{Name: "ADDRESS", ValueFrom: field("status.podIP")},
		{Name: "COLOR", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}, Key: "color"}}},
		{Name: "PASSWORD", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "secrets"}, Key: "password"}}},
		{Name: "LIMIT", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory"}}},
	}
	c.EnvFrom = []corev1.EnvFromSource{{Prefix: "SET_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}}
	c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}
	out := cluster.Output(t, ns, "env", pod(c))
	has(t, out, "PLAIN=one", "EXPANDED=one and $(PLAIN)", "NAME=env", "COLOR=red", "PASSWORD=hunter2", "LIMIT=67108864",
		"SET_color=red", "SET_size=large", "KUBERNETES_SERVICE_HOST=10.43.0.1", "KUBERNETES_SERVICE_PORT=443", "HOSTNAME=env")
	ip := cluster.Await(t, ns, "env", func(*corev1.Pod) error { return nil }).Status.PodIP
	has(t, out, "ADDRESS="+ip)
	if addr, err := netip.ParseAddr(ip); err != nil || !netip.MustParsePrefix("10.42.0.0/16").Contains(addr) {
		t.Errorf("the Pod's address is %q", ip)
	}
}

func TestCommandAndArgs(t *testing.T) {
	ns := cluster.Namespace(t)
	c := corev1.Container{Command: []string{"/bin/echo", "$(WORD)"}, Args: []string{"two", "$(WORD)"}, Env: []corev1.EnvVar{{Name: "WORD", Value: "one"}}}
	has(t, cluster.Output(t, ns, "command", pod(c)), "one two one")
}

func TestVolumes(t *testing.T) {
	ns := cluster.Namespace(t)
	sources(t, ns)
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "file"), []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	settings := corev1.LocalObjectReference{Name: "settings"}
	mode := int32(0o400)
	spec := pod(container("sleep", "inf"))
	spec.Volumes = []corev1.Volume{
		{Name: "empty", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "memory", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}},
		{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: host}}},
		{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: settings, Items: []corev1.KeyToPath{{Key: "color", Path: "deep/color"}}}}},
		{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "secrets", DefaultMode: &mode}}},
		{Name: "downward", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}}},
		{Name: "projected", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: settings}},
			{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "secrets"}}},
		}}}},
	}
	second := container("sleep", "inf")
	for _, v := range spec.Volumes {
		m := corev1.VolumeMount{Name: v.Name, MountPath: "/" + v.Name, ReadOnly: v.Name == "host"}
		spec.Containers[0].VolumeMounts = append(spec.Containers[0].VolumeMounts, m)
		second.VolumeMounts = append(second.VolumeMounts, m)
	}
	spec.Containers = append(spec.Containers, second)
	cluster.Run(t, ns, "volumes", spec)
	cluster.Await(t, ns, "volumes", cluster.Ready)
	run := func(container string, args ...string) string {
		return cluster.Kubectl(t, append([]string{"exec", "-n", ns, "volumes", "-c", container, "--"}, args...)...)
	}
	cat := func(file string) string { return strings.TrimSpace(run("c0", "cat", file)) }

	run("c0", "toolbox", "write", "/empty/file", "shared")
	has(t, run("c1", "cat", "/empty/file"), "shared")
	has(t, run("c0", "cat", "/host/file", "/config/deep/color", "/secret/password", "/projected/size", "/projected/password"),
		"from the host")
	for file, want := range map[string]string{"/config/deep/color": "red", "/secret/password": "hunter2", "/projected/size": "large", "/downward/labels": `app="volumes"`} {
		if got := cat(file); got != want {
			t.Errorf("%s holds %q, want %q", file, got, want)
		}
	}
	if _, err := cluster.TryKubectl(t, "", "exec", "-n", ns, "volumes", "-c", "c0", "--", "toolbox", "write", "/host/new", "x"); err == nil {
		t.Error("a read-only mount was written to")
	}

	// Changes arrive while the Pod runs.
	cm, err := cluster.Client(t).CoreV1().ConfigMaps(ns).Get(t.Context(), "settings", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cm.Data["color"] = "blue"
	if _, err := cluster.Client(t).CoreV1().ConfigMaps(ns).Update(t.Context(), cm, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	cluster.Kubectl(t, "label", "-n", ns, "pod", "volumes", "new=label")
	cluster.Eventually(t, cluster.Soon, func() error {
		if cat("/config/deep/color") != "blue" || !strings.Contains(cat("/downward/labels"), `new="label"`) {
			return errors.New("the files are as they were")
		}
		return nil
	})
}

// TestServiceAccount asks the API server with the token that a Pod has.
func TestServiceAccount(t *testing.T) {
	ns := cluster.Namespace(t)
	const dir = "/var/run/secrets/kubernetes.io/serviceaccount/"
	cluster.Run(t, ns, "token", pod(container("sleep", "inf")))
	cluster.Await(t, ns, "token", cluster.Ready)
	read := func(file string) string {
		return strings.TrimSpace(cluster.Kubectl(t, "exec", "-n", ns, "token", "--", "cat", dir+file))
	}
	if got := read("namespace"); got != ns {
		t.Errorf("the namespace file holds %q", got)
	}
	cfg := rest.AnonymousClientConfig(cluster.RESTConfig(t))
	cfg.BearerToken = read("token")
	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	review, err := c.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if want := "system:serviceaccount:" + ns + ":default"; review.Status.UserInfo.Username != want {
		t.Errorf("the token is that of %s, want %s", review.Status.UserInfo.Username, want)
	}
}

func TestInitContainers(t *testing.T) {
	ns := cluster.Namespace(t)
	mount := []corev1.VolumeMount{{Name: "work", MountPath: "/work"}}
	always := corev1.ContainerRestartPolicyAlways
	spec := corev1.PodSpec{
		Volumes: []corev1.Volume{{Name: "work", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
		InitContainers: []corev1.Container{
			{Args: []string{"write", "/work/first", "1"}, VolumeMounts: mount},
			{Name: "sidecar", Args: []string{"serve", "http=:8080"}, RestartPolicy: &always},
			{Name: "second", Args: []string{"cat", "/work/first"}, VolumeMounts: mount},
		},
		Containers: []corev1.Container{{Args: []string{"dial", "http://127.0.0.1:8080/"}, VolumeMounts: mount}},
	}
	if out := cluster.Output(t, ns, "init", spec); !strings.Contains(out, "init\n") {
		t.Errorf("the sidecar did not answer: %s", out)
	}
	pod := cluster.Await(t, ns, "init", cluster.Phase(corev1.PodSucceeded))
	for _, s := range pod.Status.InitContainerStatuses {
		if s.State.Terminated == nil {
			t.Errorf("init container %s has not ended: %+v", s.Name, s.State)
		}
	}

	failing := corev1.PodSpec{
		RestartPolicy:  corev1.RestartPolicyNever,
		InitContainers: []corev1.Container{container("exit", "3")},
		Containers:     []corev1.Container{container("true")},
	}
	cluster.Run(t, ns, "failing", failing)
	pod = cluster.Await(t, ns, "failing", cluster.Phase(corev1.PodFailed))
	if s := pod.Status.InitContainerStatuses[0].State.Terminated; s == nil || s.ExitCode != 3 {
		t.Errorf("the init container's end is %+v", s)
	}
	if s := pod.Status.ContainerStatuses[0].State.Waiting; s == nil || s.Reason != "PodInitializing" {
		t.Errorf("the container that never ran is %+v", pod.Status.ContainerStatuses[0].State)
	}
}

func TestProbes(t *testing.T) {
	ns := cluster.Namespace(t)
	probe := func(h corev1.ProbeHandler) *corev1.Probe {
		return &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 1, ProbeHandler: h}
	}
	health := corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(8080)}}
	server := func(port string) corev1.Container { return container("serve", "http=:"+port) }

	t.Run("Readiness", func(t *testing.T) {
		c := server("8080")
		c.ReadinessProbe = probe(health)
		cluster.Run(t, ns, "readiness", pod(c))
		ip := cluster.Await(t, ns, "readiness", cluster.Ready).Status.PodIP
		get(t, "http://"+ip+":8080/break")
		cluster.Await(t, ns, "readiness", func(p *corev1.Pod) error {
			if cluster.Ready(p) == nil {
				return errors.New("it is still Ready")
			}
			return nil
		})
		get(t, "http://"+ip+":8080/mend")
		if p := cluster.Await(t, ns, "readiness", cluster.Ready); p.Status.ContainerStatuses[0].RestartCount != 0 {
			t.Error("a container that was not ready was started again")
		}
	})
	t.Run("Liveness", func(t *testing.T) {
		c := server("8080")
		c.LivenessProbe = probe(health)
		cluster.Run(t, ns, "liveness", pod(c))
		get(t, "http://"+cluster.Await(t, ns, "liveness", cluster.Ready).Status.PodIP+":8080/break")
		cluster.Await(t, ns, "liveness", restarted(1))
		cluster.AwaitEvent(t, ns, "liveness", "Unhealthy")
	})
	t.Run("ExecAndTCP", func(t *testing.T) {
		good := server("8080")
		good.ReadinessProbe = probe(corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/true"}}})
		good.LivenessProbe = probe(corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}})
		cluster.Run(t, ns, "good", pod(good))
		cluster.Await(t, ns, "good", cluster.Ready)
		bad := server("8080")
		bad.ReadinessProbe = probe(corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/false"}}})
		bad.LivenessProbe = probe(corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(9)}})
		cluster.Run(t, ns, "bad", pod(bad))
		if p := cluster.Await(t, ns, "bad", restarted(1)); cluster.Ready(p) == nil {
			t.Error("a Pod whose probe fails is Ready")
		}
	})
}

func get(t *testing.T, url string) {
	t.Helper()
	cluster.Eventually(t, cluster.Soon, func() error {
		_, err := cluster.Get(t.Context(), url)
		return err
	})
}

func restarted(times int32) func(*corev1.Pod) error {
	return func(p *corev1.Pod) error {
		if len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].RestartCount < times {
			return errors.New("its container was not started again")
		}
		return nil
	}
}

func TestRestartPolicy(t *testing.T) {
	ns := cluster.Namespace(t)
	tests := map[string]struct {
		policy corev1.RestartPolicy
		code   string
		want   func(*corev1.Pod) error
	}{
		"always":    {corev1.RestartPolicyAlways, "0", restarted(1)},
		"onfailure": {corev1.RestartPolicyOnFailure, "1", restarted(1)},
		"succeeded": {corev1.RestartPolicyOnFailure, "0", cluster.Phase(corev1.PodSucceeded)},
		"failed":    {corev1.RestartPolicyNever, "1", cluster.Phase(corev1.PodFailed)},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			spec := pod(container("exit", tc.code))
			spec.RestartPolicy = tc.policy
			cluster.Run(t, ns, name, spec)
			cluster.Await(t, ns, name, tc.want)
			if tc.policy == corev1.RestartPolicyAlways {
				cluster.Await(t, ns, name, cluster.WaitingFor("CrashLoopBackOff"))
			}
		})
	}
}

// TestReasons has Pods that cannot start, and what they say.
func TestReasons(t *testing.T) {
	ns := cluster.Namespace(t)
	missing := container("true")
	missing.Env = []corev1.EnvVar{{Name: "X", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "nosuch"}, Key: "x"}}}}
	never := corev1.Container{Image: "flyball.dev/nosuch:1", ImagePullPolicy: corev1.PullNever}
	unknown := corev1.Container{Command: []string{"/nosuch"}}
	root := container("true")
	yes := true
	root.SecurityContext = &corev1.SecurityContext{RunAsNonRoot: &yes}
	tests := map[string]struct {
		container corev1.Container
		reason    string
		event     string
	}{
		"config":  {missing, "CreateContainerConfigError", "Failed"},
		"nonroot": {root, "CreateContainerConfigError", "Failed"},
		"never":   {never, "ErrImageNeverPull", "ErrImageNeverPull"},
		"name":    {corev1.Container{Image: "Not:An:Image"}, "InvalidImageName", "InspectFailed"},
		"command": {unknown, "CrashLoopBackOff", "BackOff"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			cluster.Run(t, ns, name, pod(tc.container))
			cluster.Await(t, ns, name, cluster.WaitingFor(tc.reason))
			cluster.AwaitEvent(t, ns, name, tc.event)
		})
	}
	t.Run("volume", func(t *testing.T) {
		spec := pod(container("true"))
		spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "nosuch"}}}}
		spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
		cluster.Run(t, ns, "volume", spec)
		cluster.AwaitEvent(t, ns, "volume", "FailedMount")
		cluster.Await(t, ns, "volume", cluster.WaitingFor("ContainerCreating"))
	})
}

// TestQoS looks at the cgroups of each class.
func TestQoS(t *testing.T) {
	ns := cluster.Namespace(t)
	amounts := func(cpu, memory string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	}
	tests := map[string]struct {
		resources corev1.ResourceRequirements
		want      corev1.PodQOSClass
		parent    string
	}{
		"guaranteed": {corev1.ResourceRequirements{Limits: amounts("100m", "64Mi")}, corev1.PodQOSGuaranteed, "kubepods"},
		"burstable":  {corev1.ResourceRequirements{Requests: amounts("100m", "32Mi"), Limits: amounts("200m", "64Mi")}, corev1.PodQOSBurstable, "kubepods/burstable"},
		"besteffort": {corev1.ResourceRequirements{}, corev1.PodQOSBestEffort, "kubepods/besteffort"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			c := container("sleep", "inf")
			c.Resources = tc.resources
			cluster.Run(t, ns, name, pod(c))
			p := cluster.Await(t, ns, name, cluster.Ready)
			if p.Status.QOSClass != tc.want {
				t.Errorf("its class is %s, want %s", p.Status.QOSClass, tc.want)
			}
			dir := cgroup(t, tc.parent, p.UID)
			if limit := tc.resources.Limits.Memory(); !limit.IsZero() {
				if got := readAny(t, dir, "memory.limit_in_bytes", "memory.max"); got != fmt.Sprint(limit.Value()) {
					t.Errorf("the memory limit of its cgroup is %s, want %d", got, limit.Value())
				}
			}
			cluster.Kubectl(t, "delete", "pod", "-n", ns, name)
			if _, err := os.Stat(dir); !os.IsNotExist(err) {
				t.Errorf("the Pod is gone, its cgroup %s is not: %v", dir, err)
			}
		})
	}
}

// cgroup is the Pod's directory in the hierarchy that has the memory controller.
func cgroup(t *testing.T, parent string, uid types.UID) string {
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup"} {
		dir := filepath.Join(root, parent, "pod"+string(uid))
		if _, err := os.Stat(dir); err == nil {
			return dir
		}
	}
	t.Fatalf("there is no cgroup of Pod %s below %s", uid, parent)
	return ""
}

func readAny(t *testing.T, dir string, names ...string) string {
	t.Helper()
	for _, name := range names {
		if data, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			return strings.TrimSpace(string(data))
		}
	}
	t.Fatalf("there is none of %v in %s", names, dir)
	return ""
}

func TestOOMKilled(t *testing.T) {
	ns := cluster.Namespace(t)
	c := container("memory", "256")
	c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("48Mi")}
	spec := pod(c)
	spec.RestartPolicy = corev1.RestartPolicyNever
	cluster.Run(t, ns, "oom", spec)
	p := cluster.Await(t, ns, "oom", cluster.Phase(corev1.PodFailed))
	if s := p.Status.ContainerStatuses[0].State.Terminated; s.Reason != "OOMKilled" || s.ExitCode != 137 {
		t.Errorf("its end is %s, exit code %d", s.Reason, s.ExitCode)
	}
}

func TestSecurityContext(t *testing.T) {
	ns := cluster.Namespace(t)
	user, group, no, yes := int64(1000), int64(2000), false, true
	c := container("id")
	c.SecurityContext = &corev1.SecurityContext{
		AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_BIND_SERVICE"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	spec := pod(c)
	spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &user, RunAsGroup: &group, SupplementalGroups: []int64{3000}}
	out := cluster.Output(t, ns, "secured", spec)
	has(t, out, "NoNewPrivs: 1", "Seccomp: 2")
	if !strings.Contains(out, "uid=1000 gid=2000") || !strings.Contains(out, "3000") {
		t.Errorf("it ran as %s", out)
	}

	readOnly := container("write", "/file", "x")
	readOnly.SecurityContext = &corev1.SecurityContext{ReadOnlyRootFilesystem: &yes}
	spec = pod(readOnly)
	spec.RestartPolicy = corev1.RestartPolicyNever
	cluster.Run(t, ns, "readonly", spec)
	cluster.Await(t, ns, "readonly", cluster.Phase(corev1.PodFailed))

	// As root with all of the default capabilities, it can.
	has(t, cluster.Output(t, ns, "writable", pod(container("write", "/file", "x"), container("id"))), "Seccomp: 0")
}

func TestHostNetworkAndDNS(t *testing.T) {
	ns := cluster.Namespace(t)
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	spec := pod(container("hostname"))
	spec.HostNetwork = true
	has(t, cluster.Output(t, ns, "hostnetwork", spec), name)
	p := cluster.Await(t, ns, "hostnetwork", cluster.Phase(corev1.PodSucceeded))
	if p.Status.PodIP != p.Status.HostIP {
		t.Errorf("its address is %s, the node's is %s", p.Status.PodIP, p.Status.HostIP)
	}

	has(t, cluster.Output(t, ns, "clusterdns", pod(container("cat", "/etc/resolv.conf"))), "nameserver 10.43.0.10", "options ndots:5")
	spec = pod(container("cat", "/etc/resolv.conf", "/etc/hosts"))
	spec.DNSPolicy = corev1.DNSNone
	spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"192.0.2.53"}, Searches: []string{"example.com"}}
	spec.HostAliases = []corev1.HostAlias{{IP: "192.0.2.80", Hostnames: []string{"alias.example.com"}}}
	has(t, cluster.Output(t, ns, "owndns", spec), "nameserver 192.0.2.53", "search example.com", "192.0.2.80\talias.example.com")
}

// TestGracefulEnd deletes a Pod that does not end when told to.
func TestGracefulEnd(t *testing.T) {
	ns := cluster.Namespace(t)
	for name, tc := range map[string]struct {
		args       []string
		grace      int64
		atLeast, s time.Duration
	}{
		"polite":   {[]string{"sleep", "inf"}, 30, 0, 20 * time.Second},
		"stubborn": {[]string{"sleep", "inf", "stubborn"}, 3, 3 * time.Second, 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			spec := pod(container(tc.args...))
			spec.TerminationGracePeriodSeconds = &tc.grace
			cluster.Run(t, ns, name, spec)
			cluster.Await(t, ns, name, cluster.Ready)
			began := time.Now()
			cluster.Kubectl(t, "delete", "pod", "-n", ns, name)
			if took := time.Since(began); took < tc.atLeast || took > tc.s {
				t.Errorf("it took %s, want %s to %s", took, tc.atLeast, tc.s)
			}
		})
	}
}

// TestTerminationMessage reads what a container leaves for its status.
func TestTerminationMessage(t *testing.T) {
	ns := cluster.Namespace(t)
	spec := pod(container("write", "/dev/termination-log", "all is well"))
	spec.RestartPolicy = corev1.RestartPolicyNever
	cluster.Run(t, ns, "message", spec)
	p := cluster.Await(t, ns, "message", cluster.Phase(corev1.PodSucceeded))
	if got := strings.TrimSpace(p.Status.ContainerStatuses[0].State.Terminated.Message); got != "all is well" {
		t.Errorf("the message is %q", got)
	}
}

// TestNode compares what the Node says with what it should.
func TestNode(t *testing.T) {
	nodes, err := cluster.Client(t).CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) != 1 {
		t.Fatalf("there are %d nodes, %v", len(nodes.Items), err)
	}
	n := nodes.Items[0]
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourcePods, corev1.ResourceEphemeralStorage} {
		capacity, allocatable := n.Status.Capacity[name], n.Status.Allocatable[name]
		if capacity.IsZero() || allocatable.IsZero() || allocatable.Cmp(capacity) > 0 {
			t.Errorf("%s: capacity %s, allocatable %s", name, &capacity, &allocatable)
		}
	}
	info := n.Status.NodeInfo
	if info.KubeletVersion != "v1.37.2+flyball" || !strings.HasPrefix(info.ContainerRuntimeVersion, "containerd://") || info.KernelVersion == "" || info.OperatingSystem != "linux" {
		t.Errorf("the node's info is %+v", info)
	}
	for _, label := range []string{corev1.LabelHostname, corev1.LabelOSStable, corev1.LabelArchStable} {
		if n.Labels[label] == "" {
			t.Errorf("the node has no label %s", label)
		}
	}
	lease, err := cluster.Client(t).CoordinationV1().Leases("kube-node-lease").Get(t.Context(), n.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	first := lease.Spec.RenewTime
	cluster.Eventually(t, cluster.Soon, func() error {
		lease, err := cluster.Client(t).CoordinationV1().Leases("kube-node-lease").Get(t.Context(), n.Name, metav1.GetOptions{})
		if err != nil || lease.Spec.RenewTime.Equal(first) {
			return fmt.Errorf("the Lease was not renewed: %w", err)
		}
		return nil
	})
}

// TestDelete removes a Pod that never started, and one by force.
func TestDelete(t *testing.T) {
	ns := cluster.Namespace(t)
	cluster.Run(t, ns, "stuck", pod(corev1.Container{Image: "flyball.dev/nosuch:1", ImagePullPolicy: corev1.PullNever}))
	cluster.Await(t, ns, "stuck", cluster.WaitingFor("ErrImageNeverPull"))
	cluster.Run(t, ns, "forced", pod(container("sleep", "inf", "stubborn")))
	uid := string(cluster.Await(t, ns, "forced", cluster.Ready).UID)
	cluster.Kubectl(t, "delete", "pod", "-n", ns, "stuck")
	cluster.Kubectl(t, "delete", "pod", "-n", ns, "forced", "--force", "--grace-period=0")
	cluster.Eventually(t, cluster.Soon, func() error {
		if _, err := cluster.Client(t).CoreV1().Pods(ns).Get(t.Context(), "stuck", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("the Pod that never started: %w", cluster.Gone(err))
		}
		if pids := cluster.ProcessesOf(uid, "toolbox"); len(pids) > 0 {
			return fmt.Errorf("the Pod is gone, its processes %v are not", pids)
		}
		return nil
	})
}

// TestStats asks the node agent for its figures.
func TestStats(t *testing.T) {
	ns := cluster.Namespace(t)
	cluster.Run(t, ns, "measured", pod(container("sleep", "inf")))
	node := cluster.Await(t, ns, "measured", cluster.Ready).Spec.NodeName
	proxy := "/api/v1/nodes/" + node + "/proxy"
	cluster.Eventually(t, cluster.Soon, func() error {
		var summary struct {
			Pods []struct {
				PodRef struct {
					Name      string `json:"name"`
					Namespace string `json:"namespace"`
				} `json:"podRef"`
			} `json:"pods"`
		}
		if err := json.Unmarshal([]byte(cluster.Kubectl(t, "get", "--raw", proxy+"/stats/summary")), &summary); err != nil {
			return err
		}
		for _, p := range summary.Pods {
			if p.PodRef.Namespace == ns && p.PodRef.Name == "measured" {
				return nil
			}
		}
		return errors.New("the summary lacks the Pod")
	})
	if got := cluster.Kubectl(t, "get", "--raw", proxy+"/healthz"); strings.TrimSpace(got) != "ok" {
		t.Errorf("/healthz answers %q", got)
	}
	if got := cluster.Kubectl(t, "get", "--raw", proxy+"/metrics"); !strings.Contains(got, "# TYPE") {
		t.Errorf("/metrics answers %q", got)
	}
}

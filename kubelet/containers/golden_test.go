package containers

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/protoadapt"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/sets"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/yaml"

	"flyball.dev/kubelet/volumes"
)

var update = flag.Bool("update", false, "write the golden files")

// testNode is a node as none exists, the same on every machine.
func testNode() Node {
	return Node{
		IPs:           []string{"192.0.2.10"},
		Owner:         "/var/lib/flyball/kubelet",
		PodLogsDir:    "/var/log/pods",
		SeccompDir:    "/var/lib/kubelet/seccomp",
		ClusterDNS:    []netip.Addr{netip.MustParseAddr("10.43.0.10")},
		ClusterDomain: "cluster.local",
		Resolver:      &Resolver{file: "testdata/resolv.conf"},
		Allocatable: v1.ResourceList{
			v1.ResourceCPU: resource.MustParse("2"), v1.ResourceMemory: resource.MustParse("4Gi"),
		},
		MemoryCapacity:    4 << 30,
		LowestOOMScoreAdj: -1000,
		HugepageSizes:     []string{"2MB"},
		RecursiveReadOnly: sets.New(""),
	}
}

func readPod(t *testing.T, file string) *v1.Pod {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pod := &v1.Pod{}
	if err := yaml.UnmarshalStrict(raw, pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

// TestGolden renders every Pod in testdata and compares it with what lies
// beside it. Run with -update to accept a change.
func TestGolden(t *testing.T) {
	pods, err := filepath.Glob("testdata/*.pod.yaml")
	if err != nil || len(pods) == 0 {
		t.Fatalf("no Pods in testdata: %v", err)
	}
	for _, file := range pods {
		t.Run(filepath.Base(file), func(t *testing.T) {
			got := render(t, readPod(t, file))
			golden := file[:len(file)-len("pod.yaml")] + "golden.yaml"
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("%s -want +got:\n%s", golden, diff)
			}
		})
	}
}

// render gives the sandbox and each container as YAML documents.
func render(t *testing.T, pod *v1.Pod) []byte {
	t.Helper()
	sandbox, err := Sandbox(pod, SandboxOptions{Node: testNode(), CgroupParent: "/kubepods/pod" + string(pod.UID)})
	if err != nil {
		t.Fatal(err)
	}
	out := document(t, sandbox)
	mounted := map[string]volumes.Mounted{}
	for _, v := range pod.Spec.Volumes {
		mounted[v.Name] = volumes.Mounted{HostPath: "/pods/volumes/" + v.Name, ReadOnly: v.ConfigMap != nil}
	}
	for i := range pod.Spec.Containers {
		in := Input{
			Node: testNode(), Pod: pod, Container: &pod.Spec.Containers[i], Attempt: 1, ImageRef: "sha256:1",
			Env:     []*runtimeapi.KeyValue{{Key: "NAME", Value: []byte("value")}},
			PodIPs:  []string{"10.42.0.7"},
			Volumes: mounted,
			Files:   volumes.Files{EtcHosts: "/pods/etc-hosts", TerminationLog: "/pods/containers/c/1", SubPaths: map[int]string{}},
		}
		files, err := Files(in)
		if err != nil {
			t.Fatal(err)
		}
		for index, sub := range files.SubPaths {
			in.Files.SubPaths[index] = "/pods/volume-subpaths/" + sub.Volume + "/" + sub.Path
		}
		config, err := Container(in)
		if err != nil {
			t.Fatal(err)
		}
		// Which CPUs a host has is not of interest here.
		config.Linux.SecurityContext.MaskedPaths = config.Linux.SecurityContext.MaskedPaths[:min(1, len(config.Linux.SecurityContext.MaskedPaths))]
		out = append(append(out, "---\n"...), document(t, config)...)
	}
	return out
}

func document(t *testing.T, m protoadapt.MessageV1) []byte {
	t.Helper()
	raw, err := protojson.Marshal(protoadapt.MessageV2Of(m))
	if err != nil {
		t.Fatal(err)
	}
	out, err := yaml.JSONToYAML(raw)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

package deploy

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"flyball.dev/test/e2e/internal/cluster"
)

// person is somebody at a terminal.
type person struct {
	*testing.T
	ns string
}

func (p *person) kubectl(args ...string) string {
	p.Helper()
	return cluster.Kubectl(p.T, append([]string{"-n", p.ns}, args...)...)
}

// flyball runs the program under test, or kubectl with it as a plugin.
func (p *person) flyball(args ...string) (string, error) {
	p.Helper()
	cmd := exec.CommandContext(p.Context(), cluster.Binary(), append(args, "-n", p.ns)...)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(cluster.Root(), "bin")+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (p *person) says(what, out string, patterns ...string) {
	p.Helper()
	for _, pattern := range patterns {
		if !regexp.MustCompile(pattern).MatchString(out) {
			p.Errorf("%s does not say %s:\n%s", what, pattern, out)
		}
	}
}

// web is a Deployment.
func (p *person) web(apiVersion, version string) string {
	return `apiVersion: ` + apiVersion + `
kind: Deployment
metadata: {name: web, namespace: ` + p.ns + `, annotations: {kubernetes.io/change-cause: "to ` + version + `"}}
spec:
  replicas: 2
  progressDeadlineSeconds: 60
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: ` + cluster.Hello + `
        env: [{name: VERSION, value: "` + version + `"}]
        ports: [{containerPort: 8080}]
`
}

// TestKubectlRollout is what people and their tools do with a Deployment of apps/v1.
func TestKubectlRollout(t *testing.T) {
	p := &person{t, cluster.Namespace(t)}
	apply := func(version string) {
		t.Helper()
		cluster.KubectlInput(t, p.web("apps/v1", version), "apply", "-f", "-")
	}
	rolledOut := func() {
		t.Helper()
		p.says("rollout status", p.kubectl("rollout", "status", "deployment/web", "--timeout=60s"), `deployment "web" successfully rolled out`)
	}
	apply("one")
	rolledOut()
	p.kubectl("wait", "--for=condition=Available", "deployment/web", "--timeout=60s")
	apply("two")
	rolledOut()
	p.says("rollout history", p.kubectl("rollout", "history", "deployment/web"), `1 +to one`, `2 +to two`)
	p.says("one revision", p.kubectl("rollout", "history", "deployment/web", "--revision=1"), `revision #1`, `VERSION:\s+one`)
	p.says("rollout undo", p.kubectl("rollout", "undo", "deployment/web"), `deployment.apps/web rolled back`)
	rolledOut()
	p.says("rollout history", p.kubectl("rollout", "history", "deployment/web"), `2 +to two`, `3 +to one`)
	p.kubectl("rollout", "undo", "deployment/web", "--to-revision=2")
	rolledOut()
	p.kubectl("rollout", "restart", "deployment/web")
	rolledOut()
	p.kubectl("rollout", "pause", "deployment/web")
	p.kubectl("set", "env", "deployment/web", "VERSION=three")
	p.kubectl("wait", "--for=condition=Progressing=Unknown", "deployment/web", "--timeout=60s")
	p.says("a paused one", p.kubectl("describe", "deployment/web"), `Progressing +Unknown +DeploymentPaused`)
	p.kubectl("rollout", "resume", "deployment/web")
	rolledOut()
	p.kubectl("scale", "deployment/web", "--replicas=3", "--current-replicas=2")
	rolledOut()
	p.says("describe", p.kubectl("describe", "deployment/web"),
		`Replicas: +3 desired \| 3 updated \| 3 total \| 3 available \| 0 unavailable`, `StrategyType: +RollingUpdate`,
		`RollingUpdateStrategy: +25% max unavailable, 25% max surge`, `Available +True +MinimumReplicasAvailable`, `Progressing +True +NewReplicaSetAvailable`,
		`NewReplicaSet: +web-\w+ \(3/3 replicas created\)`, `OldReplicaSets: +web-\w+ \(0/0 replicas created\)`,
		`Normal +ScalingReplicaSet .* deployment-controller +Scaled up replica set web-\w+ from 0 to 2`)
	p.says("describe", p.kubectl("describe", "rs", "--show-events"), `Controlled By: +Deployment/web`, `Replicas: +3 current / 3 desired`,
		`Normal +SuccessfulCreate .* replicaset-controller +Created pod: web-`)
	p.says("get", p.kubectl("get", "deployments"), `NAME +READY +UP-TO-DATE +AVAILABLE +AGE`, `web +3/3 +3 +3 `)

	// One that cannot succeed.
	p.kubectl("patch", "deployment/web", "-p", `{"spec":{"progressDeadlineSeconds":2}}`)
	p.kubectl("set", "image", "deployment/web", "web=flyball.dev/nosuch:1")
	out, err := cluster.TryKubectl(t, "", "-n", p.ns, "rollout", "status", "deployment/web", "--timeout=60s")
	if err == nil || !strings.Contains(err.Error(), `deployment "web" exceeded its progress deadline`) {
		t.Errorf("rollout status of a failure: %v\n%s", err, out)
	}
	p.kubectl("patch", "deployment/web", "-p", `{"spec":{"progressDeadlineSeconds":60}}`)
	p.kubectl("rollout", "undo", "deployment/web")
	rolledOut()
}

// TestFlyballRollout is the same for Deployments of ours, by our own command and as a plugin of kubectl.
func TestFlyballRollout(t *testing.T) {
	p := &person{t, cluster.Namespace(t)}
	must := func(args ...string) string {
		t.Helper()
		out, err := p.flyball(args...)
		if err != nil {
			t.Fatalf("flyball %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return out
	}
	apply := func(version string) {
		t.Helper()
		cluster.KubectlInput(t, p.web("apps.flyball.dev/v1alpha1", version), "apply", "--server-side", "-f", "-")
	}
	rolledOut := func() {
		t.Helper()
		p.says("rollout status", must("rollout", "status", "fdeploy/web", "--timeout=60s"), `deployment "web" successfully rolled out`)
	}
	apply("one")
	rolledOut()
	p.kubectl("wait", "--for=condition=Available", "fdeploy/web", "--timeout=60s")
	apply("two")
	p.says("the plugin", must("kubectl", "flyball", "rollout", "status", "deployment/web", "--timeout=60s"), `successfully rolled out`)
	p.says("rollout history", must("rollout", "history", "fdeploy/web"), `1 +web-\w+ +<none> +to one`, `2 +web-\w+ +last available +to two`)
	p.says("one revision", must("rollout", "history", "fdeploy/web", "--revision=1"), `revision: 1`, `value: one`)
	p.says("rollout undo", must("rollout", "undo", "fdeploy/web"), `deployment.apps.flyball.dev/web rolled back to revision 1`)
	rolledOut()
	must("rollout", "restart", "fdeploy/web")
	rolledOut()
	must("rollout", "pause", "fdeploy/web")
	p.kubectl("patch", "fdeploy/web", "--type=merge", "-p", `{"spec":{"template":{"metadata":{"labels":{"x":"y"}}}}}`)
	p.says("a plan of what is paused", must("plan", "fdeploy/web"), `deployment.apps.flyball.dev/web in namespace e2e-`, `nothing to do`)
	must("rollout", "resume", "fdeploy/web")
	rolledOut()
	p.kubectl("scale", "fdeploy/web", "--replicas=3")
	rolledOut()
	p.says("describe", p.kubectl("describe", "fdeploy/web"), `NewReplicaSetAvailable`, `Normal +ScalingReplicaSet .* deployment-controller +Scaled up replica set web-\w+ from 0 to 2`)
	p.says("get", p.kubectl("get", "fdeploy"), `NAME +READY +DESIRED +UP-TO-DATE +AVAILABLE +AGE`, `web +3 +3 +3 +3 `)
	p.says("get", p.kubectl("get", "fdeploy", "-o", "wide"), `CONTAINERS +IMAGES`, `web +`+cluster.Hello)
	p.says("get", p.kubectl("get", "frs"), `NAME +DESIRED +CURRENT +READY +AGE`, `web-\w+ +3 +3 +3 `)
	p.says("get all", p.kubectl("get", "all"), `deployment.apps.flyball.dev/web`, `replicaset.apps.flyball.dev/web-`)

	// What would be done: nothing of it is.
	more := strings.Replace(p.web("apps.flyball.dev/v1alpha1", "two"), "replicas: 2", "replicas: 5", 1)
	file := filepath.Join(t.TempDir(), "web.yaml")
	if err := os.WriteFile(file, []byte(more), 0o600); err != nil {
		t.Fatal(err)
	}
	p.says("plan -f", must("plan", "-f", file), `scale ReplicaSet web-\w+ from`, `because`)
	p.says("plan -o json", must("plan", "-f", file, "-o", "json"), `"what":"scale ReplicaSet`, `"why":`)
	if got := p.kubectl("get", "fdeploy", "web", "-o", "jsonpath={.spec.replicas}"); got != "3" {
		t.Errorf("after planning there are %s replicas", got)
	}
	rolledOut()

	p.kubectl("patch", "fdeploy/web", "--type=merge", "-p",
		`{"spec":{"progressDeadlineSeconds":2,"rollback":{"onProgressDeadlineExceeded":true},"template":{"spec":{"containers":[{"name":"web","image":"flyball.dev/nosuch:1"}]}}}}`)
	if out, err := p.flyball("rollout", "status", "fdeploy/web", "--timeout=60s"); err == nil || !strings.Contains(out, "Rolled back from revision") {
		t.Errorf("rollout status after a rollback: %v\n%s", err, out)
	}
	p.says("rollout history", must("rollout", "history", "fdeploy/web"), `rolled back: ProgressDeadlineExceeded`)
	p.says("describe", p.kubectl("describe", "fdeploy/web"), `Type: +RolledBack`)
	// Events are written apart from the status.
	event := regexp.MustCompile(`Warning +RolledBack`)
	cluster.Eventually(t, cluster.Soon, func() error {
		if out := p.kubectl("describe", "fdeploy/web"); !event.MatchString(out) {
			return fmt.Errorf("describe does not say %s:\n%s", event, out)
		}
		return nil
	})
}

// TestFlyballRolloutOfNonsense: one line that says what is wrong, and exit code 1.
func TestFlyballRolloutOfNonsense(t *testing.T) {
	p := &person{t, cluster.Namespace(t)}
	for _, kind := range []string{"apps/v1", "apps.flyball.dev/v1alpha1"} {
		cluster.KubectlInput(t, strings.Replace(p.web(kind, "one"), "replicas: 2", "replicas: 0", 1), "apply", "--server-side", "-f", "-")
	}
	slow := strings.Replace(p.web("apps.flyball.dev/v1alpha1", "one"), "name: web, n", "name: slow, n", 1)
	slow = strings.Replace(slow, "progressDeadlineSeconds: 60", "progressDeadlineSeconds: 600", 1)
	cluster.KubectlInput(t, strings.Replace(slow, cluster.Hello, "flyball.dev/nosuch:1", 1), "apply", "--server-side", "-f", "-")
	// From here on there is one line to say of it.
	p.kubectl("wait", "--for=jsonpath={.status.updatedReplicas}=2", "fdeploy/slow", "--timeout=60s")
	file := func(content string) string {
		t.Helper()
		name := filepath.Join(t.TempDir(), "x.yaml")
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	invalid := strings.Replace(p.web("apps.flyball.dev/v1alpha1", "one"), "{app: web}}\n  template", "{app: x}}\n  template", 1)
	invalid = strings.Replace(invalid, "name: web, n", "name: other, n", 1)
	for name, test := range map[string]struct {
		args []string
		say  string
	}{
		"NoSuchVerb":      {[]string{"rollout", "retry", "deployment/web"}, `unknown command "retry"`},
		"NoArgument":      {[]string{"rollout", "status"}, `KIND/NAME`},
		"NoName":          {[]string{"rollout", "status", "deployment"}, `write deployment/NAME`},
		"OtherKind":       {[]string{"rollout", "status", "statefulset/web"}, `write deployment/NAME`},
		"ReplicaSet":      {[]string{"rollout", "status", "rs/web"}, `neither .* has one`},
		"NotThere":        {[]string{"rollout", "status", "deployment/nosuch"}, `neither apps.flyball.dev nor apps has one`},
		"OtherGroup":      {[]string{"rollout", "status", "deployment.example.com/web"}, `example.com`},
		"Two":             {[]string{"rollout", "status", "deployment/web"}, `there are two; name one of them: deployment.apps.flyball.dev/web or deployment.apps/web`},
		"NoSuchRevision":  {[]string{"rollout", "undo", "fdeploy/web", "--to-revision=9"}, `no such revision`},
		"NegativeOne":     {[]string{"rollout", "undo", "fdeploy/web", "--to-revision=-1"}, `no such revision`},
		"NoEarlier":       {[]string{"rollout", "undo", "fdeploy/web"}, `no earlier revision`},
		"NotPaused":       {[]string{"rollout", "resume", "fdeploy/web"}, `is not paused`},
		"PlanNothing":     {[]string{"plan"}, `KIND/NAME`},
		"PlanBoth":        {[]string{"plan", "fdeploy/web", "-f", "x"}, `either`},
		"PlanNoFile":      {[]string{"plan", "-f", "/nonexistent.yaml"}, `/nonexistent.yaml`},
		"PlanNoManifest":  {[]string{"plan", "-f", file("apiVersion: v1\nkind: Service\n")}, `no Deployment or ReplicaSet`},
		"PlanNoYAML":      {[]string{"plan", "-f", file("a: [")}, `reading the manifest .*x.yaml`},
		"PlanOtherGroup":  {[]string{"plan", "-f", file("apiVersion: example.com/v1\nkind: Deployment\nmetadata: {name: web}\n")}, `example.com/v1`},
		"PlanNameless":    {[]string{"plan", "-f", file("apiVersion: apps/v1\nkind: Deployment\n")}, `name`},
		"PlanInvalid":     {[]string{"plan", "-f", file(invalid)}, `spec.template: Invalid value: selector does not match template labels`},
		"NoSuchNamespace": {[]string{"rollout", "status", "deployment/web", "--context=nosuch"}, `nosuch`},
		"TooSlow":         {[]string{"rollout", "status", "fdeploy/slow", "--timeout=5s"}, `slow: it is not over after 5s; it goes on: Waiting for deployment "slow"`},
		"Elsewhere":       {[]string{"rollout", "status", "deployment/web", "--server=https://127.0.0.1:1"}, `connection refused`},
		"NoKubeconfig":    {[]string{"rollout", "status", "deployment/web", "--kubeconfig=/nonexistent"}, `/nonexistent`},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := (&person{t, p.ns}).flyball(test.args...)
			if err == nil || cmdExit(err) != 1 || !regexp.MustCompile(`(?m)^Error: .*`+test.say).MatchString(out) || strings.Count(out, "\n") > 2 {
				t.Errorf("flyball %s: %v, want exit status 1 and one line of error with %q:\n%s", strings.Join(test.args, " "), err, test.say, out)
			}
		})
	}
}

func cmdExit(err error) int {
	if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // it is not wrapped
		return exit.ExitCode()
	}
	return -1
}

// TestExplain: kubectl explain of the names that both groups have means apps/v1, as on any cluster; ours are explained to
// the last field.
func TestExplain(t *testing.T) {
	p := &person{t, "default"}
	for _, name := range []string{"deployments", "deployment", "deploy"} {
		p.says("explain "+name, p.kubectl("explain", name), `GROUP: +apps\nKIND: +Deployment\nVERSION: +v1\n`)
	}
	for _, args := range [][]string{{"fdeploy"}, {"deployment", "--api-version=apps.flyball.dev/v1alpha1"}} {
		out := p.kubectl(append([]string{"explain"}, args...)...)
		p.says(fmt.Sprint(args), out, `GROUP: +apps.flyball.dev\nKIND: +Deployment\nVERSION: +v1alpha1\n`, `rolls a Pod template out`)
	}
	p.says("frs", p.kubectl("explain", "frs"), `GROUP: +apps.flyball.dev\nKIND: +ReplicaSet\n`)
	for field, say := range map[string]string{
		"fdeploy.spec":                                  `rollback\s+<Object>`,
		"fdeploy.spec.rollback.onCrashLoop":             `restarts\s+<integer>`,
		"fdeploy.spec.strategy.rollingUpdate.partition": `stay on the old revision until it is lowered`,
		"fdeploy.spec.template.spec.containers.image":   `[Cc]ontainer image name`,
		"fdeploy.spec.template.metadata.labels":         `Labels`,
		"fdeploy.status.rollback":                       `was tried and rolled back`,
		"frs.spec.scaleDown.podsToDelete":               `go before all others`,
		"frs.metadata.name":                             `unique within a namespace`,
	} {
		p.says(field, strings.Join(strings.Fields(p.kubectl("explain", field)), " "), strings.ReplaceAll(say, `\s+`, ` `))
	}
	// The same fields as apps/v1 has, and those that it lacks.
	theirs, ours := fieldsOf(p.kubectl("explain", "deployment.spec", "--recursive")), fieldsOf(p.kubectl("explain", "fdeploy.spec", "--recursive"))
	for path := range theirs {
		if !ours[path] {
			t.Errorf("kubectl explain does not know fdeploy.spec%s", path)
		}
	}
	if len(theirs) < 500 || !ours[".rollback.onCrashLoop.pods"] || theirs[".rollback"] {
		t.Errorf("%d fields of apps/v1, %d of ours", len(theirs), len(ours))
	}
	for _, kind := range []string{"fdeploy", "frs"} {
		if out := p.kubectl("explain", kind, "--recursive"); strings.Contains(out, "<no description>") {
			t.Errorf("explain %s has no description for something:\n%s", kind, out)
		}
	}
}

// fieldsOf reads the paths of the fields that kubectl explain --recursive lists.
func fieldsOf(out string) map[string]bool {
	paths := map[string]bool{}
	var parents []string
	_, list, _ := strings.Cut(out, "FIELDS:\n")
	line := regexp.MustCompile(`^( +)(\S+)\t<`)
	for l := range strings.Lines(list) {
		m := line.FindStringSubmatch(l)
		if m == nil {
			continue
		}
		depth := len(m[1])/2 - 1
		parents = append(parents[:min(depth, len(parents))], m[2])
		paths["."+strings.Join(parents, ".")] = true
	}
	return paths
}

package deployment_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/config"
	"flyball.dev/controllers/internal/testenv"
)

func long(n int) string { return strings.Repeat("x", n) }

// invalid are specs, as changes of a valid one, and what the API server says of them. A value of
// null takes a field away.
var invalid = map[string]struct {
	kind, spec, want string
	apps             bool // apps/v1 refuses it too
}{
	"NoSelector":        {"Deployment", `{"selector":{}}`, "spec.selector: Invalid value: empty selector is invalid for deployment", true},
	"OtherLabels":       {"Deployment", `{"selector":{"matchLabels":{"app":"x"}}}`, "spec.template: Invalid value: selector does not match template labels", true},
	"OtherExpressions":  {"Deployment", `{"selector":{"matchExpressions":[{"key":"app","operator":"NotIn","values":["web"]}]}}`, "spec.template: Invalid value: selector does not match template labels", true},
	"MissingExpression": {"Deployment", `{"selector":{"matchExpressions":[{"key":"tier","operator":"Exists"}]}}`, "spec.template: Invalid value: selector does not match template labels", true},
	"BothZero":          {"Deployment", `{"strategy":{"rollingUpdate":{"maxSurge":0,"maxUnavailable":"0%"}}}`, "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: may not be 0 when maxSurge is 0", true},
	"NegativeSurge":     {"Deployment", `{"strategy":{"rollingUpdate":{"maxSurge":-1}}}`, "spec.strategy.rollingUpdate.maxSurge: Invalid value: must be a number of Pods", true},
	"NoPercentage":      {"Deployment", `{"strategy":{"rollingUpdate":{"maxSurge":"5"}}}`, "spec.strategy.rollingUpdate.maxSurge: Invalid value: must be a number of Pods", true},
	"MoreThanAll":       {"Deployment", `{"strategy":{"rollingUpdate":{"maxUnavailable":"101%"}}}`, "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: must be a number of Pods", true},
	"RecreateRolling":   {"Deployment", `{"strategy":{"type":"Recreate","rollingUpdate":{"maxSurge":1}}}`, "spec.strategy.rollingUpdate: Invalid value: may not be specified when strategy type is Recreate", true},
	"Strategy":          {"Deployment", `{"strategy":{"type":"Blue"}}`, `spec.strategy.type: Unsupported value: "Blue"`, true},
	"Deadline":          {"Deployment", `{"minReadySeconds":600}`, "spec.progressDeadlineSeconds: Invalid value: must be greater than minReadySeconds", true},
	"Replicas":          {"Deployment", `{"replicas":-1}`, "spec.replicas: Invalid value: -1", true},
	"History":           {"Deployment", `{"revisionHistoryLimit":-1}`, "spec.revisionHistoryLimit: Invalid value: -1", true},
	"RestartPolicy":     {"Deployment", `{"template":{"spec":{"restartPolicy":"Never"}}}`, "template.spec.restartPolicy must be Always", true},
	"ActiveDeadline":    {"Deployment", `{"template":{"spec":{"activeDeadlineSeconds":5}}}`, "template.spec.activeDeadlineSeconds must not be set", true},
	"Partition":         {"Deployment", `{"strategy":{"rollingUpdate":{"partition":"half"}}}`, "spec.strategy.rollingUpdate.partition: Invalid value: must be a number of Pods", false},
	"NegativePartition": {"Deployment", `{"strategy":{"rollingUpdate":{"partition":-1}}}`, "spec.strategy.rollingUpdate.partition: Invalid value: must be a number of Pods", false},
	"CrashPods":         {"Deployment", `{"rollback":{"onCrashLoop":{"pods":0}}}`, "spec.rollback.onCrashLoop.pods: Invalid value: must be a number of Pods, at least 1", false},
	"CrashRestarts":     {"Deployment", `{"rollback":{"onCrashLoop":{"restarts":0}}}`, "spec.rollback.onCrashLoop.restarts: Invalid value: 0", false},
	"SetNoSelector":     {"ReplicaSet", `{"selector":{}}`, "spec.selector: Invalid value: empty selector is invalid for replicaset", true},
	"SetOtherLabels":    {"ReplicaSet", `{"selector":{"matchLabels":{"app":"x"}}}`, "spec.template: Invalid value: selector does not match template labels", true},
	"SetRestartPolicy":  {"ReplicaSet", `{"template":{"spec":{"restartPolicy":"Never"}}}`, "template.spec.restartPolicy must be Always", true},
	"PodsTwice":         {"ReplicaSet", `{"scaleDown":{"podsToDelete":["a","a"]}}`, `spec.scaleDown.podsToDelete[1]: Duplicate value: "a"`, false},
	"PodNameless":       {"ReplicaSet", `{"scaleDown":{"podsToDelete":[""]}}`, "spec.scaleDown.podsToDelete[0]: Invalid value", false},
	"NoSpec":            {"Deployment", `null`, "spec: Required value", true},
	"NoTemplate":        {"Deployment", `{"template":null}`, "spec.template: Required value", true},
	"SelectorMissing":   {"Deployment", `{"selector":null}`, "spec.selector: Required value", true},
	"NoContainers":      {"Deployment", `{"template":{"spec":{"containers":null}}}`, "spec.template.spec.containers: Required value", true},
	"NoName":            {"Deployment", `{"template":{"spec":{"containers":[{"image":"i"}]}}}`, "spec.template.spec.containers[0].name: Required value", true},
	"NamesTwice":        {"Deployment", `{"template":{"spec":{"containers":[{"name":"c","image":"i"},{"name":"c","image":"i"}]}}}`, `spec.template.spec.containers[1]: Duplicate value: {"name":"c"}`, true},
	"EnvTwice":          {"Deployment", `{"template":{"spec":{"containers":[{"name":"c","image":"i","env":[{"name":"A"},{"name":"A"}]}]}}}`, `spec.template.spec.containers[0].env[1]: Duplicate value: {"name":"A"}`, false},
	"ReplicasInWords":   {"Deployment", `{"replicas":"three"}`, `spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer`, true},
	"Operator":          {"Deployment", `{"selector":{"matchExpressions":[{"key":"app","operator":"Is"}]}}`, `spec.selector.matchExpressions[0].operator: Unsupported value: "Is"`, true},
	"NoOperator":        {"Deployment", `{"selector":{"matchExpressions":[{"key":"app"}]}}`, "spec.selector.matchExpressions[0].operator: Required value", true},
	"NoKey":             {"Deployment", `{"selector":{"matchExpressions":[{"operator":"Exists"}]}}`, "spec.selector.matchExpressions[0].key: Required value", true},
	"LongKey":           {"Deployment", `{"selector":{"matchExpressions":[{"key":"` + long(318) + `","operator":"DoesNotExist"}]}}`, "spec.selector.matchExpressions[0].key: Too long: may not be more than 317 bytes", true},
	"LongSelectorValue": {"Deployment", `{"selector":{"matchExpressions":[{"key":"app","operator":"NotIn","values":["` + long(64) + `"]}]}}`, "spec.selector.matchExpressions[0].values[0]: Too long: may not be more than 63 bytes", true},
	"LongSelectorLabel": {"Deployment", `{"selector":{"matchLabels":{"app":"` + long(64) + `"}}}`, "spec.selector.matchLabels.app: Too long: may not be more than 63 bytes", true},
	"LongLabel":         {"Deployment", `{"template":{"metadata":{"labels":{"app":"web","x":"` + long(64) + `"}}}}`, "spec.template.metadata.labels.x: Too long: may not be more than 63 bytes", true},
	"LongSurge":         {"Deployment", `{"strategy":{"rollingUpdate":{"maxSurge":"` + strings.Repeat("1", 16) + `%"}}}`, "spec.strategy.rollingUpdate.maxSurge: Too long: may not be more than 16 bytes", false},
	"LongUnavailable":   {"Deployment", `{"strategy":{"rollingUpdate":{"maxUnavailable":"` + strings.Repeat("1", 16) + `%"}}}`, "spec.strategy.rollingUpdate.maxUnavailable: Too long: may not be more than 16 bytes", true},
	"NegativeUnavail":   {"Deployment", `{"strategy":{"rollingUpdate":{"maxUnavailable":-1}}}`, "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: must be a number of Pods", true},
	"MinReady":          {"Deployment", `{"minReadySeconds":-1}`, "spec.minReadySeconds: Invalid value: -1", true},
	"NoDeadline":        {"Deployment", `{"progressDeadlineSeconds":0}`, "spec.progressDeadlineSeconds: Invalid value: 0", true},
	"PartitionOverAll":  {"Deployment", `{"strategy":{"rollingUpdate":{"partition":"101%"}}}`, "spec.strategy.rollingUpdate.partition: Invalid value: must be a number of Pods", false},
	"LongPartition":     {"Deployment", `{"strategy":{"rollingUpdate":{"partition":"` + strings.Repeat("1", 16) + `%"}}}`, "spec.strategy.rollingUpdate.partition: Too long: may not be more than 16 bytes", false},
	"RecreatePartition": {"Deployment", `{"strategy":{"type":"Recreate","rollingUpdate":{"partition":1}}}`, "spec.strategy.rollingUpdate: Invalid value: may not be specified when strategy type is Recreate", false},
	"CrashPercentage":   {"Deployment", `{"rollback":{"onCrashLoop":{"pods":"0%"}}}`, "spec.rollback.onCrashLoop.pods: Invalid value: must be a number of Pods, at least 1", false},
	"CrashPodsLong":     {"Deployment", `{"rollback":{"onCrashLoop":{"pods":"` + strings.Repeat("1", 16) + `%"}}}`, "spec.rollback.onCrashLoop.pods: Too long: may not be more than 16 bytes", false},
	"SetReplicas":       {"ReplicaSet", `{"replicas":-1}`, "spec.replicas: Invalid value: -1", true},
	"SetMinReady":       {"ReplicaSet", `{"minReadySeconds":-1}`, "spec.minReadySeconds: Invalid value: -1", true},
	"SetSelectorGone":   {"ReplicaSet", `{"selector":null}`, "spec.selector: Required value", true},
	"SetNoTemplate":     {"ReplicaSet", `{"template":null}`, "spec.template: Invalid value: selector does not match template labels", true},
	"SetOtherExpr":      {"ReplicaSet", `{"selector":{"matchExpressions":[{"key":"app","operator":"DoesNotExist"}]}}`, "spec.template: Invalid value: selector does not match template labels", true},
	"SetActiveDeadline": {"ReplicaSet", `{"template":{"spec":{"activeDeadlineSeconds":5}}}`, "template.spec.activeDeadlineSeconds must not be set: a ReplicaSet's Pods have no end", true},
	"PodLongName":       {"ReplicaSet", `{"scaleDown":{"podsToDelete":["` + long(254) + `"]}}`, "spec.scaleDown.podsToDelete[0]: Too long: may not be more than 253 bytes", false},
	"TooManyPods":       {"ReplicaSet", `{"scaleDown":{"podsToDelete":[` + strings.TrimSuffix(strings.Repeat(`"a",`, 1001), ",") + `]}}`, "spec.scaleDown.podsToDelete: Too many: 1001: must have at most 1000 items", false},
}

// valid is the spec that the others are changes of.
const valid = `{
	"selector": {"matchLabels": {"app": "web"}},
	"template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
}`

// merged changes a spec: the fields of objects that both have are merged, below template only.
func merged(t *testing.T, spec string) any {
	t.Helper()
	var base, over map[string]any
	for text, into := range map[string]*map[string]any{valid: &base, spec: &over} {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatal(err)
		}
	}
	if over == nil {
		return nil
	}
	var merge func(base, over map[string]any)
	merge = func(base, over map[string]any) {
		for key, value := range over {
			below, isMap := value.(map[string]any)
			was, wasMap := base[key].(map[string]any)
			switch {
			case value == nil:
				delete(base, key)
			case isMap && wasMap && key != "selector":
				merge(was, below)
			default:
				base[key] = value
			}
		}
	}
	merge(base, over)
	return base
}

// TestInvalid: what is wrong is refused, and the message names the field.
func TestInvalid(t *testing.T) {
	t.Parallel()
	namespace := env.Namespace(t)
	create := func(version, kind, spec string) error {
		object := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": version, "kind": kind, "metadata": map[string]any{"namespace": namespace, "generateName": "invalid-"},
		}}
		if spec := merged(t, spec); spec != nil {
			object.Object["spec"] = spec
		}
		return env.Client.Create(t.Context(), object, client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict))
	}
	for name, test := range invalid {
		t.Run(name, func(t *testing.T) {
			err := create(v1alpha1.GroupVersion.String(), test.kind, test.spec)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
			if test.apps {
				if err := create("apps/v1", test.kind, test.spec); err == nil {
					t.Error("apps/v1 accepts it")
				}
			}
		})
	}
	for _, kind := range []string{"Deployment", "ReplicaSet"} {
		if err := create(v1alpha1.GroupVersion.String(), kind, `{}`); err != nil {
			t.Error("a valid one is refused: ", err)
		}
		if err := create(v1alpha1.GroupVersion.String(), kind, `{"rollbak":{}}`); err == nil || !strings.Contains(err.Error(), `unknown field "spec.rollbak"`) {
			t.Error("a typing error: ", err)
		}
	}
}

// TestAcceptsWhatWasReadFromACluster: a manifest of apps/v1 as older programs print it needs its
// apiVersion changed and no more, and becomes the same Deployment.
func TestAcceptsWhatWasReadFromACluster(t *testing.T) {
	t.Parallel()
	namespace := env.Namespace(t)
	for _, kind := range []string{"Deployment", "ReplicaSet"} {
		specs := map[string]any{}
		for _, version := range []string{"apps/v1", v1alpha1.GroupVersion.String()} {
			object := &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": version, "kind": kind, "metadata": map[string]any{"namespace": namespace, "name": "read", "creationTimestamp": nil},
				"spec": merged(t, `{"template":{"metadata":{
					"creationTimestamp":null,"generation":1,"resourceVersion":"7","uid":"u","generateName":"g-","selfLink":"",
					"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"n","uid":"u"}],
					"managedFields":[{"manager":"m","operation":"Update","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:x":{}}}]}}}`),
				"status": map[string]any{},
			}}
			if err := env.Client.Create(t.Context(), object, client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict)); err != nil {
				t.Errorf("%s %s: %v", version, kind, err)
			}
			var template corev1.PodTemplateSpec
			content, _, _ := unstructured.NestedMap(object.Object, "spec", "template")
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(content, &template); err != nil {
				t.Fatal(err)
			}
			specs[version] = template.ObjectMeta
		}
		(&world{T: t}).diff("metadata of the template", specs["apps/v1"], specs[v1alpha1.GroupVersion.String()])
	}
}

// TestEveryRuleIsTested: there is an invalid spec for each rule of the CRDs.
func TestEveryRuleIsTested(t *testing.T) {
	files, err := fs.Glob(config.CRDs, "crd/bases/*.yaml")
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		data, err := fs.ReadFile(config.CRDs, file)
		if err != nil {
			t.Fatal(err)
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(data, &crd); err != nil {
			t.Fatal(err)
		}
		spec := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
		for _, rule := range spec.XValidations {
			if rule.Message == "field is immutable" {
				continue // TestSelectorIsImmutable
			}
			tested(t, crd.Spec.Names.Kind, "spec"+rule.FieldPath+": Invalid value: ", rule.Message)
		}
		bounded(t, crd.Spec.Names.Kind, "spec", spec)
	}
}

// bounded checks that each bound on a field has a test. Within the Pod template they are
// upstream's, and tested there.
func bounded(t *testing.T, kind, path string, schema apiextensionsv1.JSONSchemaProps) {
	t.Helper()
	for _, required := range schema.Required {
		if kind == "Deployment" || !strings.Contains(path, "selector.") { // the selector is the same
			tested(t, kind, path+"."+required+": Required value", "")
		}
	}
	switch {
	case schema.Minimum != nil, len(schema.Enum) > 0, schema.MinLength != nil:
		if kind == "Deployment" || !strings.Contains(path, "selector.") {
			tested(t, kind, path+": ", "value")
		}
	}
	for name, property := range schema.Properties {
		if path+"."+name != "spec.template" {
			bounded(t, kind, path+"."+name, property)
		}
	}
	if schema.Items != nil {
		bounded(t, kind, path+"[0]", *schema.Items.Schema)
	}
}

func tested(t *testing.T, kind, path, message string) {
	t.Helper()
	for _, test := range invalid {
		if test.kind == kind && (strings.Contains(test.want, path) && (message == "" || strings.Contains(test.want, message) || strings.HasPrefix(message, after(test.want, path)))) ||
			test.kind == kind && message != "" && strings.HasPrefix(message, test.want) {
			return
		}
	}
	t.Errorf("no test has a %s that is refused with %q", kind, path+message)
}

func after(text, prefix string) string {
	_, rest, _ := strings.Cut(text, prefix)
	return rest
}

// TestSelectorIsImmutable: neither kind lets any user change its selector, and the error names the
// field.
func TestSelectorIsImmutable(t *testing.T) {
	w := ours(t)
	w.apply(replicas(0))
	change := func(labels, template map[string]string) {
		labels["more"], template["more"] = "x", "x"
	}
	refused := func(what string, try func() error) {
		t.Helper()
		testenv.Eventually(t, func() error { // a loop may write in between
			if err := try(); err == nil || !strings.Contains(err.Error(), "spec.selector: Invalid value: field is immutable") {
				return fmt.Errorf("changing the selector of the %s: %w", what, err)
			}
			return nil
		})
	}
	refused("Deployment", func() error {
		before, _, err := w.Deployments.Get(t.Context(), env.Client, client.ObjectKeyFromObject(w.d))
		if err != nil {
			return err
		}
		after := before.DeepCopy()
		change(after.Spec.Selector.MatchLabels, after.Spec.Template.Labels)
		_, err = w.Deployments.Patch(t.Context(), env.Client, before, after)
		return err
	})
	set, err := w.ReplicaSets.Create(t.Context(), env.Client, testenv.ReplicaSet(w.namespace, "alone", 0))
	if err != nil {
		t.Fatal(err)
	}
	refused("ReplicaSet", func() error {
		before, _, err := w.ReplicaSets.Get(t.Context(), env.Client, client.ObjectKeyFromObject(set))
		if err != nil {
			return err
		}
		after := before.DeepCopy()
		change(after.Spec.Selector.MatchLabels, after.Spec.Template.Labels)
		_, err = w.ReplicaSets.Patch(t.Context(), env.Client, before, after)
		return err
	})
	now, _, err := w.Deployments.Get(t.Context(), env.Client, client.ObjectKeyFromObject(w.d))
	if err != nil {
		t.Fatal(err)
	}
	w.diff("the selector afterwards", &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, now.Spec.Selector)
}

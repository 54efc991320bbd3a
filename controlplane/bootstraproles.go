package controlplane

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"
	"k8s.io/component-helpers/auth/rbac/reconciliation"
	schedulingapiv1 "k8s.io/kubernetes/pkg/apis/scheduling/v1"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"
)

// bootstrapParallelism is how many objects are created at once. etcd then writes them to disk
// together.
const bootstrapParallelism = 8

// ensureRoles creates upstream's default roles and bindings, or adds missing rules to them, with
// upstream's reconciliation: a role whose annotation excludes it stays as it is. kube-apiserver is
// ready when all of them exist.
//
// Upstream's hook also migrates roles of releases before 1.9 (aggregation, split bindings); no
// cluster of ours has any.
func ensureRoles(hook genericapiserver.PostStartHookContext) error {
	client, err := unlimited(hook.LoopbackClientConfig)
	if err != nil {
		return err
	}
	var steps []func() error
	role := func(r reconciliation.RuleOwner, m reconciliation.RuleOwnerModifier) {
		steps = append(steps, func() error {
			_, err := (&reconciliation.ReconcileRoleOptions{Role: r, Client: m, Confirm: true}).Run()
			return err
		})
	}
	binding := func(b reconciliation.RoleBinding, m reconciliation.RoleBindingModifier) {
		steps = append(steps, func() error {
			_, err := (&reconciliation.ReconcileRoleBindingOptions{RoleBinding: b, Client: m, Confirm: true}).Run()
			return err
		})
	}
	rbac := client.RbacV1()
	for _, r := range append(bootstrappolicy.ClusterRoles(), bootstrappolicy.ControllerRoles()...) {
		role(reconciliation.ClusterRoleRuleOwner{ClusterRole: &r}, reconciliation.ClusterRoleModifier{Client: rbac.ClusterRoles()})
	}
	for _, b := range append(bootstrappolicy.ClusterRoleBindings(), bootstrappolicy.ControllerRoleBindings()...) {
		binding(reconciliation.ClusterRoleBindingAdapter{ClusterRoleBinding: &b}, reconciliation.ClusterRoleBindingClientAdapter{Client: rbac.ClusterRoleBindings()})
	}
	for _, rs := range bootstrappolicy.NamespaceRoles() {
		for _, r := range rs {
			role(reconciliation.RoleRuleOwner{Role: &r}, reconciliation.RoleModifier{Client: rbac, NamespaceClient: client.CoreV1().Namespaces()})
		}
	}
	for _, bs := range bootstrappolicy.NamespaceRoleBindings() {
		for _, b := range bs {
			binding(reconciliation.RoleBindingAdapter{RoleBinding: &b}, reconciliation.RoleBindingClientAdapter{Client: rbac, NamespaceClient: client.CoreV1().Namespaces()})
		}
	}
	if err := inParallel(hook, steps); err != nil {
		return fmt.Errorf("creating the default RBAC roles: %w", err)
	}
	return nil
}

// ensurePriorityClasses creates system-node-critical and system-cluster-critical.
func ensurePriorityClasses(hook genericapiserver.PostStartHookContext) error {
	client, err := unlimited(hook.LoopbackClientConfig)
	if err != nil {
		return err
	}
	var steps []func() error
	for _, pc := range schedulingapiv1.SystemPriorityClasses() {
		steps = append(steps, func() error {
			_, err := client.SchedulingV1().PriorityClasses().Create(hook, pc, metav1.CreateOptions{})
			if apierrors.IsAlreadyExists(err) {
				return nil
			}
			return err
		})
	}
	if err := inParallel(hook, steps); err != nil {
		return fmt.Errorf("creating the system's priority classes: %w", err)
	}
	return nil
}

// inParallel runs the steps and retries each for half a minute: the server's caches may not be
// filled, or another step creates the same namespace. kube-apiserver ends the process when a hook
// fails.
func inParallel(ctx context.Context, steps []func() error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(bootstrapParallelism)
	for _, step := range steps {
		g.Go(func() error {
			backoff := wait.Backoff{Duration: 10 * time.Millisecond, Factor: 2, Cap: time.Second, Steps: 35}
			return retry.OnError(backoff, func(error) bool { return ctx.Err() == nil }, step)
		})
	}
	return g.Wait()
}

func unlimited(rc *rest.Config) (kubernetes.Interface, error) {
	rc = rest.CopyConfig(rc)
	rc.QPS = -1
	client, err := kubernetes.NewForConfig(rc)
	if err != nil {
		return nil, fmt.Errorf("connecting to kube-apiserver: %w", err)
	}
	return client, nil
}

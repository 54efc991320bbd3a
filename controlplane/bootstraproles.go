package controlplane

import (
	"context"
	"slices"
	"time"

	"github.com/samber/lo"
	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
	"k8s.io/component-helpers/auth/rbac/reconciliation"
	schedulingapiv1 "k8s.io/kubernetes/pkg/apis/scheduling/v1"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"
)

// bootstrapParallelism is how many objects are created at once. etcd then writes them to disk
// together.
const bootstrapParallelism = 8

// defaultRoles creates upstream's default roles and bindings, or adds missing rules to them, with
// upstream's reconciliation: a role whose annotation excludes it stays as it is. kube-apiserver is
// ready when all of them exist.
//
// Upstream's hook also migrates roles of releases before 1.9 (aggregation, split bindings); no
// cluster of ours has any.
func defaultRoles(_ context.Context, client kubernetes.Interface) (steps []func() error) {
	role := func(r reconciliation.RuleOwner, m reconciliation.RuleOwnerModifier) {
		options := &reconciliation.ReconcileRoleOptions{Role: r, Client: m, Confirm: true}
		steps = append(steps, func() error { _, err := options.Run(); return err })
	}
	binding := func(b reconciliation.RoleBinding, m reconciliation.RoleBindingModifier) {
		options := &reconciliation.ReconcileRoleBindingOptions{RoleBinding: b, Client: m, Confirm: true}
		steps = append(steps, func() error { _, err := options.Run(); return err })
	}
	rbac, namespaces := client.RbacV1(), client.CoreV1().Namespaces()
	for _, r := range append(bootstrappolicy.ClusterRoles(), bootstrappolicy.ControllerRoles()...) {
		role(reconciliation.ClusterRoleRuleOwner{ClusterRole: &r}, reconciliation.ClusterRoleModifier{Client: rbac.ClusterRoles()})
	}
	for _, b := range append(bootstrappolicy.ClusterRoleBindings(), bootstrappolicy.ControllerRoleBindings()...) {
		binding(reconciliation.ClusterRoleBindingAdapter{ClusterRoleBinding: &b}, reconciliation.ClusterRoleBindingClientAdapter{Client: rbac.ClusterRoleBindings()})
	}
	for _, r := range slices.Concat(lo.Values(bootstrappolicy.NamespaceRoles())...) {
		role(reconciliation.RoleRuleOwner{Role: &r}, reconciliation.RoleModifier{Client: rbac, NamespaceClient: namespaces})
	}
	for _, b := range slices.Concat(lo.Values(bootstrappolicy.NamespaceRoleBindings())...) {
		binding(reconciliation.RoleBindingAdapter{RoleBinding: &b}, reconciliation.RoleBindingClientAdapter{Client: rbac, NamespaceClient: namespaces})
	}
	return steps
}

func priorityClasses(ctx context.Context, client kubernetes.Interface) (steps []func() error) {
	for _, pc := range schedulingapiv1.SystemPriorityClasses() {
		steps = append(steps, func() error {
			_, err := client.SchedulingV1().PriorityClasses().Create(ctx, pc, metav1.CreateOptions{})
			if apierrors.IsAlreadyExists(err) {
				return nil
			}
			return err
		})
	}
	return steps
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

package simulated

import (
	"context"
	"fmt"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
)

const (
	// roleOfNodes is upstream's. By default nothing binds it, since the Node authorizer replaces
	// it.
	roleOfNodes = "system:node"
	// bindingOfNodes is created without the Node authorizer.
	bindingOfNodes = "flyball:simulated-nodes"
	// authorizeTimeout is how long the API server may take to observe the binding.
	authorizeTimeout = 30 * time.Second
)

// authorize gives nodes their permissions: the API server of envtest has no Node authorizer.
func (s *shared) authorize(ctx context.Context) error {
	if s.cfg.Nodes == 0 {
		return nil
	}
	name := s.cfg.Prefix + "0"
	client, err := s.clientOf(name)
	if err != nil {
		return err
	}
	allowed, err := mayReport(ctx, client, name)
	if err != nil {
		return fmt.Errorf("asking the API server what %s may do; the client of simulated nodes must be an "+
			"administrator's: %w", identityOf(name).UserName, err)
	}
	if allowed {
		return nil
	}
	_, err = s.client.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: bindingOfNodes},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: roleOfNodes},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:nodes"}},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("binding the role of nodes: %w", err)
	}
	// The API server observes it by a watch.
	may := func(ctx context.Context) (bool, error) { return mayReport(ctx, client, name) }
	if err := wait.PollUntilContextTimeout(ctx, 5*time.Millisecond, authorizeTimeout, true, may); err != nil {
		return fmt.Errorf("waiting until %s has the permissions of nodes, by the ClusterRoleBinding %s: %w",
			identityOf(name).UserName, bindingOfNodes, err)
	}
	return nil
}

// mayReport says whether a node may update its status.
func mayReport(ctx context.Context, client kubernetes.Interface, name string) (bool, error) {
	review := &authorizationv1.SelfSubjectAccessReview{}
	review.Spec.ResourceAttributes = &authorizationv1.ResourceAttributes{
		Verb: "patch", Resource: "nodes", Subresource: "status", Version: "v1", Name: name,
	}
	review, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return review.Status.Allowed, nil
}

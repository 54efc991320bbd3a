// Package find reads the workload object that a user names as KIND/NAME, with a group or without.
// The commands that show and change rollouts use it, and its client.
package find

import (
	"context"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/controllers/internal/kinds"
)

// Found is a workload object that a user named.
type Found struct {
	kinds.Group
	// Object has the group's own type, Kind is Deployment or ReplicaSet.
	Object client.Object
	Kind   schema.GroupVersionKind
}

// String returns the name that kubectl prints for the object, deployment.apps/web for example.
func (f Found) String() string {
	return strings.ToLower(f.Kind.Kind) + "." + f.Kind.Group + "/" + f.Object.GetName()
}

// kindNames has the kind of each name and short name.
var kindNames = map[string]string{
	"deployment": "Deployment", "deployments": "Deployment", "deploy": "Deployment", "fdeploy": "Deployment",
	"replicaset": "ReplicaSet", "replicasets": "ReplicaSet", "rs": "ReplicaSet", "frs": "ReplicaSet",
}

// Named reads the object that KIND/NAME or KIND.GROUP/NAME names. Without a group it reads the
// object of both groups, and it is an error if both exist.
func Named(ctx context.Context, reader client.Reader, namespace, reference string) (Found, error) {
	resource, name, ok := strings.Cut(reference, "/")
	kind, group, _ := strings.Cut(strings.ToLower(resource), ".")
	if group == "" && strings.HasPrefix(kind, "f") { // only our own kinds have such names
		group = v1alpha1.GroupVersion.Group
	}
	if !ok || name == "" || kindNames[kind] == "" {
		return Found{}, fmt.Errorf("understanding %q: write deployment/NAME or replicaset/NAME, "+
			"with a group (deployment.apps.flyball.dev/NAME) if both have one", reference)
	}
	var all []Found
	for _, version := range []schema.GroupVersion{v1alpha1.GroupVersion, appsv1.SchemeGroupVersion} {
		if group != "" && group != version.Group {
			continue
		}
		found, err := Empty(version.WithKind(kindNames[kind]))
		if err == nil {
			err = reader.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, found.Object)
		}
		switch {
		case err == nil:
			all = append(all, found)
		case group == "" && (apierrors.IsNotFound(err) || meta.IsNoMatchError(err)):
		default:
			return Found{}, fmt.Errorf("reading %s in namespace %s: %w", reference, namespace, err)
		}
	}
	switch len(all) {
	case 0:
		return Found{}, fmt.Errorf("finding %s in namespace %s: neither %s nor %s has one",
			reference, namespace, v1alpha1.GroupVersion.Group, appsv1.GroupName)
	case 1:
		return all[0], nil
	}
	return Found{}, fmt.Errorf("finding %s in namespace %s: there are two; name one of them: %s or %s",
		reference, namespace, all[0], all[1])
}

// Empty returns an empty workload object, or an error if no loop reconciles the kind.
func Empty(kind schema.GroupVersionKind) (Found, error) {
	group, err := kinds.For(kind.GroupVersion())
	if err != nil {
		return Found{}, err
	}
	switch kind.Kind {
	case "Deployment":
		return Found{group, group.Deployments.New(), kind}, nil
	case "ReplicaSet":
		return Found{group, group.ReplicaSets.New(), kind}, nil
	}
	return Found{}, fmt.Errorf("finding the loop of kind %s: there are only those of Deployment and ReplicaSet", kind)
}

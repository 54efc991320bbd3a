// Package kubeconfig encodes kubeconfigs that have one cluster and one user.
package kubeconfig

import (
	"fmt"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// Encode returns the kubeconfig of the user with this name in the cluster.
func Encode(cluster api.Cluster, name string, user api.AuthInfo) ([]byte, error) {
	const current = "flyball"
	data, err := clientcmd.Write(api.Config{
		Clusters:       map[string]*api.Cluster{current: &cluster},
		AuthInfos:      map[string]*api.AuthInfo{name: &user},
		Contexts:       map[string]*api.Context{current: {Cluster: current, AuthInfo: name}},
		CurrentContext: current,
	})
	if err != nil {
		return nil, fmt.Errorf("encoding a kubeconfig: %w", err)
	}
	return data, nil
}

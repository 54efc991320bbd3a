// Package kubeconfig writes and reads the kubeconfigs of components, which have one cluster and one
// user.
package kubeconfig

import (
	"fmt"

	"k8s.io/client-go/rest"
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

// Client reads a kubeconfig. It sets no rate limit: kube-apiserver's priority and fairness shares
// the server out between all clients.
func Client(path string) (*rest.Config, error) {
	rc, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig %s: %w", path, err)
	}
	rc.QPS = -1
	return rc, nil
}

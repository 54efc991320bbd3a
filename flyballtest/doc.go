// Package flyballtest starts real Kubernetes clusters for the tests of operators, controllers and
// webhooks.
//
//	func TestWidgets(t *testing.T) {
//		cluster := flyballtest.Start(t, flyballtest.WithNodes(2), flyballtest.WithCRDs("config/crd"))
//		c, err := client.New(cluster.Config(), client.Options{})
//		...
//	}
//
// # What a cluster is
//
// It has upstream's kube-apiserver and etcd, the scheduler and all controllers: garbage collection,
// deletion of namespaces, Pods of Deployments, tokens of service accounts and quotas work.
// WithNodes adds simulated nodes. They are Flyball's node agent on a container runtime without
// processes: Pods are scheduled, become Running and Ready, complete if they belong to Jobs, and
// terminate gracefully. Annotations on a Pod say what its containers do (docs/simulated-nodes.md).
// WithoutControllers starts only the API server, as controller-runtime's envtest does.
//
// It needs no root, no network and no Docker. All processes listen on the loopback address only.
// All files are in a temporary directory, which Close removes.
//
// # Where it comes from
//
// A cluster is a few processes of the program flyball, which the package starts. So a test that
// imports this package links neither kube-apiserver nor etcd. Several clusters can run at once,
// within a test and in the packages of one `go test ./...`: each uses free ports and a directory of
// its own. They end when the test process ends, even if it is killed.
//
// The program is, in this order: that of WithProgram; one in the directories FLYBALL_ASSETS and
// KUBEBUILDER_ASSETS; flyball in PATH; or the result of `go build flyball.dev/cmd/flyball` within
// the module of the test, in the user's cache directory. The first build takes minutes, later ones
// a second. For that, add the program to the module:
//
//	go get -tool flyball.dev/cmd/flyball
//
// # Between tests
//
// Checkpoint records the state of the whole cluster, and Restore restores it: objects that were
// created since are removed, deleted ones exist again with the same UID, and changed ones have
// their old content, in every namespace and of every kind, including CustomResourceDefinitions. To
// start a cluster once in TestMain and to restore it between tests takes less time than to clean up
// after each test, and leaves nothing behind.
//
// # When something fails
//
// If a cluster cannot start, Start fails the test with the reason. If a test fails, its log gets
// the end of the cluster's logs. WithLogDir keeps all logs.
package flyballtest

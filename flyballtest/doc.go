// Package flyballtest starts real Kubernetes clusters for the tests of operators, controllers and webhooks.
//
//	func TestWidgets(t *testing.T) {
//		cluster := flyballtest.Start(t, flyballtest.WithNodes(2), flyballtest.WithCRDs("config/crd"))
//		c, err := client.New(cluster.Config(), client.Options{})
//		...
//	}
//
// # What a cluster is
//
// A kube-apiserver and an etcd, upstream's, and behind them the scheduler and all controllers: owners are collected,
// namespaces end, Deployments get Pods, service accounts get tokens, quotas count. WithNodes adds simulated nodes. They are
// Flyball's node agent over a container runtime that runs nothing, so Pods are scheduled, become Running and Ready, finish
// when they belong to Jobs, and go away gracefully; annotations on a Pod say what its containers do
// (docs/simulated-nodes.md). WithoutControllers leaves the bare API server, as controller-runtime's envtest has it.
//
// It needs no root, no network, no Docker. Everything listens on this machine only, and lies in a temporary directory
// that is gone when the cluster has stopped.
//
// # Where it comes from
//
// A cluster is a few processes of the program flyball, which the package starts. So a test that imports this package
// links neither kube-apiserver nor etcd, and several clusters run at once, within a test and in the packages of one
// `go test ./...`: ports are tried until one is free, and directories are nobody else's. When the test process ends, in
// whatever way, so do they.
//
// The program is looked for in this order: WithProgram; in the folders that FLYBALL_ASSETS and KUBEBUILDER_ASSETS name;
// flyball in PATH; and else it is built by `go build flyball.dev/cmd/flyball` within the module of the test, into the
// user's cache directory. That takes minutes for the first time, and a second after that. For it to be possible, the
// module says that it uses the program:
//
//	go get -tool flyball.dev/cmd/flyball
//
// # Between tests
//
// Checkpoint remembers the state of the whole cluster, and Restore brings it back: what was created since is gone, what was
// deleted is there again with the UID that it had, what was changed is what it was, in every namespace and of every kind,
// definitions included. To start a cluster once in TestMain and to restore it between tests takes less time than to clean up
// after a test, and leaves nothing behind.
//
// # When something fails
//
// Start fails the test with what went wrong. Logs of a cluster are written to the log of its test if that has failed, and
// nothing otherwise. WithLogDir keeps all of them.
package flyballtest

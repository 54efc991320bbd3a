// Package config carries the manifests that the server applies when it starts. They lie here as kubebuilder lays them out,
// so that kustomize and kubebuilder's tools work on them too.
//
//	crd/      the CRDs, generated from apis/ by controller-gen and finished by hack/crdschema; in snapshots/ those of
//	          external-snapshotter, as its module has them
//	storage/  the storage driver and the snapshot controller: what they may do, and the classes that users name
//	rbac/     what the loops may do, generated from markers in controllers/, and who may
//	manager/  the loops as a Deployment of their own, for a cluster that is not Flyball's
//	helm/     the same as a Helm chart; hack/chart puts CRDs and roles into it
//	default/  crd, rbac and manager together, for `kubectl apply -k` in such a cluster
//	samples/  what `make up` applies
package config

import "embed"

// CRDs holds crd/bases: one CustomResourceDefinition per file.
//
//go:embed crd/bases/*.yaml
var CRDs embed.FS

// RBAC holds what the user system:flyball:controllers may do, and with what priority the API server serves it.
//
//go:embed rbac/role.yaml rbac/user_binding.yaml rbac/flow_schema.yaml
var RBAC embed.FS

// Storage holds the driver local.flyball.dev and what the drivers of nodes may do, StorageClass the default that users may
// change.
//
//go:embed storage/driver.yaml storage/policy.yaml
var Storage embed.FS

// StorageClass holds the class local.
//
//go:embed storage/class.yaml
var StorageClass embed.FS

// Snapshots holds the CRDs of snapshots, and what the snapshot controller may do.
//
//go:embed crd/snapshots/*.yaml storage/snapshots.yaml
var Snapshots embed.FS

// SnapshotClass holds the class local of snapshots.
//
//go:embed storage/snapshotclass.yaml
var SnapshotClass embed.FS

package checkpoint

import (
	"bytes"
	"slices"
	"strings"
)

// record is one key of etcd. lease is the lease that removes it, 0 if none does.
type record struct {
	key   string
	value []byte
	lease int64
}

// change restores one key: it writes the old value, or deletes the key with its present value.
type change struct {
	record

	delete bool
}

// kept are keys below the prefix that stay as they are: they report that a process is alive now.
var kept = []string{
	"masterleases/",                 // the API servers
	"leases/kube-system/apiserver-", // the same, as Leases
	"leases/kube-node-lease/",       // heartbeats of nodes
}

// automanaged is in every APIService that the API server creates itself, one for each version that
// is served. It creates and removes them with the definitions, and would remove one that is
// restored before its definition.
var automanaged = []byte("kube-aggregator.kubernetes.io/automanaged")

const apiServices = "apiregistration.k8s.io/apiservices/"

// definitions come first: what they define is served a moment later.
const definitions = "apiextensions.k8s.io/customresourcedefinitions/"

// plan returns the changes that turn now into then, both sorted by key: definitions that come back,
// and all others.
func plan(prefix string, then, now []record) (first, rest []change) {
	add := func(c change) {
		name := strings.TrimPrefix(c.key, prefix)
		if stays(name, c.value) {
			return
		}
		if !c.delete && strings.HasPrefix(name, definitions) {
			first = append(first, c)
		} else {
			rest = append(rest, c)
		}
	}
	byKey := func(r record, key string) int { return strings.Compare(r.key, key) }
	for _, r := range then {
		if at, found := slices.BinarySearchFunc(now, r.key, byKey); !found || !bytes.Equal(now[at].value, r.value) {
			add(change{record: r})
		}
	}
	for _, r := range now {
		if _, found := slices.BinarySearchFunc(then, r.key, byKey); !found {
			add(change{record: r, delete: true})
		}
	}
	return first, rest
}

func stays(name string, value []byte) bool {
	if slices.ContainsFunc(kept, func(k string) bool { return strings.HasPrefix(name, k) }) {
		return true
	}
	return strings.HasPrefix(name, apiServices) && bytes.Contains(value, automanaged)
}

package checkpoint

import (
	"bytes"
	"slices"
	"strings"
)

// record is one key of etcd. lease is that which removes it, 0 if none does.
type record struct {
	key   string
	value []byte
	lease int64
}

// change makes one key what it was: it puts what it held, or deletes it with what it holds now.
type change struct {
	record

	delete bool
}

// kept are keys below the prefix that stay as they are: they say that somebody lives now, or have a life of their own.
var kept = []string{
	"masterleases/",                 // which API servers there are
	"leases/kube-system/apiserver-", // the same, for people
	"leases/kube-node-lease/",       // heartbeats of nodes
}

// automanaged is in every APIService that the API server makes itself, one for each version that is served. It removes and
// makes them as definitions go and come, and would take one that comes before its definition for one that is left over.
var automanaged = []byte("kube-aggregator.kubernetes.io/automanaged")

// apiServices are registered under this key.
const apiServices = "apiregistration.k8s.io/apiservices/"

// definitions come first: what they define is served a moment later.
const definitions = "apiextensions.k8s.io/customresourcedefinitions/"

// plan returns what makes now what it was then, both sorted by key: definitions that come back, and everything else.
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

// stays says whether what a key holds, or held, is none of a checkpoint's business.
func stays(name string, value []byte) bool {
	for _, k := range kept {
		if strings.HasPrefix(name, k) {
			return true
		}
	}
	return strings.HasPrefix(name, apiServices) && bytes.Contains(value, automanaged)
}

package server

import (
	"net/http"
	"strings"

	"github.com/samber/lo"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// verbs are the API's verbs for HTTP methods.
var verbs = map[string]string{
	http.MethodGet: "get", http.MethodPost: "create", http.MethodPut: "update",
	http.MethodPatch: "patch", http.MethodDelete: "delete",
}

// permissions are the subresources of nodes that allow a path; one of them is enough: the
// fine-grained ones came later (KEP-2862), and the older, broader nodes/proxy allows the same.
//
// The first match counts; a path without a match needs nodes/proxy. Keep it as
// https://kubernetes.io/docs/reference/access-authn-authz/kubelet-authn-authz/ says.
var permissions = []struct {
	path         string
	subresources []string
}{
	{"/allocatedPods", []string{"pods", "proxy"}},
	{"/pods", []string{"pods", "proxy"}},
	{"/runningpods", []string{"pods", "proxy"}},
	{"/healthz", []string{"healthz", "proxy"}},
	{"/configz", []string{"configz", "proxy"}},
	{"/stats", []string{"stats"}},
	{"/metrics", []string{"metrics"}},
	{"/logs", []string{"log"}}, // as in pods/log
	{"/checkpoint", []string{"checkpoint"}},
	{"/statusz", []string{"statusz"}},
	{"/flagz", []string{"configz"}},
}

// attributesOf are the permissions of which a request needs one.
func attributesOf(node string, u user.Info, method, path string) []authorizer.Attributes {
	return lo.Map(subresources(path), func(sub string, _ int) authorizer.Attributes {
		return authorizer.AttributesRecord{
			User: u, Verb: verbs[method], APIVersion: "v1", Resource: "nodes", Subresource: sub,
			Name: node, ResourceRequest: true, Path: path,
		}
	})
}

func subresources(path string) []string {
	for _, p := range permissions {
		if path == p.path || strings.HasPrefix(path, p.path+"/") {
			return p.subresources
		}
	}
	return []string{"proxy"}
}

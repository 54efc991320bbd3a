package space

import (
	"context"
	"encoding/json"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
)

// reason is that of a refusal; metav1 has none for it.
const reason metav1.StatusReason = "InsufficientStorage"

// Wrap refuses writes after they were authorized.
func (g *Guard) Wrap(api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refused := g.refusal.Load()
		info, ok := apirequest.RequestInfoFrom(r.Context())
		if refused == nil || !ok || !info.IsResourceRequest || refused.level.Admits(write(r.Context(), info)) {
			api.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusInsufficientStorage)
		_ = json.NewEncoder(w).Encode(metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
			Status:   metav1.StatusFailure, Code: http.StatusInsufficientStorage, Reason: reason, Message: refused.err.Error(),
		}) // fails if the client has left
	})
}

func write(ctx context.Context, info *apirequest.RequestInfo) Write {
	w := Write{Verb: info.Verb, Group: info.APIGroup, Resource: info.Resource, Subresource: info.Subresource}
	if u, ok := apirequest.UserFrom(ctx); ok {
		w.User = u.GetName()
	}
	return w
}

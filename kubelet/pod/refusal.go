package pod

import (
	"errors"
	"net/http"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// internalErrors is for how long the API server may answer with internal errors, such as that a
// webhook does not work, until that counts as a refusal.
const internalErrors = time.Minute

// refusal says whether an error is the API server's decision about what was written: validation,
// authorization, a webhook or a policy did not let it pass, and would not let it pass in a moment
// either. failing is for how long nothing was taken.
func refusal(err error, failing time.Duration) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok {
		return false // it did not answer
	}
	switch code := status.Status().Code; code {
	case http.StatusUnauthorized, http.StatusNotFound, http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests:
		return false
	case http.StatusInternalServerError:
		return failing >= internalErrors
	default:
		return code >= http.StatusBadRequest && code < http.StatusInternalServerError
	}
}

// isGone says whether the Pod is not there any more, or another one of its name is in its place: to
// that the API server answers that a UID cannot change.
func isGone(err error) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok {
		return false
	}
	details := status.Status().Details
	return apierrors.IsNotFound(err) || details != nil &&
		slices.ContainsFunc(details.Causes, func(c metav1.StatusCause) bool { return c.Field == "metadata.uid" })
}

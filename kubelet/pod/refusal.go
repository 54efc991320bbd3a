package pod

import (
	"errors"
	"net/http"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// internalErrors is how long the API server may return internal errors, such as the failure of a
// webhook, before they count as a refusal.
const internalErrors = time.Minute

// refusal says whether an error means that the API server refuses a write, and would refuse the
// same write in a moment, too: because of validation, authorization, a webhook or a policy. failing
// is how long writes have failed.
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

// isGone says whether the Pod does not exist any more. If another Pod of its name has taken its
// place, the API server answers that a UID cannot change.
func isGone(err error) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok {
		return false
	}
	details := status.Status().Details
	return apierrors.IsNotFound(err) || details != nil &&
		slices.ContainsFunc(details.Causes, func(c metav1.StatusCause) bool { return c.Field == "metadata.uid" })
}

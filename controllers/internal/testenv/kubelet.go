package testenv

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

// Behaviour is the key of an annotation on Pods: what the kubelet of the tests does otherwise than
// usual.
const (
	Behaviour = "test.flyball.dev/behaviour"
	// NeverReady Pods run and do not become ready.
	NeverReady = "never-ready"
	// Lingers: the Pod is not removed when it is deleted.
	Lingers = "lingers"
	// Crashes: the Pod runs, is not ready, and its container was restarted three times.
	Crashes = "crashes"
	// Ignored Pods stay as they were created.
	Ignored = "ignored"
)

// resync is when the kubelet tries again what failed because the API server was away.
const resync = 2 * time.Second

// kubelet binds every Pod, makes it Running and Ready, and removes it once it is deleted.
func kubelet(ctx context.Context, client kubernetes.Interface) {
	factory := informers.NewSharedInformerFactory(client, resync)
	handle := func(object any) {
		if pod, ok := object.(*corev1.Pod); ok {
			go treat(ctx, client, pod)
		}
	}
	_, _ = factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: handle, UpdateFunc: func(_, object any) { handle(object) },
	})
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	<-ctx.Done()
	factory.Shutdown()
}

// treat ignores errors: what failed because the Pod changed is done again when the change arrives,
// and all else after resync.
func treat(ctx context.Context, client kubernetes.Interface, pod *corev1.Pod) {
	pods := client.CoreV1().Pods(pod.Namespace)
	behaviour := pod.Annotations[Behaviour]
	switch {
	case behaviour == Ignored:
	case pod.DeletionTimestamp != nil:
		if behaviour != Lingers {
			_ = pods.Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0), Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
		}
	case pod.Spec.NodeName == "":
		_ = pods.Bind(ctx, &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Name: pod.Name, UID: pod.UID},
			Target:     corev1.ObjectReference{Kind: "Node", Name: "node-" + string(pod.UID[0])},
		}, metav1.CreateOptions{})
	case pod.Status.Phase == corev1.PodPending:
		ready, restarts := corev1.ConditionTrue, ""
		switch behaviour {
		case NeverReady:
			ready = corev1.ConditionFalse
		case Crashes:
			ready, restarts = corev1.ConditionFalse, `"containerStatuses":[{"name":"main","image":"image","imageID":"","ready":false,"restartCount":3}],`
		}
		patch := `{"status":{` + restarts + `"phase":"Running","conditions":[{"type":"Ready","status":"` + string(ready) +
			`","lastTransitionTime":"` + metav1.Now().UTC().Format("2006-01-02T15:04:05Z") + `"}]}}`
		_, _ = pods.Patch(ctx, pod.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
	}
}

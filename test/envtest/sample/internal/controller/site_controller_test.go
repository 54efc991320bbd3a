package controller

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	webv1 "flyball.dev/test/envtest/sample/api/v1"
)

var _ = Describe("Site Controller", func() {
	var (
		namespace *corev1.Namespace
		site      *webv1.Site
	)

	key := func(name string) client.ObjectKey { return client.ObjectKey{Namespace: namespace.Name, Name: name} }
	get := func(object client.Object, name string) func() error {
		return func() error { return k8sClient.Get(ctx, key(name), object) }
	}
	beGone := Satisfy(apierrors.IsNotFound)
	available := func(g Gomega) {
		g.Expect(k8sClient.Get(ctx, key(site.Name), site)).To(Succeed())
		g.Expect(meta.IsStatusConditionTrue(site.Status.Conditions, conditionAvailable)).To(BeTrue())
	}

	BeforeEach(func() {
		namespace = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "sites-"}}
		Expect(k8sClient.Create(ctx, namespace)).To(Succeed())
		site = &webv1.Site{
			ObjectMeta: metav1.ObjectMeta{Name: "home", Namespace: namespace.Name},
			Spec:       webv1.SiteSpec{Page: "<h1>Hello</h1>", Replicas: 2},
		}
		Expect(k8sClient.Create(ctx, site)).To(Succeed())
	})

	AfterEach(func() {
		Expect(client.IgnoreNotFound(k8sClient.Delete(ctx, namespace))).To(Succeed())
	})

	It("has a Deployment that becomes Available", func() {
		Eventually(available).Should(Succeed())
		deployment := &appsv1.Deployment{}
		Expect(k8sClient.Get(ctx, key("home"), deployment)).To(Succeed())
		Expect(deployment.Status.AvailableReplicas).To(Equal(int32(2)))
		pods := &corev1.PodList{}
		Expect(k8sClient.List(ctx, pods, client.InNamespace(namespace.Name), client.MatchingLabels{"site": "home"})).To(Succeed())
		Expect(pods.Items).To(HaveLen(2))
		Expect(pods.Items[0].Spec.NodeName).NotTo(BeEmpty())
	})

	It("ends its finalizer when a Job has cleaned up, and its ConfigMap is collected", func() {
		Eventually(available).Should(Succeed())
		Expect(k8sClient.Delete(ctx, site)).To(Succeed())
		Eventually(get(&webv1.Site{}, "home")).Should(beGone)
		Eventually(get(&corev1.ConfigMap{}, "home")).Should(beGone)
		Eventually(get(&appsv1.Deployment{}, "home")).Should(beGone)
	})

	It("ends the finalizer of a deletion in the foreground", func() {
		Eventually(available).Should(Succeed()) // the garbage collector knows the ConfigMap by then
		Expect(k8sClient.Delete(ctx, site, client.PropagationPolicy(metav1.DeletePropagationForeground))).To(Succeed())
		Eventually(get(&webv1.Site{}, "home")).Should(beGone)
		Expect(get(&corev1.ConfigMap{}, "home")()).To(beGone)
	})

	It("goes away with its namespace", func() {
		Eventually(available).Should(Succeed())
		Expect(k8sClient.Delete(ctx, site)).To(Succeed())
		Eventually(get(&webv1.Site{}, "home")).Should(beGone)
		Expect(k8sClient.Delete(ctx, namespace)).To(Succeed())
		Eventually(func() error { return k8sClient.Get(ctx, client.ObjectKeyFromObject(namespace), namespace) }).Should(beGone)
	})

	It("completes a Job", func() {
		job := &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Name: "report", Namespace: namespace.Name},
			Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever,
				Containers:    []corev1.Container{{Name: "report", Image: "example.com/report:1"}},
			}}},
		}
		Expect(k8sClient.Create(ctx, job)).To(Succeed())
		Eventually(func(g Gomega) {
			g.Expect(k8sClient.Get(ctx, key("report"), job)).To(Succeed())
			g.Expect(job.Status.Succeeded).To(Equal(int32(1)))
			g.Expect(job.Status.CompletionTime).NotTo(BeNil())
		}).Should(Succeed())
	})

	It("is not evicted below its PodDisruptionBudget", func() {
		all := intstr.FromInt32(2)
		budget := &policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Name: "home", Namespace: namespace.Name},
			Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: &all, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"site": "home"}}},
		}
		Expect(k8sClient.Create(ctx, budget)).To(Succeed())
		Eventually(available).Should(Succeed())
		Eventually(func(g Gomega) {
			g.Expect(k8sClient.Get(ctx, key("home"), budget)).To(Succeed())
			g.Expect(budget.Status.CurrentHealthy).To(Equal(int32(2)))
		}).Should(Succeed())
		pods := &corev1.PodList{}
		Expect(k8sClient.List(ctx, pods, client.InNamespace(namespace.Name), client.MatchingLabels{"site": "home"})).To(Succeed())
		evict := func() error {
			return k8sClient.SubResource("eviction").Create(ctx, &pods.Items[0], &policyv1.Eviction{})
		}
		Expect(evict()).To(Satisfy(apierrors.IsTooManyRequests))

		By("allowing one disruption")
		one := intstr.FromInt32(1)
		budget.Spec.MinAvailable = &one
		Expect(k8sClient.Update(ctx, budget)).To(Succeed())
		Eventually(evict).Should(Succeed())
	})
})

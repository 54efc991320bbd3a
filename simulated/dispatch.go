package simulated

import (
	"context"
	"errors"
	"fmt"
	"maps"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// dispatch lets the watches deliver each node its Pods and its Node.
func (s *shared) dispatch() (synced []cache.DoneChecker, err error) {
	pods, podsErr := s.pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { s.podChanged(nil, obj.(*v1.Pod)) }, DeleteFunc: s.podDeleted,
		UpdateFunc: func(old, obj any) { s.podChanged(old.(*v1.Pod), obj.(*v1.Pod)) },
	})
	nodes, nodesErr := s.nodes.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: s.nodeChanged, UpdateFunc: func(_, obj any) { s.nodeChanged(obj) }, DeleteFunc: s.nodeChanged,
	})
	if err := errors.Join(podsErr, nodesErr); err != nil {
		return nil, fmt.Errorf("watching Pods and Nodes: %w", err)
	}
	return []cache.DoneChecker{pods.HasSyncedChecker(), nodes.HasSyncedChecker(), s.services.HasSyncedChecker()}, nil
}

func (s *shared) podChanged(old, p *v1.Pod) {
	if old != nil && old.Spec.NodeName != p.Spec.NodeName { // another Pod with the name of a deleted one
		s.podDeleted(old)
		old = nil
	}
	n := s.byName[p.Spec.NodeName]
	if n == nil {
		return
	}
	n.images.importNeverPulled(p)
	n.podSrc.deliver(old, p)
	if old != nil && ((p.DeletionTimestamp == nil) != (old.DeletionTimestamp == nil) ||
		!maps.Equal(p.Annotations, old.Annotations)) {
		n.runtime.podChanged(p)
	}
}

func (s *shared) podDeleted(obj any) {
	if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = t.Obj
	}
	if p, ok := obj.(*v1.Pod); ok && s.byName[p.Spec.NodeName] != nil {
		s.byName[p.Spec.NodeName].podSrc.deliver(p, nil)
	}
}

func (s *shared) nodeChanged(obj any) {
	name, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
	if n := s.byName[name]; err == nil && n != nil {
		n.nodeSrc.enqueue()
	}
}

func (s *shared) servicesOf(_ context.Context, namespace string) ([]*v1.Service, error) {
	return corelisters.NewServiceLister(s.services.GetIndexer()).Services(namespace).List(labels.Everything())
}

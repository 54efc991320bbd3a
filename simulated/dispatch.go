package simulated

import (
	"context"
	"errors"
	"fmt"
	"maps"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"
)

// dispatch lets the watches deliver each node its Pods and its Node.
func (s *shared) dispatch() (synced []cache.DoneChecker, err error) {
	pods, podsErr := s.pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { s.podChanged(obj) }, UpdateFunc: func(_, obj any) { s.podChanged(obj) },
		DeleteFunc: s.podGone,
	})
	nodes, nodesErr := s.nodes.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: s.nodeChanged, UpdateFunc: func(_, obj any) { s.nodeChanged(obj) }, DeleteFunc: s.nodeChanged,
	})
	if err := errors.Join(podsErr, nodesErr); err != nil {
		return nil, fmt.Errorf("watching Pods and Nodes: %w", err)
	}
	return []cache.DoneChecker{pods.HasSyncedChecker(), nodes.HasSyncedChecker(), s.services.HasSyncedChecker()}, nil
}

func (s *shared) podChanged(obj any) {
	p, ok := obj.(*v1.Pod)
	if !ok {
		return
	}
	n := s.byName[p.Spec.NodeName]
	if n == nil {
		return
	}
	before, had := n.podSrc.Pod(p.Namespace, p.Name)
	if had && before.UID != p.UID {
		s.owners.Delete(before.UID)
	}
	s.owners.Store(p.UID, n)
	n.images.importNeverPulled(p)
	n.podSrc.set(p)
	if had && ((p.DeletionTimestamp == nil) != (before.DeletionTimestamp == nil) || !maps.Equal(p.Annotations, before.Annotations)) {
		n.runtime.podChanged(p)
	}
}

func (s *shared) podGone(obj any) {
	if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = t.Obj
	}
	p, ok := obj.(*v1.Pod)
	if !ok {
		return
	}
	s.owners.Delete(p.UID)
	if n := s.byName[p.Spec.NodeName]; n != nil {
		n.podSrc.drop(p)
	}
}

func (s *shared) nodeChanged(obj any) {
	name, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
	if n := s.byName[name]; err == nil && n != nil {
		n.nodeSrc.enqueue()
	}
}

// servicesOf lists the Services of a namespace.
func (s *shared) servicesOf(_ context.Context, namespace string) ([]*v1.Service, error) {
	var list []*v1.Service
	err := cache.ListAllByNamespace(s.services.GetIndexer(), namespace, labels.Everything(), func(o any) {
		list = append(list, o.(*v1.Service)) //nolint:forcetypeassert // an informer of Services
	})
	return list, err
}

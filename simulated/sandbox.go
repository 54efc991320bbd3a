package simulated

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/labels"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// sandbox is a PodSandbox. Only ready changes.
type sandbox struct {
	id, handler string
	config      *runtimeapi.PodSandboxConfig
	created     time.Time
	ready       bool
	addresses   []address // none in the network of the host
}

func (s *sandbox) podUID() string { return s.config.GetMetadata().GetUid() }

func (s *sandbox) namespaces() *runtimeapi.NamespaceOption {
	return s.config.GetLinux().GetSecurityContext().GetNamespaceOptions()
}

func (s *sandbox) state() runtimeapi.PodSandboxState {
	if s.ready {
		return runtimeapi.PodSandboxState_SANDBOX_READY
	}
	return runtimeapi.PodSandboxState_SANDBOX_NOTREADY
}

func (r *runtime) RunPodSandbox(_ context.Context, in *runtimeapi.RunPodSandboxRequest, _ ...grpc.CallOption) (*runtimeapi.RunPodSandboxResponse, error) {
	s := &sandbox{id: newID(), handler: in.RuntimeHandler, config: in.Config, created: time.Now(), ready: true}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.namespaces().GetNetwork() != runtimeapi.NamespaceMode_NODE {
		for _, pool := range r.pools() {
			ip, err := pool.allocate()
			if err != nil {
				s.release()
				return nil, status.Errorf(codes.ResourceExhausted, "allocating an address for the Pod: %v", err)
			}
			s.addresses = append(s.addresses, address{ip, pool})
		}
	}
	r.sandboxes[s.id] = s
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: s.id}, nil
}

// address of a Pod, and the pool that it is allocated from.
type address struct {
	ip   netip.Addr
	pool *addresses
}

func (s *sandbox) release() {
	for _, a := range s.addresses {
		a.pool.release(a.ip)
	}
	s.addresses = nil
}

// pools returns those of the node's ranges, or the one of all nodes. The caller holds the lock.
func (r *runtime) pools() []*addresses {
	if r.own == nil {
		for _, from := range r.node.podCIDRs() {
			r.own = append(r.own, newAddresses(from))
		}
	}
	if r.own != nil {
		return r.own
	}
	return []*addresses{r.common}
}

// StopPodSandbox implements CRI. It kills running containers.
func (r *runtime) StopPodSandbox(_ context.Context, in *runtimeapi.StopPodSandboxRequest, _ ...grpc.CallOption) (*runtimeapi.StopPodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[in.PodSandboxId]
	if s == nil {
		return nil, notFound("sandbox", in.PodSandboxId)
	}
	r.stopSandbox(s)
	return &runtimeapi.StopPodSandboxResponse{}, nil
}

// stopSandbox is called with the lock held.
func (r *runtime) stopSandbox(s *sandbox) {
	for _, c := range r.containers {
		if c.sandbox == s {
			r.exit(c, killed)
		}
	}
	if s.ready {
		s.ready = false
		s.release()
		r.changed(s.podUID())
	}
}

// RemovePodSandbox implements CRI. It removes the containers too.
func (r *runtime) RemovePodSandbox(_ context.Context, in *runtimeapi.RemovePodSandboxRequest, _ ...grpc.CallOption) (*runtimeapi.RemovePodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.sandboxes[in.PodSandboxId]; s != nil {
		r.stopSandbox(s)
		for _, c := range r.containers {
			if c.sandbox == s {
				r.forget(c)
			}
		}
		delete(r.sandboxes, s.id)
		r.changed(s.podUID())
	}
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

func (r *runtime) PodSandboxStatus(_ context.Context, in *runtimeapi.PodSandboxStatusRequest, _ ...grpc.CallOption) (*runtimeapi.PodSandboxStatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[in.PodSandboxId]
	if s == nil {
		return nil, notFound("sandbox", in.PodSandboxId)
	}
	st := &runtimeapi.PodSandboxStatus{
		Id: s.id, Metadata: s.config.Metadata, State: s.state(), CreatedAt: nanos(s.created),
		Labels: s.config.Labels, Annotations: s.config.Annotations, RuntimeHandler: s.handler,
		Linux: &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{Options: s.namespaces()}},
	}
	if len(s.addresses) > 0 {
		st.Network = &runtimeapi.PodSandboxNetworkStatus{Ip: s.addresses[0].ip.String()}
		for _, a := range s.addresses[1:] {
			st.Network.AdditionalIps = append(st.Network.AdditionalIps, &runtimeapi.PodIP{Ip: a.ip.String()})
		}
	}
	return &runtimeapi.PodSandboxStatusResponse{Status: st}, nil
}

func (r *runtime) ListPodSandbox(_ context.Context, in *runtimeapi.ListPodSandboxRequest, _ ...grpc.CallOption) (*runtimeapi.ListPodSandboxResponse, error) {
	f := in.GetFilter()
	selector := labels.SelectorFromSet(f.GetLabelSelector())
	r.mu.Lock()
	defer r.mu.Unlock()
	list := &runtimeapi.ListPodSandboxResponse{}
	for _, s := range r.sandboxes {
		if f.GetId() != "" && f.Id != s.id || f.GetState() != nil && f.State.State != s.state() ||
			!selector.Matches(labels.Set(s.config.Labels)) {
			continue
		}
		list.Items = append(list.Items, &runtimeapi.PodSandbox{
			Id: s.id, Metadata: s.config.Metadata, State: s.state(), CreatedAt: nanos(s.created),
			Labels: s.config.Labels, Annotations: s.config.Annotations, RuntimeHandler: s.handler,
		})
	}
	slices.SortFunc(list.Items, func(a, b *runtimeapi.PodSandbox) int { return cmp.Compare(a.CreatedAt, b.CreatedAt) })
	return list, nil
}

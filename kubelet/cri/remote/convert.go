package remote

import (
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"flyball.dev/kubelet/cri"
)

// ResourcesOf picks from CRI's resources those that can change while a container runs.
func ResourcesOf(r *runtimeapi.LinuxContainerResources) cri.Resources {
	return cri.Resources{
		CPUShares: r.GetCpuShares(), CPUQuota: r.GetCpuQuota(), CPUPeriod: r.GetCpuPeriod(),
		Memory: r.GetMemoryLimitInBytes(),
	}
}

func stateOf(s runtimeapi.ContainerState) cri.ContainerState {
	switch s {
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		return cri.Created
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		return cri.Running
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		return cri.Exited
	default:
		return cri.Unknown
	}
}

func nanos(t int64) time.Time {
	if t <= 0 {
		return time.Time{}
	}
	return time.Unix(0, t)
}

package plan

// Reasons that a container waits with, upstream's.
const (
	ReasonCreateContainerError       = "CreateContainerError"
	ReasonCreateContainerConfigError = "CreateContainerConfigError"
	ReasonRunContainerError          = "RunContainerError"
	ReasonPostStartHookError         = "PostStartHookError"
	reasonRestartingAll              = "RestartingAllContainers"
)

const messageRestartingAll = "All containers of the Pod restart in place"

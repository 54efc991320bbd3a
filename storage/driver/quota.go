//go:build linux

package driver

import "flyball.dev/internal/projectquota"

// quotas limits directories. Tests have others, since few kernels of test machines have any.
type quotas struct {
	enabled func(dir string) bool
	assign  func(dir string, project uint32) error
	limit   func(dir string, project uint32, size int64) error
	used    func(dir string, project uint32) (int64, error)
}

var projects = quotas{
	enabled: projectquota.Enabled,
	assign:  projectquota.Assign,
	limit:   projectquota.Limit,
	used:    projectquota.Used,
}

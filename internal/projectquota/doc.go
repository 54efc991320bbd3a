// Package projectquota limits the space of directories with the project quotas of XFS and ext4. It
// needs Linux 5.14.
package projectquota

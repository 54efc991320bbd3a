// Package mounter mounts file systems, directories and paths inside volumes by system calls. It
// executes no program of the host.
package mounter

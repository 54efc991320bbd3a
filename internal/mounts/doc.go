// Package mounts unmounts and removes directories, and never deletes a file through a mount that is
// still there.
package mounts

package driver

import (
	"path/filepath"
	"time"
)

// Kind is how the content of a volume is stored.
type Kind string

const (
	directory Kind = "directory"
	image     Kind = "image"
)

// Volume is a volume, or a snapshot of one.
type Volume struct {
	ID string `json:"id"`
	// Namespace and Claim name the PersistentVolumeClaim, if it is known.
	Namespace string `json:"namespace,omitempty"`
	Claim     string `json:"claim,omitempty"`
	Kind      Kind   `json:"kind"`
	// Block: Pods see a device. It always has the kind image.
	Block bool `json:"block,omitempty"`
	// Sparse: the blocks of the image are allocated when they are written.
	Sparse bool `json:"sparse,omitempty"`
	// Size in bytes is the limit of a volume, and of what a snapshot is restored into at least.
	Size int64 `json:"size"`
	// Source is the snapshot or volume that the content was copied from.
	Source string `json:"source,omitempty"`
	// Needs is how many bytes of the disk the volume may take, and Shared how many more it takes
	// when all blocks have been rewritten that it has in common with its source.
	Needs   int64     `json:"needs"`
	Shared  int64     `json:"shared,omitempty"`
	Project uint32    `json:"project,omitempty"`
	Created time.Time `json:"created"`

	// Path is the folder, and Used how many bytes of the disk it takes.
	Path string `json:"-"`
	Used int64  `json:"-"`
}

// Image is the path of the content of an image, Data that of a directory.
func (v *Volume) Image() string { return filepath.Join(v.Path, "disk.img") }

// Data is the path of the content of a directory.
func (v *Volume) Data() string { return filepath.Join(v.Path, "data") }

func (v *Volume) base() string { return filepath.Dir(filepath.Dir(v.Path)) }

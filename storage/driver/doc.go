// Package driver is the CSI driver local.flyball.dev: volumes on the disk of the node on which it
// runs. It serves the Identity, Controller and Node services on one socket, and has nothing to do
// with the Kubernetes API.
//
// A volume is a folder BASE/volumes/ID: volume.json says what it is, and its content is
//
//   - image: a file disk.img, used through a loop device, with an XFS file system or as a block
//     volume. The size is a limit, and with allocation "full" also a promise: the blocks are
//     allocated when the volume is created, so that a disk that fills up later does not matter.
//   - directory: a directory data with a project quota, where the file system of BASE has them.
//
// The file system is XFS because the kernel grows a mounted ext4 only for processes with
// CAP_SYS_RESOURCE, and because it has no lost+found, over which databases stumble.
//
// BASE is the directory of the driver or another one that the parameter "path" of a StorageClass
// names. Folders that begin with a dot are being made or removed; what a killed process left of
// them is removed at the next start. Nothing else is remembered: what is staged and published says
// the kernel's mount table, and which image has a loop device, /sys/block.
//
// A snapshot is the same in BASE/snapshots/ID. Where the file system can share blocks (XFS, btrfs),
// it takes no time; elsewhere it is a copy. A file system that is mounted is frozen for this. A copy
// is first made while Pods write, and what changed meanwhile is copied in at most maxFrozen, or else
// the snapshot fails. A directory is copied as it is, file by file, while Pods write.
package driver

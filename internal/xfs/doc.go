// Package xfs writes empty XFS file systems and grows mounted ones, without the programs of a host.
//
// The layout is that of the XFS Algorithms & Data Structures document, third edition
// (https://docs.kernel.org/filesystems/xfs): version 5, with checksums, an internal log and free
// inode B+trees, times beyond 2038. Linux 5.10 and newer mount it.
package xfs

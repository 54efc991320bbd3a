package xfs

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/google/uuid"
)

const (
	// MinSize is the size in bytes of the smallest file system that Format makes.
	MinSize = 64 << 20
	// minLog is more than any kernel asks for with these features, in bytes.
	minLog, maxLog = 10 << 20, 64 << 20
	maxGroup       = 1<<40 - blockSize
)

// Format writes an empty file system of size bytes, whose root directory everybody may write to.
// The target must read as zeroes, as a new file does, since only what is not zero is written. The
// caller syncs it.
func Format(target io.WriterAt, size int64) error {
	g, err := newGeometry(size)
	if err != nil {
		return err
	}
	// The first superblock is written last: what was not written to the end is no file system.
	for ag := int64(g.agCount) - 1; ag >= 0; ag-- {
		start := ag * int64(g.agBlocks) * blockSize
		if uint32(ag) == g.logGroup() {
			if _, err := target.WriteAt(g.emptyLog(), start+firstFree*blockSize); err != nil {
				return fmt.Errorf("writing the log: %w", err)
			}
		}
		if ag == 0 {
			if _, err := target.WriteAt(g.inodes(), chunkStart*blockSize); err != nil {
				return fmt.Errorf("writing the first inodes: %w", err)
			}
		}
		if _, err := target.WriteAt(g.group(uint32(ag)), start); err != nil {
			return fmt.Errorf("writing allocation group %d: %w", ag, err)
		}
	}
	return nil
}

// newGeometry divides the size into few groups, since growing adds groups of the same size.
func newGeometry(size int64) (*geometry, error) {
	if size < MinSize {
		return nil, fmt.Errorf("an XFS file system has at least %d bytes, not %d", MinSize, size)
	}
	groups := min(max(size>>30, 2), 4)
	groups = max(groups, (size+maxGroup-1)/maxGroup)
	return &geometry{
		uuid:      uuid.New(),
		agCount:   uint32(groups),
		agBlocks:  uint32(size / groups / blockSize),
		logBlocks: uint32(min(max(size/32, minLog), maxLog) / blockSize),
		now:       bigtime(time.Now()),
	}, nil
}

// group returns the first blocks of an allocation group: its headers and the roots of its trees.
func (g *geometry) group(ag uint32) []byte {
	free, longest := g.freeBlocks(ag)
	headers := [][]byte{
		encode(sectorSize, 224, g.superblock()),
		encode(sectorSize, 216, agf{
			Magic: [4]byte([]byte("XAGF")), Version: 1, Number: ag, Length: g.agBlocks,
			Roots: [3]uint32{bnoRoot, cntRoot}, Levels: [3]uint32{1, 1},
			ListLast: listLength - 1,
			Free:     free, Longest: longest, UUID: g.uuid,
		}),
		encode(sectorSize, 312, g.agi(ag)),
		encode(sectorSize, 32, agfl{
			Magic: [4]byte([]byte("XAFL")), Number: ag, UUID: g.uuid, Blocks: filled[[listLength]uint32](),
		}),
	}
	var chunks []inodeChunk
	if ag == 0 {
		chunks = []inodeChunk{{
			Start: rootInode, Count: chunkInodes, Free: chunkInodes - usedInodes,
			FreeMask: math.MaxUint64 - (1<<usedInodes - 1),
		}}
	}
	// At most two extents, and the longer one is behind: both orders are the same.
	extents := g.free(ag)
	return bytes.Join(append(headers,
		g.btree(ag, "AB3B", bnoRoot, len(extents), extents),
		g.btree(ag, "AB3C", cntRoot, len(extents), extents),
		g.btree(ag, "IAB3", inoRoot, len(chunks), chunks),
		g.btree(ag, "FIB3", finoRoot, len(chunks), chunks),
	), nil)
}

func (g *geometry) superblock() superblock {
	s := superblock{
		Magic:       [4]byte([]byte("XFSB")),
		BlockSize:   blockSize,
		Blocks:      uint64(g.agCount) * uint64(g.agBlocks),
		UUID:        g.uuid,
		LogStart:    uint64(g.logGroup())<<g.agBlocksLog() | firstFree,
		RootIno:     rootInode,
		RTBitmapIno: rootInode + 1, RTSumIno: rootInode + 2, RTExtentSize: 1,
		AGBlocks: g.agBlocks, AGCount: g.agCount, LogBlocks: g.logBlocks,
		// 5, with link counts, aligned inodes, log version 2, sectors, unwritten extents, directories
		// version 2.
		Version:    0xbca5,
		SectorSize: sectorSize, InodeSize: inodeSize, InodesBlock: inodesPerBlock,
		BlockLog: blockLog, SectorLog: sectorLog, InodeLog: inodeLog, InodesLog: inodesPerBlockLog,
		AGBlocksLog:     uint8(g.agBlocksLog()),
		InodeMaxPercent: inodeMaxPercent,
		Inodes:          chunkInodes, InodesFree: chunkInodes - usedInodes,
		InodeAlign: chunkBlocks, SparseAlign: chunkBlocks / 2,
		LogSectorLog: sectorLog, LogSectorSize: sectorSize, LogStripeUnit: sectorSize,
		Features2: 0x18a, Features2Copy: 0x18a, // lazy counters, attributes version 2, project ids, checksums
		ROCompat: 0x1 | 0x8,       // free inode trees, their sizes counted
		Incompat: 0x1 | 0x2 | 0x8, // file types in directories, sparse inode chunks, times beyond 2038
	}
	for ag := range g.agCount {
		free, _ := g.freeBlocks(ag)
		s.BlocksFree += uint64(free)
	}
	return s
}

func (g *geometry) agi(ag uint32) agi {
	header := agi{
		Magic: [4]byte([]byte("XAGI")), Version: 1, Number: ag, Length: g.agBlocks, UUID: g.uuid,
		Root: inoRoot, Level: 1, FreeRoot: finoRoot, FreeLevel: 1, Blocks: 1, FreeTreeBlocks: 1,
		New: none, Dir: none, Unlinked: filled[[64]uint32](),
	}
	if ag == 0 {
		header.Count, header.Free, header.New = chunkInodes, chunkInodes-usedInodes, rootInode
	}
	return header
}

func (g *geometry) btree(ag uint32, magic string, block uint64, count int, records any) []byte {
	return encode(blockSize, 52, btree{
		Magic:   [4]byte([]byte(magic)),
		Records: uint16(count),
		Left:    none, Right: none,
		Block: (uint64(ag)*uint64(g.agBlocks) + block) * blockSize / unit,
		UUID:  g.uuid, Owner: ag,
	}, records)
}

// inodes returns the first chunk: the root directory, two files that a file system without a
// real-time part needs nonetheless, and free ones.
func (g *geometry) inodes() []byte {
	var data []byte
	for i := range uint64(chunkInodes) {
		n := inode{Magic: [2]byte([]byte("IN")), Version: 3, NextUnlinked: none, Number: rootInode + i, UUID: g.uuid}
		if i < usedInodes {
			n.Mode, n.Format, n.AttrFormat, n.Links = 0o100000, 2, 2, 1 // a file with extents
			n.Accessed, n.Modified, n.Changed, n.Created = g.now, g.now, g.now, g.now
			n.Flags2 = 0x8 // times beyond 2038
		}
		switch i {
		case 0: // a directory, its entries inside of the inode
			n.Mode, n.Format, n.Links, n.Size = 0o40777, 1, 2, 6
			n.DirParent = rootInode
		case 1:
			n.Flags = 0x4 // the bitmap in its new form
		}
		data = append(data, encode(inodeSize, 100, n)...)
	}
	return data
}

// emptyLog returns the log of a file system that was unmounted: one record that says so.
func (g *geometry) emptyLog() []byte {
	const cycle, unmount, size = 1, 0x6e55, 32 << 10
	header := logRecord{
		Magic: 0xfeedbabe, Cycle: cycle, Version: 2, Length: sectorSize - unit, LSN: cycle << 32, TailLSN: cycle << 32,
		Previous: none, Operations: 1, Format: 1, UUID: g.uuid, BufferSize: size,
	}
	// The first word of each unit is replaced by the cycle, and kept in the header.
	header.Cycles[0] = 0xb0c0d0d0
	record := encode(unit, 0, header)
	record = append(record, encode(unit, 0, []uint16{0, cycle, 0, 8, 0xaa20, 0, unmount})...)
	for len(record) < sectorSize {
		record = append(record, encode(unit, 0, uint32(cycle))...)
	}
	return record
}

// filled returns an array of "none".
func filled[A [64]uint32 | [listLength]uint32]() (a A) {
	for i := range len(a) {
		a[i] = none
	}
	return a
}

package xfs

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
	"time"

	"github.com/google/uuid"
)

// The units of everything below. Sectors of 4096 bytes suit any device: nothing smaller is written.
// Inodes of 512 bytes are the least that version 5 allows.
const (
	blockSize, blockLog   = 4096, 12
	sectorSize, sectorLog = 4096, 12
	inodeSize, inodeLog   = 512, 9
	unit                  = 512 // of device addresses and of the log
	inodesPerBlock        = blockSize / inodeSize
	inodesPerBlockLog     = blockLog - inodeLog
	chunkInodes           = 64 // inodes are allocated in chunks
	chunkBlocks           = chunkInodes / inodesPerBlock
	inodeMaxPercent       = 25 // of the space may become inodes
	none                  = 0xffffffff
)

// Where things lie in an allocation group, in blocks. The first four sectors are superblock, AGF, AGI
// and AGFL.
const (
	bnoRoot, cntRoot  = 4, 5 // free extents by block number and by length
	inoRoot, finoRoot = 6, 7 // inode chunks, and those with free inodes
	firstFree         = 8
	chunkStart        = 16 // where xfs_repair looks for the root directory
	rootInode         = chunkStart * inodesPerBlock
	usedInodes        = 3
	listLength        = (sectorSize - 36) / 4 // of the AGFL
)

// geometry is what the size decides.
type geometry struct {
	uuid                         uuid.UUID
	agCount, agBlocks, logBlocks uint32
	now                          uint64
}

func (g *geometry) agBlocksLog() int { return bits.Len32(g.agBlocks - 1) }

// logGroup is the allocation group in whose first free blocks the log lies.
func (g *geometry) logGroup() uint32 { return g.agCount / 2 }

// extent is a record of the B+trees of free space.
type extent struct{ Start, Blocks uint32 }

func (g *geometry) free(ag uint32) []extent {
	switch ag {
	case 0:
		end := uint32(chunkStart + chunkBlocks)
		return []extent{{firstFree, chunkStart - firstFree}, {end, g.agBlocks - end}}
	case g.logGroup():
		start := firstFree + g.logBlocks
		return []extent{{start, g.agBlocks - start}}
	default:
		return []extent{{firstFree, g.agBlocks - firstFree}}
	}
}

func (g *geometry) freeBlocks(ag uint32) (sum, longest uint32) {
	for _, e := range g.free(ag) {
		sum, longest = sum+e.Blocks, max(longest, e.Blocks)
	}
	return sum, longest
}

type superblock struct {
	Magic                                       [4]byte
	BlockSize                                   uint32
	Blocks, RTBlocks, RTExtents                 uint64
	UUID                                        uuid.UUID
	LogStart, RootIno, RTBitmapIno, RTSumIno    uint64
	RTExtentSize, AGBlocks, AGCount             uint32
	RTBitmapBlocks, LogBlocks                   uint32
	Version, SectorSize, InodeSize, InodesBlock uint16
	Name                                        [12]byte
	BlockLog, SectorLog, InodeLog, InodesLog    uint8
	AGBlocksLog, RTExtentsLog, InProgress       uint8
	InodeMaxPercent                             uint8
	Inodes, InodesFree, BlocksFree, RTFree      uint64
	UserQuota, GroupQuota                       uint64
	QuotaFlags                                  uint16
	Flags, SharedVersion                        uint8
	InodeAlign, StripeUnit, StripeWidth         uint32
	DirBlockLog, LogSectorLog                   uint8
	LogSectorSize                               uint16
	LogStripeUnit, Features2, Features2Copy     uint32
	Compat, ROCompat, Incompat, LogIncompat     uint32
	CRC, SparseAlign                            uint32
	ProjectQuota, LSN                           uint64
	MetaUUID                                    uuid.UUID
}

type agf struct {
	Magic                                         [4]byte
	Version, Number, Length                       uint32
	Roots, Levels                                 [3]uint32
	ListFirst, ListLast, ListCount, Free, Longest uint32
	BTreeBlocks                                   uint32
	UUID                                          uuid.UUID
	_                                             [128]byte
	LSN                                           uint64
	CRC                                           uint32
}

type agi struct {
	Magic                          [4]byte
	Version, Number, Length, Count uint32
	Root, Level, Free, New, Dir    uint32
	Unlinked                       [64]uint32
	UUID                           uuid.UUID
	CRC, _                         uint32
	LSN                            uint64
	FreeRoot, FreeLevel            uint32
	Blocks, FreeTreeBlocks         uint32
}

type agfl struct {
	Magic  [4]byte
	Number uint32
	UUID   uuid.UUID
	LSN    uint64
	CRC    uint32
	Blocks [listLength]uint32
}

type btree struct {
	Magic          [4]byte
	Level, Records uint16
	Left, Right    uint32
	Block, LSN     uint64
	UUID           uuid.UUID
	Owner, CRC     uint32
}

type inodeChunk struct {
	Start       uint32
	Holes       uint16
	Count, Free uint8
	FreeMask    uint64
}

type inode struct {
	Magic                         [2]byte
	Mode                          uint16
	Version, Format               uint8
	_                             uint16
	UID, GID, Links               uint32
	Project                       [4]byte
	_                             [8]byte
	Accessed, Modified, Changed   uint64
	Size, Blocks                  uint64
	ExtentSize, Extents           uint32
	AttrExtents                   uint16
	ForkOffset, AttrFormat        uint8
	_                             [6]byte
	Flags                         uint16
	Generation, NextUnlinked, CRC uint32
	ChangeCount, LSN, Flags2      uint64
	CopyExtentSize                uint32
	_                             [12]byte
	Created, Number               uint64
	UUID                          uuid.UUID
	DirEntries, DirLong           uint8
	DirParent                     uint32
}

type logRecord struct {
	Magic, Cycle, Version, Length uint32
	LSN, TailLSN                  uint64
	CRC, Previous, Operations     uint32
	Cycles                        [64]uint32
	Format                        uint32
	UUID                          uuid.UUID
	BufferSize                    uint32
}

// encode returns v as it lies on disk, with its checksum at offset crc if that is not 0.
func encode(size, crc int, v ...any) []byte {
	var data []byte
	for _, part := range v {
		data, _ = binary.Append(data, binary.BigEndian, part) // fails for types without a fixed size only
	}
	data = append(data, make([]byte, size-len(data))...)
	if crc > 0 {
		// The only field in little endian.
		binary.LittleEndian.PutUint32(data[crc:], crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
	}
	return data
}

// bigtime counts nanoseconds since 1901.
func bigtime(t time.Time) uint64 { return uint64(t.UnixNano()) + 1<<31*uint64(time.Second) }

package disk

// Room is what is left of what a node needs, and how much there is in all; an "all" of 0:
// it is not counted.
type Room struct {
	Bytes, BytesAll             uint64 // of the file system of the data directory
	Files, FilesAll             uint64 // inodes of it
	Descriptors, DescriptorsAll uint64 // of the process
}

// Bounds of the room of a node that was told none, in bytes.
const (
	roomBytesMin = 512 << 20
	roomBytesMax = 2 << 30 // the tenth part of a large disk is enough long before
)

// BytesNeeded is how many bytes are to be free. told is what the node was told; 0: the tenth part of
// the disk, 512 MiB to 2 GiB; below 0: none are.
func (r Room) BytesNeeded(told int64) uint64 {
	switch {
	case told < 0:
		return 0
	case told > 0:
		return uint64(told)
	}
	return max(roomBytesMin, min(r.BytesAll/10, roomBytesMax))
}

package disk

// Room is what is left of what a node needs, and how much there is in all; an "all" of 0:
// it is not counted.
type Room struct {
	Bytes, BytesAll             uint64 // of the file system of the data directory
	Files, FilesAll             uint64 // inodes of it
	Descriptors, DescriptorsAll uint64 // of the process
}

package table

// patched: this file is new. A builder kept its whole table in memory until it was
// written: twice, since its buffers doubled, and all versions of a key are one table.

import (
	"fmt"
	"os"
	"runtime"

	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/y"
	"github.com/dgraph-io/ristretto/v2/z"
)

const (
	// fileBufferBytes of blocks are written at once.
	fileBufferBytes = 128 << 10
	// fileSliceBytes are on their way to the disk at once, and as many wait. A sync of
	// another file waits for these at most, not for the table.
	fileSliceBytes = 1 << 20
)

// NewFileTableBuilder is a builder that writes each block to the file when it is full. The
// file is made with the first one; CreateTable completes it. A table that is compressed or
// encrypted is built in memory as before.
func NewFileTableBuilder(fname string, opts Options) *Builder {
	if opts.Compression != options.None || opts.DataKey != nil {
		return NewTableBuilder(opts)
	}
	b := &Builder{opts: &opts, file: &blockFile{name: fname}}
	b.curBlock = b.newBlock()
	b.opts.tableCapacity = uint64(float64(b.opts.TableSize) * 0.95)
	return b
}

// newBlock is an empty block, in the memory of the last one that was written.
func (b *Builder) newBlock() *bblock {
	if b.file == nil || b.file.spare == nil {
		return &bblock{data: b.alloc.Allocate(b.opts.BlockSize + padding)}
	}
	block := &bblock{data: b.file.spare}
	b.file.spare = nil
	return block
}

// writeBlock hands the block's bytes to the file. What the index needs stays.
func (b *Builder) writeBlock(block *bblock) {
	b.file.write(block.data[:block.end])
	b.file.spare = block.data
	block.data, block.entryOffsets = nil, nil
	runtime.Gosched() // tables are made beside commands, which must not wait for a core
}

// blockFile is the file of a table in the making.
type blockFile struct {
	name  string
	fd    *os.File // nil: not made yet, or given away
	buf   []byte   // not written yet
	spare []byte   // of a block
	err   error    // the first one; nothing is written behind it

	written int64 // bytes
	begun   int64 // of these, on their way to the disk
	settled int64 // of these, there
}

func (f *blockFile) write(p []byte) {
	if len(f.buf)+len(p) > fileBufferBytes {
		f.flush(f.buf)
		f.buf = f.buf[:0]
	}
	if len(p) >= fileBufferBytes {
		f.flush(p)
		return
	}
	if f.buf == nil {
		f.buf = make([]byte, 0, fileBufferBytes)
	}
	f.buf = append(f.buf, p...)
}

func (f *blockFile) flush(p []byte) {
	if f.err != nil || len(p) == 0 {
		return
	}
	if f.fd == nil {
		if f.fd, f.err = os.OpenFile(f.name, os.O_CREATE|os.O_RDWR|os.O_EXCL, 0666); f.err != nil {
			f.fd = nil
			return
		}
	}
	n, err := f.fd.Write(p)
	f.written += int64(n)
	if f.err = err; err == nil && f.written-f.begun >= fileSliceBytes {
		f.err = f.settle()
	}
}

// settle waits until the last slice is on the disk, and starts the next one.
func (f *blockFile) settle() error {
	if err := writeBack(f.fd, f.settled, f.begun, true); err != nil {
		return err
	}
	err := writeBack(f.fd, f.begun, f.written, false)
	f.settled, f.begun = f.begun, f.written
	return err
}

// complete writes what follows the blocks, and gives the synced file away.
func (f *blockFile) complete(bd *buildData) (*z.MmapFile, error) {
	for _, p := range [...][]byte{
		bd.index, y.U32ToBytes(uint32(len(bd.index))), bd.checksum, y.U32ToBytes(uint32(len(bd.checksum))),
	} {
		f.write(p)
	}
	f.flush(f.buf)
	f.buf = nil
	if f.err != nil {
		return nil, f.err
	}
	if f.written != int64(bd.Size) {
		return nil, fmt.Errorf("%d bytes were written, and the table has %d", f.written, bd.Size)
	}
	if f.err = f.fd.Sync(); f.err != nil {
		return nil, f.err
	}
	mf, err := z.OpenMmapFileUsing(f.fd, 0, true)
	if err != nil {
		return nil, err
	}
	f.fd = nil
	return mf, nil
}

// close removes a file that did not become a table.
func (f *blockFile) close() {
	f.buf, f.spare = nil, nil
	if f.fd == nil {
		return
	}
	f.fd.Close()
	os.Remove(f.name)
	f.fd = nil
}

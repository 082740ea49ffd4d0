package badger

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/y"
	"google.golang.org/protobuf/proto"

	"keyval/storeactor/disk"
	"keyval/storeactor/files/durable"
)

// What Badger keeps to itself and this package reads: the end of a table file, a
// memtable file, and a line that it logs. A test pins the version that they are of.
const (
	memSuffix = ".mem"
	memHead   = 20 // bytes at the head of a memtable file: key id [8], nonce [12]

	flattenStep = "Attempting to compact" // how the log announces a step of Flatten
)

// checkTable looks at the end of a table file, big endian:
//
//	index | its size uint32 | checksum (pb.Checksum) | its size uint32
//
// What it returns tells the table from any other: its size and the checksum of its index.
func checkTable(path string) (sum string, err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", damaged("%s is missing", path)
	}
	if err != nil {
		return "", durable.Error("open the state", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", durable.Error("read the state", err)
	}
	tail := tableTail{file: f, end: info.Size()}
	checksum, index := &pb.Checksum{}, []byte(nil)
	if proto.Unmarshal(tail.block(), checksum) == nil {
		index = tail.block()
	}
	if len(index) == 0 || y.VerifyChecksum(index, checksum) != nil {
		return "", damaged("%s is not whole", path)
	}
	return fmt.Sprintf("%d-%x", info.Size(), checksum.Sum), nil
}

// tableTail reads a table file's blocks from its end.
type tableTail struct {
	file *os.File
	end  int64
}

// block reads one block and its size behind it; nothing if it does not fit.
func (t *tableTail) block() []byte {
	size := make([]byte, 4)
	if _, err := t.file.ReadAt(size, t.end-4); err != nil {
		return nil
	}
	n := int64(binary.BigEndian.Uint32(size))
	if n > t.end-4 {
		return nil
	}
	t.end -= 4 + n
	b := make([]byte, n)
	if _, err := t.file.ReadAt(b, t.end); err != nil {
		return nil
	}
	return b
}

// readMemTable reads a memtable file's head. Its length is that of the head.
func readMemTable(f *os.File) (MemTable, error) {
	m := MemTable{Name: filepath.Base(f.Name()), Nonce: "-", Length: memHead}
	head := make([]byte, memHead)
	if _, err := f.ReadAt(head, 0); err == io.EOF {
		return m, nil
	} else if err != nil {
		return m, err
	}
	m.Nonce = fmt.Sprintf("%x", head[8:])
	return m, nil
}

// wholeEntries is the offset behind the last whole entry of a memtable file,
// reading from an offset that is behind a whole one. Entries follow each other:
//
//	meta [2] | key size, value size, expiry uvarint | key | value | CRC32C of all before, big endian uint32
//
// A key of no bytes is the end. An entry that is being written is not whole yet.
func wholeEntries(f *os.File, from int64) (int64, error) {
	r := newEntryReader(f, from)
	for n := 1; ; n++ {
		if n%64 == 0 {
			runtime.Gosched() // it runs beside commands, which must not wait for a core
		}
		size, err := r.entry()
		if err != nil {
			return from, err
		}
		if size == 0 {
			return from, nil
		}
		from += size
	}
}

type entryReader struct {
	bufio.Reader
	entryBytes []byte // of the entry, so far
}

func newEntryReader(f *os.File, from int64) *entryReader {
	return &entryReader{Reader: *bufio.NewReaderSize(io.NewSectionReader(f, from, 1<<62), 256<<10)}
}

// entry reads one entry. Its size is 0 if it is not whole or the end.
func (r *entryReader) entry() (size int64, err error) {
	r.entryBytes = r.entryBytes[:0]
	var fields [3]uint64 // key size, value size, expiry
	if !r.take(2) {
		return 0, nil
	}
	for i := range fields {
		if fields[i], err = binary.ReadUvarint(r); err != nil {
			return 0, ignoreEnd(err)
		}
	}
	key, value := fields[0], fields[1]
	if key == 0 || key > 1<<17 || value > 2*(disk.ValueBytesMax+1) || !r.take(int(key+value)) {
		return 0, nil
	}
	sum := crc32.Checksum(r.entryBytes, disk.Castagnoli)
	if !r.take(4) {
		return 0, nil
	}
	if !bytes.Equal(r.entryBytes[len(r.entryBytes)-4:], binary.BigEndian.AppendUint32(nil, sum)) {
		return 0, nil
	}
	return int64(len(r.entryBytes)), nil
}

// ignoreEnd: an entry that the file ends in, or whose sizes make no sense, is
// not whole, and that is all.
func ignoreEnd(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return err
	}
	return nil
}

// take appends n bytes to the entry; false if the file ends before.
func (r *entryReader) take(n int) bool {
	at := len(r.entryBytes)
	r.entryBytes = append(r.entryBytes, make([]byte, n)...)
	_, err := io.ReadFull(&r.Reader, r.entryBytes[at:])
	return err == nil
}

func (r *entryReader) ReadByte() (byte, error) {
	b, err := r.Reader.ReadByte()
	if err == nil {
		r.entryBytes = append(r.entryBytes, b)
	}
	return b, err
}

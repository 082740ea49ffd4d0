package storeactor

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
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/skl"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"keyval/storeactor/disk"
	"keyval/storeactor/files/durable"
)

// engineSeal is what an engine's Sync made durable. It travels in the checkpoint
// file, and the engine is held against it when it is opened: Badger itself takes
// a damaged memtable file for a short one and a missing one for none.
//
// A memtable file goes away when it has become a table. So that its loss can be
// told from that, each one holds markers, which are rows like others: one from
// every Sync and one every engineMarkEvery bytes.
type engineSeal struct {
	Markers   uint64 // markers 1 to this are there
	Table     uint64 // the number of the newest table that begins with a marker: it only ever gives way to newer ones, while others may go for good
	MemTables []sealedMemTable
}

// sealedMemTable is one memtable file at the time of a Sync.
type sealedMemTable struct {
	Name   string // of the file; names come again
	Nonce  string // hex digits from the file's head, random: tells it from others of its name
	Length int64  // bytes of whole entries that were synced
}

const (
	sealHead  = "markers %d table %d\n"
	sealLine  = "memtable %s %s %d\n"
	memSuffix = ".mem"
	memHead   = 20 // bytes at the head of a memtable file: key id [8], nonce [12]
)

func (s engineSeal) encode() []byte {
	b := fmt.Appendf(nil, sealHead, s.Markers, s.Table)
	for _, m := range s.MemTables {
		b = fmt.Appendf(b, sealLine, m.Name, m.Nonce, m.Length)
	}
	return b
}

func decodeSeal(b []byte) (engineSeal, error) {
	var s engineSeal
	head, rest, _ := strings.Cut(string(b), "\n")
	if _, err := fmt.Sscanf(head+"\n", sealHead, &s.Markers, &s.Table); err != nil {
		return s, err
	}
	for line := range strings.Lines(rest) {
		var m sealedMemTable
		if _, err := fmt.Sscanf(line, sealLine, &m.Name, &m.Nonce, &m.Length); err != nil {
			return s, err
		}
		s.MemTables = append(s.MemTables, m)
	}
	return s, nil
}

// sealEngine syncs every memtable file and the directory. before is the last
// seal: what it covers is not read again. A file that goes away meanwhile has
// become a table, which Badger syncs.
func sealEngine(db *badger.DB, dir string, markers uint64, before engineSeal) (engineSeal, error) {
	seal := engineSeal{Markers: markers, Table: before.Table}
	for _, t := range db.Tables() {
		if t.Left[0] == engineMarker {
			seal.Table = max(seal.Table, t.ID)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return seal, err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), memSuffix) {
			continue
		}
		m, err := sealMemTable(filepath.Join(dir, e.Name()), before)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return seal, err
		}
		seal.MemTables = append(seal.MemTables, m)
	}
	return seal, durable.Sync(dir)
}

func sealMemTable(path string, before engineSeal) (sealedMemTable, error) {
	f, err := os.Open(path)
	if err != nil {
		return sealedMemTable{}, err
	}
	defer f.Close()
	m, err := readMemTable(f)
	if err != nil {
		return m, err
	}
	for _, b := range before.MemTables {
		if b.Name == m.Name && b.Nonce == m.Nonce {
			m.Length = b.Length
		}
	}
	if m.Length, err = wholeEntries(f, m.Length); err != nil {
		return m, err
	}
	return m, unix.Fdatasync(int(f.Fd()))
}

// readMemTable reads a memtable file's head. Its length is that of the head.
func readMemTable(f *os.File) (sealedMemTable, error) {
	m := sealedMemTable{Name: filepath.Base(f.Name()), Nonce: "-", Length: memHead}
	head := make([]byte, memHead)
	if _, err := f.ReadAt(head, 0); err == io.EOF {
		return m, nil
	} else if err != nil {
		return m, err
	}
	m.Nonce = fmt.Sprintf("%x", head[8:])
	return m, nil
}

// checkMemTables: what was synced to a memtable file that is still there must be
// there still, every entry with its checksum.
func (s engineSeal) checkMemTables(dir string) error {
	for _, sealed := range s.MemTables {
		f, err := os.Open(filepath.Join(dir, sealed.Name))
		if errors.Is(err, os.ErrNotExist) {
			continue // the markers tell whether it became a table
		}
		if err != nil {
			return durable.Error("open the state", err)
		}
		found, err := readMemTable(f)
		if err == nil && found.Nonce == sealed.Nonce {
			found.Length, err = wholeEntries(f, memHead)
		}
		f.Close()
		if err != nil {
			return durable.Error("read the state", err)
		}
		if found.Nonce == sealed.Nonce && found.Length < sealed.Length {
			return engineDamaged("%s is whole for %d bytes only, and %d were synced", filepath.Join(dir, sealed.Name), found.Length, sealed.Length)
		}
	}
	return nil
}

// checkTables: the MANIFEST names tables as new as the sealed ones, and each is
// there with a whole index. Badger would delete tables that a shortened MANIFEST
// does not name, and crash on an index that is not whole.
func (s engineSeal) checkTables(dir string) error {
	path := filepath.Join(dir, badger.ManifestFilename)
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return engineDamaged("%s is missing", path)
	}
	if err != nil {
		return durable.Error("open the state", err)
	}
	defer f.Close()
	manifest, _, err := badger.ReplayManifestFile(f, 0, badger.Options{})
	if err != nil {
		return engineDamaged("%s cannot be read: %v", path, err)
	}
	var newest uint64
	for id := range manifest.Tables {
		newest = max(newest, id)
		if err := checkTable(table.NewFilename(id, dir)); err != nil {
			return err
		}
	}
	if newest < s.Table {
		return engineDamaged("%s ends at table %d, and table %d was synced", path, newest, s.Table)
	}
	return nil
}

// checkTable looks at the end of a table file, big endian:
//
//	index | its size uint32 | checksum (pb.Checksum) | its size uint32
func checkTable(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return engineDamaged("%s is missing", path)
	}
	if err != nil {
		return durable.Error("open the state", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return durable.Error("read the state", err)
	}
	tail := tableTail{file: f, end: info.Size()}
	checksum, index := &pb.Checksum{}, []byte(nil)
	if proto.Unmarshal(tail.block(), checksum) == nil {
		index = tail.block()
	}
	if len(index) == 0 || y.VerifyChecksum(index, checksum) != nil {
		return engineDamaged("%s is not whole", path)
	}
	return nil
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

// checkMarkers looks for the last markers, all of them, and for ever sparser ones
// before: those have long been in tables, which are checked by themselves.
func (s engineSeal) checkMarkers(db *badger.DB) error {
	const all = 256
	txn := db.NewTransactionAt(engineVersion, false)
	defer txn.Discard()
	for back := uint64(0); back < s.Markers; {
		number := s.Markers - back
		if _, err := txn.Get(markerKey(number)); err != nil {
			return engineDamaged("rows that were synced are gone: marker %d of %d: %v", number, s.Markers, err)
		}
		if back < all {
			back++
		} else {
			back *= 2
		}
	}
	return nil
}

// wholeEntries is the offset behind the last whole entry of a memtable file,
// reading from an offset that is behind a whole one. Entries follow each other:
//
//	meta [2] | key size, value size, expiry uvarint | key | value | CRC32C of all before, big endian uint32
//
// A key of no bytes is the end. An entry that is being written is not whole yet.
func wholeEntries(f *os.File, from int64) (int64, error) {
	r := newEntryReader(f, from)
	for {
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

// memTablesNeed is the most that Badger may need for one of the memtable files of
// a directory, in bytes: an entry with its place in the index.
func memTablesNeed(dir string) (need int64, err error) {
	names, err := filepath.Glob(filepath.Join(dir, "*"+memSuffix))
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		n, err := memTableNeed(name)
		if err != nil {
			return 0, err
		}
		need = max(need, n)
	}
	return need, nil
}

func memTableNeed(path string) (need int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	r := newEntryReader(f, memHead)
	for {
		size, err := r.entry()
		if err != nil || size == 0 {
			return need, err
		}
		need += size + int64(skl.MaxNodeSize)
	}
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
	sum := crc32.Checksum(r.entryBytes, durable.Castagnoli)
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

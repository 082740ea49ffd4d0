package badger

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"
	"golang.org/x/sys/unix"

	"keyval/storeactor/files/durable"
)

// Seal is what an engine's Sync made durable. It travels in the checkpoint
// file, and the engine is held against it when it is opened: Badger itself takes
// a damaged memtable file for a short one and a missing one for none.
//
// A memtable file goes away when it has become a table. So that its loss can be
// told from that, each one holds markers, which are rows like others: one from
// every Sync and one every markEveryBytes bytes.
type Seal struct {
	Markers   uint64 // markers 1 to this are there
	Owner     string // random text: stands in each marker, and tells these rows' files from those of another node; empty: none does
	Table     uint64 // the highest number of a table that begins with a marker; compactions replace such a table by a newer one, and may remove others
	MemTables []MemTable
	Tables    map[uint64]string // what checkTable says of the tables up to that number, which no later table has again
}

// MemTable is one memtable file at the time of a Sync.
type MemTable struct {
	Name   string // of the file; names come again
	Nonce  string // hex digits from the file's head, random: tells it from others of its name
	Length int64  // bytes of whole entries that were synced
}

const (
	sealHead = "markers %d table %d owner %s\n"
	sealLine = "memtable %s %s %d\n"
	sealFile = "table %d %s\n"
	nobody   = "-"
)

// Encode is the text that DecodeSeal reads.
func (s Seal) Encode() []byte {
	b := fmt.Appendf(nil, sealHead, s.Markers, s.Table, cmp.Or(s.Owner, nobody))
	for _, m := range s.MemTables {
		b = fmt.Appendf(b, sealLine, m.Name, m.Nonce, m.Length)
	}
	for _, id := range slices.Sorted(maps.Keys(s.Tables)) {
		b = fmt.Appendf(b, sealFile, id, s.Tables[id])
	}
	return b
}

// DecodeSeal reads what encode wrote.
func DecodeSeal(b []byte) (Seal, error) {
	var s Seal
	head, rest, _ := strings.Cut(string(b), "\n")
	if _, err := fmt.Sscanf(head+"\n", sealHead, &s.Markers, &s.Table, &s.Owner); err != nil {
		return s, err
	}
	if s.Owner == nobody {
		s.Owner = ""
	}
	for line := range strings.Lines(rest) {
		if strings.HasPrefix(line, "table ") {
			var id uint64
			var sum string
			if _, err := fmt.Sscanf(line, sealFile, &id, &sum); err != nil {
				return s, err
			}
			if s.Tables == nil {
				s.Tables = map[uint64]string{}
			}
			s.Tables[id] = sum
			continue
		}
		var m MemTable
		if _, err := fmt.Sscanf(line, sealLine, &m.Name, &m.Nonce, &m.Length); err != nil {
			return s, err
		}
		s.MemTables = append(s.MemTables, m)
	}
	return s, nil
}

// sealFiles syncs every memtable file and the directory. before is the last
// seal: what it covers is not read again. A file that goes away meanwhile has
// become a table, which Badger syncs.
func sealFiles(db *badger.DB, dir string, markers uint64, before Seal) (Seal, error) {
	seal := Seal{Markers: markers, Table: before.Table, Owner: before.Owner}
	var ids []uint64
	for _, t := range db.Tables() {
		ids = append(ids, t.ID)
		if t.Left[0] == prefixMarker {
			seal.Table = max(seal.Table, t.ID)
		}
	}
	if err := seal.addTables(dir, ids, before, func(id uint64) bool {
		return slices.ContainsFunc(db.Tables(), func(t badger.TableInfo) bool { return t.ID == id })
	}); err != nil {
		return seal, err
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

// addTables seals tables, but for those that a compaction has removed meanwhile: in tells
// whether the state consists of a table still. If not, its file may be anything: Badger
// empties it before it removes it. before is the last seal: a table in it is as it was.
func (s *Seal) addTables(dir string, ids []uint64, before Seal, in func(id uint64) bool) error {
	s.Tables = map[uint64]string{}
	for _, id := range ids {
		if id > s.Table {
			continue
		}
		sum, known := before.Tables[id]
		if !known {
			var err error
			if sum, err = checkTable(table.NewFilename(id, dir)); err != nil && !in(id) {
				continue
			} else if err != nil {
				return err
			}
		}
		s.Tables[id] = sum
	}
	return nil
}

func sealMemTable(path string, before Seal) (MemTable, error) {
	f, err := os.Open(path)
	if err != nil {
		return MemTable{}, err
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
	from := m.Length
	if m.Length, err = wholeEntries(f, from); err != nil {
		return m, err
	}
	return m, syncInSteps(f, from, m.Length)
}

// syncStep is how many bytes of a memtable are on their way to the disk at once. The log's
// syncs stand behind them.
const syncStep = 1 << 20

// syncInSteps syncs a file of which the bytes [from, to) are new.
func syncInSteps(f *os.File, from, to int64) error {
	const whole = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	for ; from < to; from += syncStep {
		err := unix.SyncFileRange(int(f.Fd()), from, min(syncStep, to-from), whole)
		if err == unix.ENOSYS {
			break
		}
		if err != nil { // it is not told again
			return err
		}
		runtime.Gosched()
	}
	return unix.Fdatasync(int(f.Fd()))
}

// Check is DAMAGED if files of the rows are not as they were sealed. It changes nothing, and
// what lies within a table it does not read.
func (s Seal) Check(dir string) error {
	if err := s.checkTables(dir); err != nil {
		return err
	}
	return s.checkMemTables(dir)
}

// checkMemTables: what was synced to a memtable file that is still there must be
// there still, every entry with its checksum.
func (s Seal) checkMemTables(dir string) error {
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
			return damaged("%s is whole for %d bytes only, and %d were synced", filepath.Join(dir, sealed.Name), found.Length, sealed.Length)
		}
	}
	return nil
}

// checkTables: the MANIFEST names tables as new as the sealed ones, and each is
// there with a whole index. Badger would delete tables that a shortened MANIFEST
// does not name, and crash on an index that is not whole.
func (s Seal) checkTables(dir string) error {
	path := filepath.Join(dir, badger.ManifestFilename)
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return damaged("%s is missing", path)
	}
	if err != nil {
		return durable.Error("open the state", err)
	}
	defer f.Close()
	manifest, _, err := badger.ReplayManifestFile(f, 0, badger.Options{})
	if err != nil {
		return damaged("%s cannot be read: %v", path, err)
	}
	var newest uint64
	for id := range manifest.Tables {
		newest = max(newest, id)
		path := table.NewFilename(id, dir)
		sum, err := checkTable(path)
		if err != nil {
			return err
		}
		if sealed, known := s.Tables[id]; known && sum != sealed {
			return damaged("%s is not the table that was synced", path)
		}
	}
	if newest < s.Table {
		return damaged("%s ends at table %d, and table %d was synced", path, newest, s.Table)
	}
	return nil
}

// checkMarkers looks for the last markers, all of them, and for ever sparser ones
// before: those have long been in tables, which are checked by themselves.
func (s Seal) checkMarkers(db *badger.DB) error {
	const all = 256
	txn := db.NewTransactionAt(ownVersion, false)
	defer txn.Discard()
	for back := uint64(0); back < s.Markers; {
		number := s.Markers - back
		marker, err := txn.Get(markerKey(number))
		if err != nil {
			return damaged("rows that were synced are gone: marker %d of %d: %v", number, s.Markers, err)
		}
		err = marker.Value(func(owner []byte) error {
			if string(owner) != s.Owner {
				return damaged("a file is of another node: marker %d of %d is not the one that was written", number, s.Markers)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if back < all {
			back++
		} else {
			back *= 2
		}
	}
	return nil
}

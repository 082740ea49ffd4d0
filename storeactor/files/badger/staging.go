package badger

import (
	"crypto/rand"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/ristretto/v2/z"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/files/durable"
)

const (
	stagedMemTable  = 8 << 20   // bytes; rows do not pass through it
	stagedTable     = 256 << 10 // bytes at the first level; at the last one, where rows go, 32 times that
	stagedBuffer    = 1 << 20   // bytes of rows handed on at once
	stagedRoom      = 256 << 20 // bytes that must be free: those of tables under way, twice over
	stagedTombstone = 1         // Badger's mark of a deletion, as in its backups
)

// That is room for two tables of the last level at least.
const _ = uint(stagedRoom - 2*32*stagedTable - stagedBuffer)

// Staging is an engine in the making, whose rows come in order: they go
// straight into tables of the last level (Badger's StreamWriter).
//
// The StreamWriter refuses all that comes behind rows out of order or a table that
// cannot be made, and does not say which rows; so both are kept from it.
type Staging struct {
	dir    string
	db     *badger.DB
	writer *badger.StreamWriter
	buffer *z.Buffer
	last   disk.Cursor // the last row that was written
	closed bool        // sealed or dropped
	failed error       // the first one; only Drop is left then
}

// Stage begins an engine in a directory of its own, in place of what
// is there.
func Stage(dir string, logger *slog.Logger) (*Staging, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, durable.Error("remove an unfinished state", err)
	}
	if err := durable.MakeDirectory(dir); err != nil {
		return nil, durable.Error("stage a state", err)
	}
	options := engineOptions(dir, logger).WithMemTableSize(stagedMemTable).WithBaseTableSize(stagedTable)
	db, err := badger.OpenManaged(options)
	if err != nil {
		return nil, durable.Error("stage a state", err)
	}
	s := &Staging{dir: dir, db: db, writer: db.NewStreamWriter(), buffer: newStagedBuffer()}
	if err := s.writer.Prepare(); err != nil {
		return nil, errors.Join(durable.Error("stage a state", err), s.Drop())
	}
	return s, nil
}

func newStagedBuffer() *z.Buffer {
	return z.NewBuffer(2*stagedBuffer, "staging")
}

// Write adds rows, in order of keys and, within a key, of falling revisions.
func (s *Staging) Write(rows []disk.Row) error {
	if s.failed == nil && s.closed {
		s.failed = messages.Errorf(messages.Code_INTERNAL, "the staged state is closed")
	}
	if s.failed == nil {
		s.failed = disk.CheckRows(rows)
	}
	for _, r := range rows {
		if s.failed != nil {
			break
		}
		s.failed = s.add(r)
	}
	return s.failed
}

func (s *Staging) add(r disk.Row) error {
	if !s.last.Before(r) {
		return messages.Errorf(messages.Code_INVALID, "row %q at revision %d comes behind %q at %d", r.Key, r.Revision, s.last.Key, s.last.Revision)
	}
	s.last = disk.Cursor{Key: append(s.last.Key[:0], r.Key...), Revision: r.Revision}
	kv := &pb.KV{Key: userKey(r.Key), Version: r.Revision}
	if r.Deleted {
		kv.Meta = []byte{stagedTombstone}
	} else {
		kv.Value = encodeValue(&r)
	}
	badger.KVToBuffer(kv, s.buffer)
	if s.buffer.LenNoPadding() < stagedBuffer {
		return nil
	}
	return s.pass()
}

// pass hands on what is in the buffer, which the writer has copied when it returns.
func (s *Staging) pass() error {
	if err := durable.CheckRoom("stage a state", s.dir, stagedRoom); err != nil {
		return err
	}
	if err := s.writer.Write(s.buffer); err != nil {
		return durable.Error("stage a state", err)
	}
	s.buffer.Reset()
	return nil
}

// Seal makes all of it durable and closes it. The engine opens against the seal.
//
// A marker is written last, whose table is the last one that the MANIFEST names:
// so a MANIFEST that was cut short does not reach the seal, whatever it lost.
func (s *Staging) Seal() (Seal, error) {
	if s.failed == nil && s.closed {
		s.failed = messages.Errorf(messages.Code_INTERNAL, "the staged state is closed")
	}
	if s.failed == nil {
		s.failed = s.pass()
	}
	if s.failed != nil {
		return Seal{}, s.failed
	}
	if err := s.writer.Flush(); err != nil {
		s.failed = durable.Error("stage a state", err)
		return Seal{}, s.failed
	}
	s.closed = true
	s.release()
	owner := rand.Text()
	engine := &Engine{db: s.db, dir: s.dir, owner: owner}
	if s.failed = errors.Join(engine.Sync(), engine.Close()); s.failed != nil {
		return Seal{}, s.failed
	}
	seal := Seal{Markers: engine.seal.Markers, Owner: owner}
	if s.failed = seal.addNamed(s.dir); s.failed == nil {
		s.failed = durable.SyncDirectory(s.dir)
	}
	return seal, s.failed
}

// addNamed seals all tables that the MANIFEST names.
func (s *Seal) addNamed(dir string) error {
	f, err := os.Open(filepath.Join(dir, badger.ManifestFilename))
	if err != nil {
		return durable.Error("read the state", err)
	}
	defer f.Close()
	manifest, _, err := badger.ReplayManifestFile(f, 0, badger.Options{})
	if err != nil {
		return durable.Error("read the state", err)
	}
	ids := slices.Collect(maps.Keys(manifest.Tables))
	for _, id := range ids {
		s.Table = max(s.Table, id)
	}
	return s.addTables(dir, ids, Seal{}, func(uint64) bool { return true })
}

// Drop lets go of the files and removes them where they were made.
func (s *Staging) Drop() error {
	if !s.closed {
		s.closed = true
		s.writer.Cancel()
		s.release()
		// What it says of rows that nobody wants does not matter.
		_ = s.db.Close()
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return durable.Error("remove a staged state", err)
	}
	return nil
}

func (s *Staging) release() {
	// It is memory of our own, which cannot fail to go.
	_ = s.buffer.Release()
	s.buffer = nil
}

package disk

import (
	"bytes"

	"keyval/messages"
)

// View reads user data as of a revision; see Engine.
type View interface {
	Get(key []byte, revision uint64) (Row, bool, error)
	Scan(from, to []byte, revision uint64, reverse bool, yield func(Row) bool) error
}

// Bounds of a row, in bytes. They are Badger's, which would keep longer values
// apart from their keys; HeadBytesMax are left for what an engine keeps with a value.
const (
	KeyBytesMax   = 65_000 - 1
	ValueBytesMax = 1<<20 - 1 - HeadBytesMax
	HeadBytesMax  = 32
)

// What a command may hold fits a row.
const (
	_ = uint(KeyBytesMax - messages.KeySizeMax)
	_ = uint(ValueBytesMax - messages.ValueSizeMax)
)

// CheckRows refuses as INVALID what no engine takes.
func CheckRows(rows []Row) error {
	for _, r := range rows {
		switch {
		case r.Revision == 0:
			return messages.Errorf(messages.Code_INVALID, "a row has no revision")
		case len(r.Key) > KeyBytesMax:
			return messages.Errorf(messages.Code_INVALID, "a key of %d bytes is above the bound of %d", len(r.Key), KeyBytesMax)
		case len(r.Value) > ValueBytesMax:
			return messages.Errorf(messages.Code_INVALID, "a value of %d bytes is above the bound of %d", len(r.Value), ValueBytesMax)
		}
	}
	return nil
}

// Engine is multi-version user data: at most one version of a key a revision.
// One writer; any number of readers beside it, at revisions already written.
type Engine interface {
	// Write adds versions; readable on return, durable after a Sync. The caller uses
	// the slice again; keys and values need no copy, since they are parts of entries,
	// which nobody modifies. Revisions never go down from one call to the next, except
	// that replay after a restart writes once more what is there.
	Write(rows []Row) error
	// What is read is held against its checksum: a row that is not what was written
	// is never handed out, the error is a *Rot.
	//
	// Get finds the newest version of key at or below revision. It reports false
	// if there is none or if that one is a deletion.
	Get(key []byte, revision uint64) (Row, bool, error)
	// Scan calls yield with the newest live version at or below revision of every
	// key of [from, to) in order, until it returns false. An empty to has no end;
	// reverse starts at the end. A Row's slices are the callee's until it returns.
	Scan(from, to []byte, revision uint64, reverse bool, yield func(Row) bool) error
	// Export calls yield with the rows of a snapshot: of every key the versions
	// above floor up to revision, and the newest at or below floor unless that is a
	// deletion; in order of keys and, within a key, of falling revisions. It begins
	// behind the version that after names, which need not be there any more. A Row's
	// slices are the callee's until yield returns.
	Export(after Cursor, floor, revision uint64, yield func(Row) bool) error
	// Sync makes all rows written before the call durable. It may be called
	// beside a Write.
	Sync() error
	// Discard says that nobody will read below floor any more, now or after a
	// restart: versions that only such reads could see may go at any time. A floor
	// below an earlier one changes nothing. It is not kept over a restart.
	Discard(floor uint64)
	// Reclaim gives back the space of what was discarded. It takes long, beside
	// everything else; Close ends it.
	Reclaim() error
	// Size is about how many bytes of disk the rows take.
	Size() int64
	Close() error
}

// Cursor is a place behind one version of a key; the zero Cursor is the start.
type Cursor struct {
	Key      []byte
	Revision uint64
}

// Before reports whether a row may come behind the cursor.
func (c Cursor) Before(r Row) bool {
	order := bytes.Compare(c.Key, r.Key)
	return order < 0 || order == 0 && (c.Revision == 0 || r.Revision < c.Revision)
}

package badger

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/y"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/files/durable"
)

const (
	memTableBytes  = 32 << 20  // bytes of rows and their index
	memTablesMax   = 2         // that may wait to become tables
	tablesDue      = 3         // of the first level: from here they are compacted
	tablesMax      = 4         // of the first level: no more; see Discard for why not
	tableBytes     = 4 << 20   // bytes of a table, at the first level that is in order
	levelBytes     = 128 << 20 // bytes of that level
	valueLogBytes  = 2 << 20   // bytes; there are none in it
	markEveryBytes = 8 << 20   // bytes of rows between markers
)

// Every memtable holds markers. The first level is compacted before it stalls.
const (
	_ = uint(memTableBytes - 2*markEveryBytes)
	_ = uint(tablesMax - tablesDue - 1)
)

// engineOptions: memory goes to memtables (one in use, one being made a table,
// those that wait), and to the builders of tables, which keep what the largest
// table took. Checksums are verified when a table is opened; later it is mapped.
func engineOptions(dir string, logger *slog.Logger) badger.Options {
	return badger.DefaultOptions(dir).
		WithSyncWrites(false).
		WithDetectConflicts(false).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithMetricsEnabled(false).
		WithMemTableSize(memTableBytes).
		WithNumMemtables(memTablesMax).
		WithNumLevelZeroTables(tablesDue).
		WithNumLevelZeroTablesStall(tablesMax).
		WithBaseTableSize(tableBytes).
		WithBaseLevelSize(levelBytes).
		WithNumCompactors(2).
		WithValueThreshold(disk.ValueBytesMax + disk.HeadBytesMax + 1).
		WithValueLogFileSize(valueLogBytes).
		WithNumVersionsToKeep(1).
		WithChecksumVerificationMode(options.OnTableRead).
		WithBypassLockGuard(true). // the directory has a lock of its own
		WithLogger(logAdapter{logger: logger})
}

// Open opens the rows and holds them against the seal of the checkpoint
// that replay will start from: first the files, which Badger would silently cut
// short or delete, then the markers that a lost file would have taken along.
func Open(dir string, seal Seal, logger *slog.Logger) (*Engine, error) {
	if err := seal.Check(dir); err != nil {
		return nil, err
	}
	if err := dropEmptyFiles(dir); err != nil {
		return nil, err
	}
	e := &Engine{dir: dir, owner: seal.Owner, markers: seal.Markers, marked: true, seal: seal}
	e.flattening.stop = &e.closed
	options := engineOptions(dir, logger).WithLogger(logAdapter{logger, e.flattening.says})
	var err error
	if e.db, err = openBadger(options); err != nil {
		return nil, err
	}
	if err := e.reading("open the state", func() error { return seal.checkMarkers(e.db) }); err != nil {
		e.db.Close()
		return nil, err
	}
	return e, nil
}

// dropEmptyFiles removes files that a power cut left with a name and not a byte,
// over which Badger would not open. Where a byte was lost, the markers tell.
func dropEmptyFiles(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if suffix := filepath.Ext(e.Name()); suffix != memSuffix && suffix != ".vlog" {
			continue
		}
		info, infoErr := e.Info()
		if infoErr == nil && info.Size() == 0 {
			infoErr = os.Remove(filepath.Join(dir, e.Name()))
		}
		err = errors.Join(err, infoErr)
	}
	if err != nil {
		return durable.Error("open the state", err)
	}
	return nil
}

func openBadger(options badger.Options) (db *badger.DB, err error) {
	dir := options.Dir
	// Badger panics on some damaged files.
	defer func() {
		if r := recover(); r != nil {
			db, err = nil, damaged("%s cannot be opened: %v", dir, r)
		}
	}()
	err = y.CatchFault("open the state", func() (err error) {
		db, err = badger.OpenManaged(options)
		return err
	})
	fault := (*y.Fault)(nil)
	switch {
	case err == nil:
		return db, nil
	case durable.Refused(err), errors.As(err, &fault):
		return nil, refused("open the state", oneLine{err})
	case strings.Contains(err.Error(), discardName):
		return nil, messages.Errorf(messages.Code_INTERNAL, "cannot open the state: %s is unreadable: %v", filepath.Join(dir, discardName), oneLine{err}).
			WithHint("it holds nothing that is needed: move that file away and start again")
	}
	return nil, damaged("%s cannot be opened: %v", dir, oneLine{err})
}

// discardName is the file in which Badger counts what its value log could give back.
// Here no value is in that log, so nothing is lost with it: Badger makes a new one.
const discardName = "DISCARD"

func damaged(format string, args ...any) *messages.Error {
	return messages.Errorf(messages.Code_DAMAGED, "the state is damaged: "+format, args...).
		WithHint("the other nodes serve on without this one: %s", disk.RebuildHint)
}

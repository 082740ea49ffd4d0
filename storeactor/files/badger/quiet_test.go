package badger

import (
	"errors"
	"log/slog"

	"github.com/dgraph-io/badger/v4"

	"keyval/storeactor/files/durable"
)

var quiet = slog.New(slog.DiscardHandler)

// create makes an engine without rows and without a marker, so that tests count from
// zero what they write. One of a node begins as a staging without rows.
func create(dir string) error {
	if err := durable.MakeDirectory(dir); err != nil {
		return err
	}
	db, err := badger.OpenManaged(engineOptions(dir, quiet))
	if err != nil {
		return err
	}
	return errors.Join(db.Close(), durable.SyncDirectory(dir))
}

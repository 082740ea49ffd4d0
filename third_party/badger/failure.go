package badger

// This file is KeyVal's; see PATCHES.md.

import "errors"

// ErrUnreadable is in the chain of a failure that a table brought whose blocks
// cannot be read.
var ErrUnreadable = errors.New("a table cannot be read")

// Failure is the first thing that went wrong with a file of this DB; nil: nothing
// did. From then on the files stay as they are: nothing is flushed, compacted or
// written any more. What is opened anew from them has lost nothing that was synced.
func (db *DB) Failure() error {
	if first := db.failure.Load(); first != nil {
		return *first
	}
	return nil
}

// fail keeps the first failure, wakes all who wait for what will not come any more,
// and returns the failure that is kept.
func (db *DB) fail(err error) error {
	if err == nil {
		return nil
	}
	if !db.failure.CompareAndSwap(nil, &err) {
		return db.Failure()
	}
	db.opt.Errorf("nothing is written any more: %v", err)
	// The caller may hold either lock.
	go func() {
		db.lock.Lock()
		db.flushCond.Broadcast()
		db.lock.Unlock()
		if db.lc != nil {
			db.lc.levels[0].Lock()
			db.lc.levels[0].signalL0Drained()
			db.lc.levels[0].Unlock()
		}
	}()
	return err
}

// failUnreadable is what tables say.
func (db *DB) failUnreadable(err error) {
	db.fail(errors.Join(ErrUnreadable, err))
}

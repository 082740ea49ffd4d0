package backup

import (
	"bytes"
	"io"
	"slices"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/files"
)

// Rebuilt is what a Rebuild has made.
type Rebuilt struct {
	*Contents
	Kept  int    // entries of the log that stand behind the state
	Aside string // where that is which was replaced
}

// Rebuild gives a directory whose log and vote are sound the state of a member's snapshot in
// place of its own. What was there is set aside once the new state counts; until then an
// error changes nothing that counts.
//
// The node has acknowledged what its log holds, and counts for it in quorums: so the log
// stays, but for entries that the snapshot covers or contradicts. What the snapshot holds
// was committed, so it contradicts only what never was.
//
// Errors: CONFLICT for another cluster's snapshot, REMOVED if the node is no member in it,
// UNSAFE if it is older than the log, DAMAGED and UNSUPPORTED as of Read.
func Rebuild(from io.Reader, s *files.Salvage, told func(bytes uint64)) (*Rebuilt, error) {
	var at *messages.Checkpoint
	var staging disk.Staging
	contents, err := read(from, told, func(h *messages.SnapshotHeader, c *messages.Checkpoint) error {
		if err := suits(s, c); err != nil {
			return err
		}
		at = c
		var err error
		staging, err = s.Begin()
		return err
	}, func(rows []disk.Row) error { return staging.Write(rows) })
	if staging != nil {
		defer staging.Drop() // nothing, once it is installed
	}
	if err != nil {
		return nil, err
	}
	if err := staging.Inherit(&messages.Lineage{From: giversOf(contents.Header), Index: at.Index}); err != nil {
		return nil, err
	}
	if err := staging.Seal(at); err != nil {
		return nil, err
	}
	r := &Rebuilt{Contents: contents}
	if r.Kept, err = s.Install(at.Index, at.Term); err != nil {
		return nil, err
	}
	err = s.Prove(at, func(e disk.Engine) error { return sameRows(e, at, s.Dir, contents) })
	if err != nil {
		return nil, err
	}
	r.Aside, err = s.SetAside()
	return r, err
}

// suits is nil if a state may become that of the node.
func suits(s *files.Salvage, c *messages.Checkpoint) error {
	id := messages.RaftIDOf(s.Identity)
	switch own := slices.IndexFunc(c.Members, func(m *messages.Member) bool { return m.RaftId == id }); {
	case !bytes.Equal(c.ClusterId, s.Identity.ClusterId):
		return messages.Errorf(messages.Code_CONFLICT, "the snapshot is of cluster %x, %s belongs to cluster %x", c.ClusterId, s.Dir, s.Identity.ClusterId)
	case own < 0:
		return messages.Errorf(messages.Code_REMOVED, "%s is no member of cluster %x any more", s.Identity.Name, c.ClusterId).
			WithHint("%s", disk.RetiredHint)
	case !bytes.Equal(c.Members[own].Incarnation, s.Identity.Incarnation):
		return messages.Errorf(messages.Code_CONFLICT, "cluster %x knows %s with another data directory than %s", c.ClusterId, s.Identity.Name, s.Dir)
	}
	return s.Fits(c.Index, c.Term)
}

// giversOf is whose disk had the state before.
func giversOf(h *messages.SnapshotHeader) []uint64 {
	for _, m := range h.Members {
		if m.Name == h.CreatedBy {
			return []uint64{m.RaftId}
		}
	}
	return nil
}

// sameRows reads what a directory holds, and compares it with the snapshot it is from.
func sameRows(e disk.Engine, at *messages.Checkpoint, dir string, want *Contents) error {
	var found Tally
	err := e.Export(disk.Cursor{}, at.CompactedRevision, at.Revision, func(row disk.Row) bool {
		found.row(row)
		return true
	})
	if err != nil {
		return err
	}
	if found.Count != want.Rows.Count || !bytes.Equal(found.Sum(), want.Rows.Sum()) {
		return messages.Errorf(messages.Code_DAMAGED, "%s holds %d rows with hash %x, the backup %d with %x",
			dir, found.Count, found.Sum(), want.Rows.Count, want.Rows.Sum()).
			WithHint("check the disk, and use another")
	}
	return nil
}

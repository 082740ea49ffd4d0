package backup

import (
	"bytes"
	"cmp"
	"slices"

	"go.etcd.io/raft/v3/quorum"
	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/files"
	"keyval/storeactor/state"
)

// Surveyed is one directory of a survey.
type Surveyed struct {
	*files.Found
	Refused error // why it counts for nothing; nil: a node starts from it, as far as is seen
}

// Last is the index and term of the last entry of its log.
func (s *Surveyed) Last() (index, term uint64) { return s.Image.Last() }

// Survey is what directories of stopped nodes say together.
type Survey struct {
	Directories []Surveyed // in the order given
	Best        int        // whose log is the longest of those that hold all up to Commit; -1: none is of use
	Commit      uint64     // the highest index that one of them knows to be committed
	Members     []*messages.Member
	LogTimeMS   uint64 // of the best log's last entry

	// configurations are those that may hold: as of Commit in the best log, and as of each
	// change behind it.
	configurations []*raftpb.ConfState
}

// Judge holds what was found in directories of one cluster against each other. Errors:
// CONFLICT if they are of several clusters, or two of one member.
func Judge(found []Surveyed) (*Survey, error) {
	s := &Survey{Directories: found, Best: -1}
	for i := range found {
		d := &found[i]
		if d.Refused == nil {
			d.Refused = d.refused()
		}
		if d.Refused != nil {
			continue
		}
		for _, other := range found[:i] {
			switch {
			case other.Refused != nil:
			case !bytes.Equal(other.Identity.ClusterId, d.Identity.ClusterId):
				return nil, messages.Errorf(messages.Code_CONFLICT, "%s is of cluster %x, and %s of cluster %x", other.Dir, other.Identity.ClusterId, d.Dir, d.Identity.ClusterId)
			case messages.RaftIDOf(other.Identity) == messages.RaftIDOf(d.Identity):
				return nil, messages.Errorf(messages.Code_CONFLICT, "%s and %s are of one member, %s", other.Dir, d.Dir, d.Identity.Name).
					WithHint("one is a copy: leave the older out")
			}
		}
	}
	if s.choose(); s.Best < 0 {
		return s, nil
	}
	return s, s.configure(&found[s.Best])
}

// choose finds the best log: the longest of those that hold what any of them knows to be
// committed. A log may be longer and lack that: with a later term's entries that were never
// committed.
func (s *Survey) choose() {
	knows := -1
	for i, d := range s.Directories {
		if d.Refused == nil && (knows < 0 || d.Image.HardState.GetCommit() > s.Commit) {
			knows, s.Commit = i, d.Image.HardState.GetCommit()
		}
	}
	for i := range s.Directories {
		d := &s.Directories[i]
		if d.Refused == nil && holds(d.Image, s.Directories[knows].Image, s.Commit) && (s.Best < 0 || longer(d, &s.Directories[s.Best])) {
			s.Best = i
		}
	}
}

// holds reports whether a log has the entry of another one at an index that is committed.
// Below its base everything was.
func holds(i, other *disk.LogImage, index uint64) bool {
	if index < i.BaseIndex {
		return true
	}
	term, held := termAt(i, index)
	want, known := termAt(other, index)
	return held && known && term == want
}

func termAt(i *disk.LogImage, index uint64) (term uint64, held bool) {
	last, _ := i.Last()
	switch {
	case index < i.BaseIndex || index > last:
		return 0, false
	case index == i.BaseIndex:
		return i.BaseTerm, true
	}
	return i.Entries[index-i.BaseIndex-1].GetTerm(), true
}

func (s *Surveyed) refused() error {
	switch {
	case s.Condemned != "":
		return messages.Errorf(messages.Code_DAMAGED, "it was condemned: %s", s.Condemned)
	case s.Unread != nil:
		return s.Unread
	case s.Checkpoint.Index < s.Image.BaseIndex:
		return disk.Damaged("the log of %s begins behind entry %d, and its checkpoint is of entry %d", s.Dir, s.Image.BaseIndex, s.Checkpoint.Index)
	}
	return s.Sound()
}

// longer reports whether a log goes on further than another: raft's order.
func longer(a, b *Surveyed) bool {
	aIndex, aTerm := a.Last()
	bIndex, bTerm := b.Last()
	order := cmp.Or(cmp.Compare(aTerm, bTerm), cmp.Compare(aIndex, bIndex), cmp.Compare(a.Image.HardState.GetCommit(), b.Image.HardState.GetCommit()))
	return order > 0
}

// nothing is a store without rows: members do not depend on any.
type nothing struct{}

func (nothing) Get([]byte, uint64) (disk.Row, bool, error) { return disk.Row{}, false, nil }
func (nothing) Scan(_, _ []byte, _ uint64, _ bool, _ func(disk.Row) bool) error {
	return nil
}
func (nothing) Write([]disk.Row) error { return nil }

func (s *Survey) configure(best *Surveyed) error {
	c, err := state.FromCheckpoint(best.Checkpoint, messages.Level)
	if err != nil {
		return err
	}
	s.configurations = []*raftpb.ConfState{c.ConfState()}
	b := state.NewBatch(nothing{})
	for _, e := range best.Image.Entries {
		if e.GetIndex() <= c.Index() {
			continue
		}
		if err := c.Apply(b, e); err != nil {
			return err
		}
		if err := b.Flush(); err != nil {
			return err
		}
		b.Clear()
		if last := len(s.configurations) - 1; s.configurations[last] != c.ConfState() {
			if e.GetIndex() <= s.Commit { // those before hold no more
				s.configurations = nil
			}
			s.configurations = append(s.configurations, c.ConfState())
		}
	}
	s.Members, s.LogTimeMS = c.Members(), c.LogTimeMS()
	return nil
}

// Usable are the RaftIDs of directories that a node starts from.
func (s *Survey) Usable() (ids []uint64) {
	for _, d := range s.Directories {
		if d.Refused == nil {
			ids = append(ids, messages.RaftIDOf(d.Identity))
		}
	}
	return ids
}

// Quorum reports whether these members are one: then what they have is all there is, and
// no recovery is needed.
func (s *Survey) Quorum(present []uint64) bool {
	votes := map[uint64]bool{}
	for _, id := range present {
		votes[id] = true
	}
	return slices.ContainsFunc(s.configurations, func(c *raftpb.ConfState) bool {
		joint := quorum.JointConfig{majority(c.Voters), majority(c.VotersOutgoing)}
		return joint.VoteResult(votes) == quorum.VoteWon
	})
}

func majority(ids []uint64) quorum.MajorityConfig {
	m := quorum.MajorityConfig{}
	for _, id := range ids {
		m[id] = struct{}{}
	}
	return m
}

// Absent are the members without one of these ids.
func (s *Survey) Absent(present []uint64) (absent []*messages.Member) {
	for _, m := range s.Members {
		if !slices.Contains(present, m.RaftId) {
			absent = append(absent, m)
		}
	}
	return absent
}

// Package state is all replicated state that is not user data, and the rules by which
// an entry changes it. It knows no actor, no disk and no clock.
package state

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"
	"go.etcd.io/raft/v3/raftpb"

	"keyval/actors/auth"
	"keyval/messages"
	"keyval/mutant"
	"keyval/storeactor/disk"
)

// State is all replicated state that is not user data, as of one index, and the
// rules by which an entry changes it. The same checkpoint and the same entries
// give the same State, rows and outcomes on every replica, whatever part of the
// rows an engine holds already.
type State struct {
	clusterID   []byte
	founders    []*messages.Founder // with token, what clusterID follows from
	token       string
	index       uint64            // of the last applied entry
	term        uint64            // of that entry
	revision    uint64            // of the last command that changed a row; 0: none has
	logTimeMS   uint64            // never goes back
	level       uint32            // of the cluster; never goes back, never above supports
	supports    uint32            // the highest level that this replica understands; not replicated
	conf        *raftpb.ConfState // replaced, never modified
	members     []*messages.Member
	nextRaftID  uint64
	confIndex   uint64                       // of the entry that changed members or conf last
	operations  []*messages.ClusterOperation // replaced, never modified
	healing     *messages.Healing            // nil: it was never written
	backups     []*messages.BackupJob        // by name; replaced, never modified
	auth        *messages.Auth               // replaced, never modified; nil: it was never written
	invitations *messages.Invitations        // the same
	forgetsMS   uint64                       // after this log time the first ended operation is forgotten
	compacted   uint64                       // revision
	history     uint64                       // Checkpoint.history_hash
	sessions    *sessions

	// Of the entry under way, here so that nothing is allocated for it:
	hash    xxhash.Digest // begun with history
	noted   [3 * 8]byte
	entry   commands
	command command
}

// Index is that of the last applied entry.
func (s *State) Index() uint64 { return s.index }

// Term is that of the last applied entry.
func (s *State) Term() uint64 { return s.term }

// Revision is that of the last command that changed a row, 0 before the first.
func (s *State) Revision() uint64 { return s.revision }

// LogTimeMS never goes back.
func (s *State) LogTimeMS() uint64 { return s.logTimeMS }

// History is the hash of all entries.
func (s *State) History() uint64 { return s.history }

// Level is that of the cluster.
func (s *State) Level() uint32 { return s.level }

// Compacted is the revision below which history was given up.
func (s *State) Compacted() uint64 { return s.compacted }

// Sessions is how many sessions are remembered.
func (s *State) Sessions() int { return len(s.sessions.rows) }

// Members are the State's own; ClusterID and ConfState likewise.
func (s *State) Members() []*messages.Member { return s.members }

// ClusterID follows from the founders and the token.
func (s *State) ClusterID() []byte { return s.clusterID }

// ConfState is never modified.
func (s *State) ConfState() *raftpb.ConfState { return s.conf }

// Apply carries out the entry behind the last one. What it asks of the world is
// added to b. Errors are the store's, and UNSUPPORTED where the entry needs newer
// software; the state is not to be used after one.
func (s *State) Apply(b *Batch, e *raftpb.Entry) error {
	if e.GetIndex() != s.index+1 {
		panic(fmt.Sprintf("entry %d was to be applied behind entry %d", e.GetIndex(), s.index))
	}
	change, err := confChange(e)
	if err != nil {
		return err
	}
	s.hash.Reset()
	s.note(s.history, e.GetIndex(), s.revision)
	if change != nil {
		err = s.applyChange(b, e.GetIndex(), change)
	} else {
		err = s.applyCommands(b, e.GetIndex(), e.GetData())
	}
	if err != nil {
		return err
	}
	s.index, s.term, s.history = e.GetIndex(), e.GetTerm(), s.hash.Sum64()
	return nil
}

func (s *State) applyCommands(b *Batch, index uint64, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if err := s.begin(b, index, data); err != nil {
		return err
	}
	for i := range s.entry.proposals {
		if err := s.settle(b, index, &s.entry.proposals[i]); err != nil {
			return err
		}
		if s.level > s.supports {
			return s.tooOld(index, s.level)
		}
	}
	return nil
}

// begin reads the commands of an entry and takes the leader's stamps.
func (s *State) begin(b *Batch, index uint64, data []byte) error {
	if !s.entry.read(data) {
		return messages.Errorf(messages.Code_DAMAGED, "entry %d of the log does not hold commands", index)
	}
	if s.entry.level > s.supports {
		return s.tooOld(index, s.entry.level)
	}
	s.logTimeMS = max(s.logTimeMS, s.entry.logTimeMS)
	s.sessions.advance(s.logTimeMS)
	if s.logTimeMS > s.forgetsMS {
		s.forget(b)
	}
	return nil
}

// tooOld ends a replica that cannot go on. It keeps all that it has.
func (s *State) tooOld(index uint64, level uint32) error {
	return messages.Errorf(messages.Code_UNSUPPORTED,
		"entry %d of the log needs level %d, and this replica understands %d: it is too old and stops",
		index, level, s.supports).WithHint("start a newer version on this data directory; nothing of it is lost")
}

// settle carries out one proposal.
func (s *State) settle(b *Batch, index uint64, p *proposal) error {
	before, compacted := len(b.Rows), s.compacted
	o, err := s.decide(b, index, p.principal, p.command)
	if err != nil {
		return err
	}
	b.Settled = append(b.Settled, Settled{Origin: p.origin, Client: s.command.session, Principal: p.principal, outcome: o})
	s.noteOutcome(s.command.session, &o)
	for i := before; i < len(b.Rows); i++ {
		s.noteRow(&b.Rows[i])
	}
	if s.compacted != compacted {
		s.note(notedCompaction, s.compacted, 0)
	}
	return b.spill()
}

// decide executes a command of a principal, or refuses or repeats it.
func (s *State) decide(b *Batch, index uint64, principal, data []byte) (outcome, error) {
	c := &s.command
	refused := func(code messages.Code) (outcome, error) {
		return outcome{seq: c.seq, code: code, revision: s.revision}, nil
	}
	switch {
	case !c.read(data):
		return refused(messages.Code_INVALID)
	case !c.admitted(s.level):
		return refused(messages.Code_UNSUPPORTED)
	case len(data) > messages.CommandSizeMax || !c.valid(s.logTimeMS):
		return refused(messages.Code_INVALID)
	}
	if c.ofMembers() {
		return outcome{code: messages.CodeOf(s.carryOut(b, index, c)), revision: s.revision}, nil
	}
	if c.ofNode() {
		return s.execute(b, c, NodeCompaction)
	}
	row, answer := s.sessions.admit(c, principal, s.logTimeMS, s.revision)
	if row == nil {
		return answer, nil
	}
	o, err := outcome{seq: c.seq, code: messages.Code_NOT_ALLOWED, revision: s.revision}, error(nil)
	if s.allows(principal, c) {
		if o, err = s.execute(b, c, ClientCompaction); err != nil {
			return outcome{}, err
		}
	}
	s.sessions.record(row, o)
	return o, nil
}

// allows reports whether a principal may do all that is in a command, now: rights count as of
// the entry that holds it, whatever they were when it was proposed.
func (s *State) allows(principal []byte, c *command) bool {
	if !s.auth.GetEnabled() || mutant.AllowedAtPropose {
		return true
	}
	rights := auth.Of(s.auth, string(principal))
	for i := range c.conditions {
		if n := &c.conditions[i]; !rights.Allow(auth.OfCondition(n.key, n.to)) {
			return false
		}
	}
	for _, branch := range [...][]operation{c.operations, c.otherwise} {
		for i := range branch {
			if o := &branch[i]; !rights.Allow(auth.OfOperation(o.kind, o.key, o.to)) {
				return false
			}
		}
	}
	return true
}

// raiseLevel raises the level if all is as it was when the members were asked. From here
// on entries may hold what only newer software understands.
func (s *State) raiseLevel(b *Batch, m *messages.RaiseLevel) *messages.Error {
	switch {
	case m.To <= m.From:
		return messages.Errorf(messages.Code_INVALID, "the level is not raised from %d to %d", m.From, m.To)
	case s.level >= m.To:
		return nil
	case s.level != m.From || !slices.Equal(messages.RaftIDs(s.members), m.Members):
		return messages.Errorf(messages.Code_CONFLICT, "the level is %d, or other members were asked", s.level)
	}
	s.level, b.MembersChanged = m.To, true
	return nil
}

// execute carries out a valid command: its operations, or otherwise. It takes the
// next revision if it changes a row, and all its rows share it; else it answers with
// the revision that it saw.
//
// That a compaction is of the future is known only here: it is an outcome like any
// other, so that the same command does not take effect later.
func (s *State) execute(b *Batch, c *command, by Compaction) (outcome, error) {
	o := outcome{seq: c.seq, revision: s.revision}
	failed, within, err := b.failing(c.conditions, s.revision+1)
	if err != nil {
		return outcome{}, err
	}
	operations := c.operations
	if failed > 0 {
		operations, o.failed = c.otherwise, uint32(failed)
	}
	compacted := uint64(0)
	for i := range operations {
		compacted = max(compacted, operations[i].revision)
	}
	switch {
	case !within || compacted > s.revision:
		o.code, o.failed = messages.Code_INVALID, 0
		return o, nil
	case failed > 0 && len(operations) == 0:
		o.code = messages.Code_CONFLICT
		return o, nil
	}
	rows := len(b.Rows)
	if o.deleted, o.more, err = b.execute(operations, s.revision+1); err != nil {
		return outcome{}, err
	}
	if len(b.Rows) > rows {
		s.revision++
	}
	o.revision = s.revision
	if compacted > 0 && compacted >= s.compacted { // below there is nothing to give up
		if compacted > s.compacted {
			b.GivenUp = GivenUp{Below: compacted, Client: bytes.Clone(c.session), Seq: c.seq}
		}
		s.compacted = compacted
		b.Compaction = max(b.Compaction, by)
	}
	return o, nil
}

// What a note begins with that is of no row; a row's begins with less.
const (
	notedCompaction = 2 // of what is given up now
	notedMembers    = 3 // of what a command or the time changed of members or operations
)

// note adds three numbers to the history hash.
func (s *State) note(a, b, c uint64) {
	binary.LittleEndian.PutUint64(s.noted[0:], a)
	binary.LittleEndian.PutUint64(s.noted[8:], b)
	binary.LittleEndian.PutUint64(s.noted[16:], c)
	s.hash.Write(s.noted[:])
}

func (s *State) noteOutcome(session []byte, o *outcome) {
	more := uint64(0)
	if o.more {
		more = 1
	}
	s.note(uint64(o.code), o.revision, o.deleted)
	s.note(o.seq, more|uint64(o.failed)<<1, uint64(len(session)))
	s.hash.Write(session)
}

func (s *State) noteRow(r *disk.Row) {
	kind := uint64(0)
	if r.Deleted {
		kind = 1
	}
	s.note(kind, uint64(len(r.Key)), uint64(len(r.Value)))
	s.note(r.Revision, r.Created, r.Version)
	s.hash.Write(r.Key)
	s.hash.Write(r.Value)
}

package storeactor

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"
	"go.etcd.io/raft/v3/confchange"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
)

// State is all replicated state that is not user data, as of one index, and the
// rules by which an entry changes it. The same checkpoint and the same entries
// give the same State, rows and outcomes on every replica, whatever part of the
// rows an engine holds already.
type State struct {
	clusterID  []byte
	founders   []*messages.Founder // with token, what clusterID follows from
	token      string
	index      uint64 // of the last applied entry
	term       uint64 // of that entry
	revision   uint64 // of the last command: each takes one, whatever becomes of it
	logTimeMS  uint64 // never goes back
	level      uint32
	conf       *raftpb.ConfState // replaced, never modified
	members    []*messages.Member
	nextRaftID uint64
	compacted  uint64 // revision
	history    uint64 // Checkpoint.history_hash
	sessions   *sessions

	// Of the entry under way, here so that nothing is allocated for it:
	hash    xxhash.Digest // begun with history
	noted   [3 * 8]byte
	entry   commands
	command command
}

// FromCheckpoint makes the State that a checkpoint holds. Errors: UNSUPPORTED if
// newer software wrote it, DAMAGED if it contradicts itself.
func FromCheckpoint(c *messages.Checkpoint) (*State, error) {
	return restore(c, sessionBounds{sessions: SessionsMax, bytes: SessionBytesMax, window: SessionWindow})
}

func restore(c *messages.Checkpoint, bounds sessionBounds) (*State, error) {
	if c.Format > disk.CheckpointFormat || c.Level > messages.Level {
		return nil, messages.Errorf(messages.Code_UNSUPPORTED,
			"the checkpoint has format %d and level %d, newer than this version's %d and %d",
			c.Format, c.Level, disk.CheckpointFormat, messages.Level).WithHint("start the version that wrote it, or a newer one")
	}
	s := &State{
		clusterID:  c.ClusterId,
		founders:   c.Founders,
		token:      c.Token,
		index:      c.Index,
		term:       c.Term,
		revision:   c.Revision,
		logTimeMS:  c.LogTimeMs,
		level:      c.Level,
		conf:       c.ConfState,
		members:    c.Members,
		nextRaftID: c.NextRaftId,
		compacted:  c.CompactedRevision,
		history:    c.HistoryHash,
		sessions:   newSessions(bounds),
	}
	if s.conf == nil {
		s.conf = &raftpb.ConfState{}
	}
	for _, row := range c.Sessions {
		if err := s.restoreSession(row); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *State) restoreSession(row *messages.Session) error {
	if len(row.Client) != messages.ClientIDSize {
		return messages.Errorf(messages.Code_DAMAGED, "the checkpoint at index %d has a session with a ClientID of %d bytes", s.index, len(row.Client))
	}
	if _, twice := s.sessions.rows[clientID(row.Client)]; twice {
		return messages.Errorf(messages.Code_DAMAGED, "the checkpoint at index %d has session %x twice", s.index, row.Client)
	}
	r := &session{
		client:       clientID(row.Client),
		ttlMS:        row.TtlMs,
		activeMS:     row.ActiveMs,
		ackedBelow:   row.AckedBelow,
		openBeforeMS: row.OpenBeforeMs,
		kept:         outcomes{all: make([]outcome, 0, len(row.Outcomes))},
	}
	for _, o := range row.Outcomes {
		r.kept.insert(outcome{seq: o.Seq, code: o.Code, revision: o.Revision, deleted: o.Deleted, more: o.More})
	}
	s.sessions.add(r, s.logTimeMS)
	return nil
}

// Checkpoint is the whole state. It shares nothing that a later entry changes.
// Equal states have equal checkpoints.
func (s *State) Checkpoint() *messages.Checkpoint {
	return &messages.Checkpoint{
		Format:            disk.CheckpointFormat,
		ClusterId:         s.clusterID,
		Index:             s.index,
		Term:              s.term,
		Revision:          s.revision,
		LogTimeMs:         s.logTimeMS,
		Level:             s.level,
		ConfState:         s.conf,
		Members:           slices.SortedFunc(slices.Values(s.members), byRaftID),
		Sessions:          s.sessions.checkpoint(),
		NextRaftId:        s.nextRaftID,
		CompactedRevision: s.compacted,
		HistoryHash:       s.history,
		Founders:          s.founders,
		Token:             s.token,
	}
}

func byRaftID(a, b *messages.Member) int { return cmp.Compare(a.RaftId, b.RaftId) }

// checkpoint copies all sessions in few, large pieces: it is made between two
// entries, and there may be many sessions.
func (t *sessions) checkpoint() []*messages.Session {
	rows := make([]messages.Session, len(t.rows))
	kept := make([]messages.Outcome, t.kept)
	keptAt := make([]*messages.Outcome, t.kept)
	list := make([]*messages.Session, len(t.rows))
	ids := make([]byte, 0, len(t.rows)*messages.ClientIDSize)
	for i, s := range t.sorted() {
		ids = append(ids, s.client[:]...)
		n := s.kept.len()
		for j, o := range s.kept.list() {
			o.fill(&kept[j])
			keptAt[j] = &kept[j]
		}
		row := &rows[i]
		row.Client = ids[len(ids)-messages.ClientIDSize : len(ids) : len(ids)]
		row.TtlMs, row.ActiveMs = s.ttlMS, s.activeMS
		row.AckedBelow, row.OpenBeforeMs = s.ackedBelow, s.openBeforeMS
		row.Outcomes = keptAt[:n:n]
		kept, keptAt = kept[n:], keptAt[n:]
		list[i] = row
	}
	return list
}

func (o outcome) fill(m *messages.Outcome) {
	m.Seq, m.Code, m.Revision, m.Deleted, m.More = o.seq, o.code, o.revision, o.deleted, o.more
}

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
	data := e.GetData()
	if change != nil {
		data = change.GetContext()
	}
	s.hash.Reset()
	s.note(s.history, e.GetIndex(), s.revision)
	if err := s.applyCommands(b, e.GetIndex(), data); err != nil {
		return err
	}
	if change != nil {
		s.conf = changed(s.conf, change, e.GetIndex())
		b.MembersChanged = true
	}
	s.index, s.term, s.history = e.GetIndex(), e.GetTerm(), s.hash.Sum64()
	return nil
}

func (s *State) applyCommands(b *Batch, index uint64, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if !s.entry.read(data) {
		return messages.Errorf(messages.Code_DAMAGED, "entry %d of the log does not hold commands", index)
	}
	if s.entry.level > messages.Level {
		return messages.Errorf(messages.Code_UNSUPPORTED,
			"entry %d of the log needs level %d, and this replica understands %d: it is too old and stops",
			index, s.entry.level, messages.Level).WithHint("start a newer version on this data directory")
	}
	s.logTimeMS = max(s.logTimeMS, s.entry.logTimeMS)
	s.sessions.advance(s.logTimeMS)
	for i := range s.entry.proposals {
		if err := s.settle(b, &s.entry.proposals[i]); err != nil {
			return err
		}
	}
	return nil
}

// settle carries out one proposal, at a revision of its own.
func (s *State) settle(b *Batch, p *proposal) error {
	s.revision++
	before, compacted := len(b.Rows), s.compacted
	o, err := s.decide(b, p.command)
	if err != nil {
		return err
	}
	b.Settled = append(b.Settled, Settled{Origin: p.origin, client: s.command.session, outcome: o})
	s.note(uint64(o.code), o.revision, o.deleted)
	for i := before; i < len(b.Rows); i++ {
		s.noteRow(&b.Rows[i])
	}
	if s.compacted != compacted {
		s.note(notedCompaction, s.compacted, 0)
	}
	return b.spill()
}

// decide executes a command, or refuses or repeats it.
func (s *State) decide(b *Batch, data []byte) (outcome, error) {
	c := &s.command
	if !c.read(data) || len(data) > commandSizeMax || !c.valid(s.entry.level, s.logTimeMS) {
		return outcome{seq: c.seq, code: messages.Code_INVALID, revision: s.revision}, nil
	}
	if c.ofNode() {
		return s.execute(b, c, NodeCompaction)
	}
	row, answer := s.sessions.admit(c, s.logTimeMS)
	if row == nil {
		if answer.revision == 0 {
			answer.revision = s.revision
		}
		return answer, nil
	}
	o, err := s.execute(b, c, ClientCompaction)
	if err != nil {
		return outcome{}, err
	}
	s.sessions.record(row, o)
	return o, nil
}

// execute carries out a valid command. That a compaction is of the future is known
// only here, at the command's revision: it is an outcome like any other, so that
// the same command does not take effect later.
func (s *State) execute(b *Batch, c *command, by Compaction) (outcome, error) {
	compacted := uint64(0)
	for i := range c.operations {
		compacted = max(compacted, c.operations[i].revision)
	}
	if compacted > s.revision {
		return outcome{seq: c.seq, code: messages.Code_INVALID, revision: s.revision}, nil
	}
	o, err := b.execute(c, s.revision)
	if err == nil && compacted > 0 {
		s.compacted = max(s.compacted, compacted)
		b.Compaction = max(b.Compaction, by)
	}
	return o, err
}

// valid reports whether a command may be carried out at all, in an entry of this
// level and at log time now.
func (c *command) valid(level uint32, now uint64) bool {
	if len(c.operations) > operationsMax || !c.ofClient() && !c.ofNode() {
		return false
	}
	if c.opens && (c.ttlMS == 0 || c.ttlMS > SessionTTLMaxMS || c.beforeMS > now && c.beforeMS-now > c.ttlMS) {
		return false
	}
	for i := range c.operations {
		if !c.operations[i].valid(level) {
			return false
		}
	}
	return true
}

// ofClient reports whether a client's session is named, with a number.
func (c *command) ofClient() bool {
	return len(c.session) == messages.ClientIDSize && c.seq > 0 && c.ackedBelow <= c.seq
}

// ofNode reports whether this is a command of the nodes themselves: nobody's, and
// nothing but compactions, which do no harm twice.
func (c *command) ofNode() bool {
	if len(c.session) > 0 || c.seq > 0 || c.ackedBelow > 0 || c.opens {
		return false
	}
	return len(c.operations) > 0 && !slices.ContainsFunc(c.operations, func(o operation) bool { return o.kind != kindCompact })
}

func (o *operation) valid(level uint32) bool {
	switch o.kind {
	case kindPut:
		return 0 < len(o.key) && len(o.key) <= keySizeMax && len(o.value) <= valueSizeMax
	case kindDelete:
		return 0 < len(o.key) && len(o.key) <= keySizeMax
	case kindDeleteRange:
		return len(o.key) <= keySizeMax && len(o.to) <= keySizeMax
	case kindCompact: // older software, which does not know it, says the same of older entries
		return level >= compactLevel
	}
	return false
}

// notedCompaction begins a note of what is given up now; a row's begins with less.
const notedCompaction = 2

// note adds three numbers to the history hash.
func (s *State) note(a, b, c uint64) {
	binary.LittleEndian.PutUint64(s.noted[0:], a)
	binary.LittleEndian.PutUint64(s.noted[8:], b)
	binary.LittleEndian.PutUint64(s.noted[16:], c)
	s.hash.Write(s.noted[:])
}

func (s *State) noteRow(r *disk.Row) {
	kind := uint64(0)
	if r.Deleted {
		kind = 1
	}
	s.note(kind, uint64(len(r.Key)), uint64(len(r.Value)))
	s.hash.Write(r.Key)
	s.hash.Write(r.Value)
}

// confChange is the configuration change that an entry holds, or nil.
func confChange(e *raftpb.Entry) (*raftpb.ConfChangeV2, error) {
	var change interface {
		proto.Message
		raftpb.ConfChangeI
	}
	switch e.GetType() {
	case raftpb.EntryNormal:
		return nil, nil
	case raftpb.EntryConfChange:
		change = &raftpb.ConfChange{}
	case raftpb.EntryConfChangeV2:
		change = &raftpb.ConfChangeV2{}
	default:
		return nil, messages.Errorf(messages.Code_UNSUPPORTED, "entry %d of the log is of the unknown type %d", e.GetIndex(), e.GetType()).
			WithHint("start a newer version on this data directory")
	}
	if err := proto.Unmarshal(e.GetData(), change); err != nil {
		return nil, messages.Errorf(messages.Code_DAMAGED, "entry %d of the log does not hold a configuration change: %v", e.GetIndex(), err)
	}
	return change.AsV2(), nil
}

// changed is the configuration after change, by raft's own rules. Only what these
// allow is proposed, so anything else is a broken invariant.
func changed(conf *raftpb.ConfState, change *raftpb.ConfChangeV2, index uint64) *raftpb.ConfState {
	changer := confchange.Changer{Tracker: tracker.MakeProgressTracker(1, 0), LastIndex: index}
	config, progress, err := confchange.Restore(changer, conf)
	if err != nil {
		panic(fmt.Sprintf("the configuration before entry %d is invalid: %v", index, err))
	}
	changer.Tracker.Config, changer.Tracker.Progress = config, progress
	if change.LeaveJoint() {
		config, _, err = changer.LeaveJoint()
	} else if autoLeave, ok := change.EnterJoint(); ok {
		config, _, err = changer.EnterJoint(autoLeave, change.Changes...)
	} else {
		config, _, err = changer.Simple(change.Changes...)
	}
	if err != nil {
		panic(fmt.Sprintf("the configuration change of entry %d is invalid: %v", index, err))
	}
	changer.Tracker.Config = config
	return changer.Tracker.ConfState()
}

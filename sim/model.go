package sim

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"

	"github.com/cespare/xxhash/v2"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
)

// model is the true history: what the committed log means, computed anew and as
// plainly as can be, from nothing but the log. It shares no code with the nodes.
type model struct {
	revision    uint64
	timeMS      uint64
	compacted   uint64   // history below this revision is given up
	keys        []string // sorted, of all versions
	versions    map[string][]version
	sessions    map[string]*modelSession
	effects     map[effectKey]*effect
	level       uint32             // of the cluster
	auth        *messages.Auth     // who may do what; nil: nobody has said
	rights      []*messages.Auth   // all that there were, nil first
	denied      map[effectKey]bool // what was refused for its principal
	members     []messages.RaftID  // as of the last entry, rising; nil: they are not looked at
	invitations modelInvitations
	written     map[string]uint64 // value -> the revision that wrote it: no value is written twice
}

// version is what became of a key in one command.
type version struct {
	revision uint64
	created  uint64 // revision of the first write since the key was not there
	writes   uint64 // since then, with this one
	value    string
	deleted  bool
}

type modelSession struct {
	activeMS, ttlMS, openBeforeMS uint64
	ackedBelow                    uint64
	done                          map[uint64]bool
	user                          string // whose it is
}

// effectKey names a command as people do: by the first bytes of its session, and
// its number.
type effectKey string

// effect is one execution of a command.
type effect struct {
	session  string
	revision uint64
	changed  bool // a row: then the revision is its own
	deleted  uint64
	more     bool
	refused  bool   // a condition did not hold, and there was nothing to do otherwise
	failed   uint32 // the condition that did not hold, from 1; 0: all held
}

func newModel() *model {
	return &model{level: messages.LevelMin, versions: map[string][]version{}, sessions: map[string]*modelSession{}, effects: map[effectKey]*effect{}, written: map[string]uint64{},
		rights: []*messages.Auth{nil}, denied: map[effectKey]bool{},
		invitations: modelInvitations{of: map[string]*modelInvitation{}, ever: map[string]*modelInvitation{}}}
}

// sessionWindow is how many numbers a session may use from acked_below on.
const sessionWindow = 1024

// apply takes the next entry of the committed log.
func (m *model) apply(e *raftpb.Entry) error {
	data := e.GetData()
	if e.GetType() == raftpb.EntryConfChangeV2 { // its command is one of the cluster's, and has its time
		change := new(raftpb.ConfChangeV2)
		if err := proto.Unmarshal(data, change); err != nil {
			return fmt.Errorf("entry %d: %w", e.GetIndex(), err)
		}
		data = change.GetContext()
	}
	if len(data) == 0 {
		return nil
	}
	commands := new(messages.Commands)
	if err := proto.Unmarshal(data, commands); err != nil {
		return fmt.Errorf("entry %d: %w", e.GetIndex(), err)
	}
	m.timeMS = max(m.timeMS, commands.LogTimeMs)
	if commands.Level > m.level {
		return fmt.Errorf("entry %d is stamped with level %d, the cluster is at %d", e.GetIndex(), commands.Level, m.level)
	}
	for _, p := range commands.Proposals {
		c := new(messages.Command)
		if err := proto.Unmarshal(p.Command, c); err != nil {
			return fmt.Errorf("entry %d: %w", e.GetIndex(), err)
		}
		if err := m.command(string(p.Principal), c); err != nil {
			return fmt.Errorf("entry %d: %w", e.GetIndex(), err)
		}
	}
	return nil
}

// command takes one command of a principal. One that changes a row takes the next revision; any
// other has that of the last one that did.
func (m *model) command(principal string, c *messages.Command) error {
	failed := m.failing(c.Conditions)
	operations := c.Operations
	if failed > 0 {
		operations = c.Otherwise
	}
	given := uint64(0)
	for _, o := range operations {
		given = max(given, o.GetCompact().GetRevision())
	}
	if len(c.Session) == 0 { // of a node: its compactions and raises are all there is
		m.giveUp(given)
		for _, o := range operations {
			if raise := o.GetRaiseLevel(); raise.GetFrom() == m.level && (m.members == nil || slices.Equal(raise.GetMembers(), m.members)) {
				m.level = max(m.level, raise.GetTo())
			}
			if w := o.GetWriteInvitations(); w != nil {
				if err := m.invitations.write(w); err != nil {
					return err
				}
			}
			if set := o.GetSetAuth(); set != nil {
				m.setAuth(set.Auth)
			}
		}
		return nil
	}
	if o := c.Open; o != nil && (len(o.Holder) > messages.HolderSizeMax || o.TtlMs == 0 || o.BeforeMs > m.timeMS && o.BeforeMs-m.timeMS > min(o.TtlMs, messages.SessionOpenMaxMS)) {
		return nil // an opening must not stay valid for longer than its session lives, nor for long
	}
	s := m.admit(principal, c)
	if s == nil {
		return nil
	}
	s.done[c.Seq] = true
	if !m.allows(principal, c) {
		m.denied[effectKey(messages.RequestID(c.Session, messages.RequestWrite, c.Seq))] = true
		return nil
	}
	if given > m.revision {
		return nil // a command that compacts above the newest revision is refused whole
	}
	m.giveUp(given)
	key := effectKey(messages.RequestID(c.Session, messages.RequestWrite, c.Seq))
	if old := m.effects[key]; old != nil {
		return fmt.Errorf("request %s of session %x is executed at revision %d, and was at %d for session %x",
			key, c.Session, m.revision, old.revision, old.session)
	}
	done := &effect{session: string(c.Session), failed: failed, refused: failed > 0 && len(operations) == 0}
	m.effects[key] = done
	next := m.revision + 1
	for _, o := range operations {
		switch o := o.Kind.(type) {
		case *messages.Operation_Put:
			if at := m.written[string(o.Put.Value)]; at != 0 {
				return fmt.Errorf("the value of request %s is written at revision %d, and was at %d", key, next, at)
			}
			m.written[string(o.Put.Value)] = next
			v := version{revision: next, created: next, writes: 1, value: string(o.Put.Value)}
			if was, live := m.get(string(o.Put.Key), next); live {
				v.created, v.writes = was.created, was.writes+1
			}
			m.write(string(o.Put.Key), v)
			done.changed = true
		case *messages.Operation_Delete:
			done.deleted += m.delete(string(o.Delete.Key), next)
		case *messages.Operation_DeleteRange:
			m.deleteRange(o.DeleteRange, next, done)
		}
	}
	if done.changed = done.changed || done.deleted > 0; done.changed {
		m.revision = next
	}
	done.revision = m.revision
	return nil
}

// failing is the first condition that does not hold now, from 1; 0: all hold. What
// clients of the simulator ask is far within the bounds of conditions.
func (m *model) failing(conditions []*messages.Condition) uint32 {
	for i, c := range conditions {
		keys := []string{string(c.Key)}
		switch {
		case string(c.To) == "\x00":
			keys = m.live(string(c.Key), "", m.revision)
		case len(c.To) > 0 && string(c.Key) < string(c.To):
			keys = m.live(string(c.Key), string(c.To), m.revision)
		case len(c.To) > 0:
			keys = nil
		}
		if len(keys) == 0 {
			keys = []string{""} // is never there
		}
		for _, key := range keys {
			v, there := m.get(key, m.revision)
			if !satisfies(v, there, c) {
				return uint32(i) + 1
			}
		}
	}
	return 0
}

func satisfies(v version, there bool, c *messages.Condition) bool {
	var order int
	switch target := c.Target.(type) {
	case *messages.Condition_Value:
		if !there {
			return false
		}
		order = cmp.Compare(v.value, string(target.Value))
	case *messages.Condition_Version:
		order = cmp.Compare(v.writes, target.Version)
	case *messages.Condition_CreateRevision:
		order = cmp.Compare(v.created, target.CreateRevision)
	case *messages.Condition_ModRevision:
		order = cmp.Compare(v.revision, target.ModRevision)
	}
	return order == map[messages.Comparison]int{messages.Comparison_LESS: -1, messages.Comparison_GREATER: 1}[c.Comparison] !=
		(c.Comparison == messages.Comparison_NOT_EQUAL)
}

// giveUp lets history go below a revision that was.
func (m *model) giveUp(below uint64) {
	if below <= m.revision {
		m.compacted = max(m.compacted, below)
	}
}

// admit is the session of a command that is to be executed, nil if it is not.
func (m *model) admit(principal string, c *messages.Command) *modelSession {
	id := string(c.Session)
	s := m.sessions[id]
	if s != nil && m.timeMS > max(s.activeMS+s.ttlMS, s.openBeforeMS) {
		s = nil
	}
	if s == nil {
		if c.Open == nil || c.Open.BeforeMs < m.timeMS || c.Seq-c.AckedBelow >= sessionWindow {
			return nil
		}
		s = &modelSession{activeMS: m.timeMS, ttlMS: c.Open.TtlMs, openBeforeMS: c.Open.BeforeMs, ackedBelow: c.AckedBelow, done: map[uint64]bool{}, user: principal}
		m.sessions[id] = s
		return s
	}
	if s.user != principal {
		return nil
	}
	s.activeMS = m.timeMS
	if c.Open != nil {
		s.openBeforeMS = max(s.openBeforeMS, c.Open.BeforeMs)
	}
	s.ackedBelow = max(s.ackedBelow, c.AckedBelow)
	if c.Seq < s.ackedBelow || s.done[c.Seq] || c.Seq-s.ackedBelow >= sessionWindow {
		return nil
	}
	return s
}

func (m *model) write(key string, v version) {
	all, known := m.versions[key]
	if !known {
		i, _ := slices.BinarySearch(m.keys, key)
		m.keys = slices.Insert(m.keys, i, key)
	}
	if n := len(all); n > 0 && all[n-1].revision == v.revision {
		all = all[:n-1] // the last operation of a command counts
	}
	m.versions[key] = append(all, v)
}

// delete deletes a key at the next revision, if it is there.
func (m *model) delete(key string, next uint64) uint64 {
	if _, live := m.get(key, next); !live {
		return 0
	}
	m.write(key, version{revision: next, deleted: true})
	return 1
}

func (m *model) deleteRange(o *messages.DeleteRange, next uint64, done *effect) {
	left := uint64(10_000)
	if o.Limit > 0 {
		left = min(left, uint64(o.Limit))
	}
	for _, key := range m.live(string(o.From), string(o.To), next) {
		if left == 0 {
			done.more = true
			return
		}
		left--
		done.deleted += m.delete(key, next)
	}
}

// get is the version of key as of a revision, and whether it is there.
func (m *model) get(key string, revision uint64) (version, bool) {
	all := m.versions[key]
	i := sort.Search(len(all), func(i int) bool { return all[i].revision > revision })
	if i == 0 || all[i-1].deleted {
		return version{}, false
	}
	return all[i-1], true
}

// live lists the keys of [from, to) as of a revision; an empty to has no end.
func (m *model) live(from, to string, revision uint64) []string {
	var found []string
	i, _ := slices.BinarySearch(m.keys, from)
	for ; i < len(m.keys) && (to == "" || m.keys[i] < to); i++ {
		if _, ok := m.get(m.keys[i], revision); ok {
			found = append(found, m.keys[i])
		}
	}
	return found
}

// read is the reply that a read gets at a revision.
func (m *model) read(r *messages.Read, revision uint64) (items []*messages.Item, more bool) {
	if get := r.GetGet(); get != nil {
		if v, ok := m.get(string(get.Key), revision); ok {
			items = append(items, v.item(get.Key))
		}
		return items, false
	}
	scan := r.GetScan()
	if scan == nil {
		return nil, false
	}
	keys := m.live(string(scan.From), string(scan.To), revision)
	if scan.Reverse {
		slices.Reverse(keys)
	}
	for i, key := range keys {
		if scan.Limit > 0 && i == int(scan.Limit) {
			return items, true
		}
		v, _ := m.get(key, revision)
		item := v.item([]byte(key))
		if scan.KeysOnly {
			item.Value = nil
		}
		items = append(items, item)
	}
	return items, false
}

// is reports whether a row is this version of a key.
func (v version) is(key string, r *disk.Row) bool {
	return string(r.Key) == key && string(r.Value) == v.value && r.Revision == v.revision && r.Created == v.created && r.Version == v.writes
}

func (v version) item(key []byte) *messages.Item {
	return &messages.Item{Key: key, Value: []byte(v.value), Revision: v.revision, CreateRevision: v.created, Version: v.writes}
}

// digest is what a digest of a range is at a revision.
func (m *model) digest(d *messages.Digest, revision uint64) *messages.RangeDigest {
	sum, hash := &messages.RangeDigest{}, xxhash.New()
	number := func(n uint64) { hash.Write(binary.LittleEndian.AppendUint64(nil, n)) }
	for _, key := range m.live(string(d.From), string(d.To), revision) {
		if d.Limit > 0 && sum.Rows == uint64(d.Limit) {
			sum.More = true
			break
		}
		v, _ := m.get(key, revision)
		number(uint64(len(key)))
		number(uint64(len(v.value)))
		number(v.revision)
		number(v.created)
		number(v.writes)
		hash.WriteString(key)
		hash.WriteString(v.value)
		sum.Rows++
		sum.Bytes += uint64(len(key) + len(v.value))
		sum.Last = []byte(key)
	}
	sum.Hash = hash.Sum(nil)
	return sum
}

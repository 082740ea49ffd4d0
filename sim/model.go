package sim

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sort"

	"github.com/cespare/xxhash/v2"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// model is the true history: what the committed log means, computed anew and as
// plainly as can be, from nothing but the log. It shares no code with the nodes.
type model struct {
	revision  uint64
	timeMS    uint64
	compacted uint64   // history below this revision is given up
	keys      []string // sorted, of all versions
	versions  map[string][]version
	sessions  map[string]*modelSession
	effects   map[effectKey]*effect
	written   map[string]uint64 // value -> the revision that wrote it: no value is written twice
}

// version is what became of a key in one command.
type version struct {
	revision uint64
	value    string
	deleted  bool
}

type modelSession struct {
	activeMS, ttlMS, openBeforeMS uint64
	ackedBelow                    uint64
	done                          map[uint64]bool
}

// effectKey names a command as people do: by the first bytes of its session, and
// its number.
type effectKey string

// effect is one execution of a command.
type effect struct {
	session  string
	revision uint64
	deleted  uint64
	more     bool
}

func newModel() *model {
	return &model{versions: map[string][]version{}, sessions: map[string]*modelSession{}, effects: map[effectKey]*effect{}, written: map[string]uint64{}}
}

// sessionWindow is how many numbers a session may use from acked_below on.
const sessionWindow = 1024

// apply takes the next entry of the committed log.
func (m *model) apply(e *raftpb.Entry) error {
	if e.GetType() != raftpb.EntryNormal || len(e.GetData()) == 0 {
		return nil
	}
	commands := new(messages.Commands)
	if err := proto.Unmarshal(e.GetData(), commands); err != nil {
		return fmt.Errorf("entry %d: %w", e.GetIndex(), err)
	}
	m.timeMS = max(m.timeMS, commands.LogTimeMs)
	for _, p := range commands.Proposals {
		c := new(messages.Command)
		if err := proto.Unmarshal(p.Command, c); err != nil {
			return fmt.Errorf("entry %d: %w", e.GetIndex(), err)
		}
		if err := m.command(c, commands.Level); err != nil {
			return fmt.Errorf("entry %d: %w", e.GetIndex(), err)
		}
	}
	return nil
}

// compactLevel is the level from which on entries may give up history.
const compactLevel = 2

// command takes one command. Each has a revision of its own, executed or not.
func (m *model) command(c *messages.Command, level uint32) error {
	m.revision++
	given := uint64(0)
	for _, o := range c.Operations {
		if o.GetCompact() != nil && level < compactLevel {
			return nil
		}
		given = max(given, o.GetCompact().GetRevision())
	}
	if len(c.Session) == 0 { // of a node: its compactions are all there is
		m.giveUp(given)
		return nil
	}
	if o := c.Open; o != nil && (o.TtlMs == 0 || o.BeforeMs > m.timeMS && o.BeforeMs-m.timeMS > min(o.TtlMs, messages.SessionOpenMaxMS)) {
		return nil // an opening must not stay valid for longer than its session lives, nor for long
	}
	s := m.admit(c)
	if s == nil {
		return nil
	}
	s.done[c.Seq] = true
	if given > m.revision {
		return nil // a command that compacts above the newest revision is refused whole
	}
	m.giveUp(given)
	key := effectKey(messages.RequestID(c.Session, c.Seq))
	if old := m.effects[key]; old != nil {
		return fmt.Errorf("request %s of session %x is executed at revision %d, and was at %d for session %x",
			key, c.Session, m.revision, old.revision, old.session)
	}
	done := &effect{session: string(c.Session), revision: m.revision}
	m.effects[key] = done
	for _, o := range c.Operations {
		switch o := o.Kind.(type) {
		case *messages.Operation_Put:
			if at := m.written[string(o.Put.Value)]; at != 0 {
				return fmt.Errorf("the value of request %s is written at revision %d, and was at %d", key, m.revision, at)
			}
			m.written[string(o.Put.Value)] = m.revision
			m.write(string(o.Put.Key), version{revision: m.revision, value: string(o.Put.Value)})
		case *messages.Operation_Delete:
			done.deleted += m.delete(string(o.Delete.Key))
		case *messages.Operation_DeleteRange:
			m.deleteRange(o.DeleteRange, done)
		}
	}
	return nil
}

// giveUp lets history go below a revision that was.
func (m *model) giveUp(below uint64) {
	if below <= m.revision {
		m.compacted = max(m.compacted, below)
	}
}

// admit is the session of a command that is to be executed, nil if it is not.
func (m *model) admit(c *messages.Command) *modelSession {
	id := string(c.Session)
	s := m.sessions[id]
	if s != nil && m.timeMS > max(s.activeMS+s.ttlMS, s.openBeforeMS) {
		s = nil
	}
	if s == nil {
		if c.Open == nil || c.Open.BeforeMs < m.timeMS || c.Seq-c.AckedBelow >= sessionWindow {
			return nil
		}
		s = &modelSession{activeMS: m.timeMS, ttlMS: c.Open.TtlMs, openBeforeMS: c.Open.BeforeMs, ackedBelow: c.AckedBelow, done: map[uint64]bool{}}
		m.sessions[id] = s
		return s
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

func (m *model) delete(key string) uint64 {
	if _, live := m.get(key, m.revision); !live {
		return 0
	}
	m.write(key, version{revision: m.revision, deleted: true})
	return 1
}

func (m *model) deleteRange(o *messages.DeleteRange, done *effect) {
	left := uint64(10_000)
	if o.Limit > 0 {
		left = min(left, uint64(o.Limit))
	}
	for _, key := range m.live(string(o.From), string(o.To), m.revision) {
		if left == 0 {
			done.more = true
			return
		}
		left--
		done.deleted += m.delete(key)
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
			items = append(items, &messages.Item{Key: get.Key, Value: []byte(v.value), Revision: v.revision})
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
		item := &messages.Item{Key: []byte(key), Revision: v.revision}
		if !scan.KeysOnly {
			item.Value = []byte(v.value)
		}
		items = append(items, item)
	}
	return items, false
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
		hash.WriteString(key)
		hash.WriteString(v.value)
		sum.Rows++
		sum.Bytes += uint64(len(key) + len(v.value))
		sum.Last = []byte(key)
	}
	sum.Hash = hash.Sum(nil)
	return sum
}

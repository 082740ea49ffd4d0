package client

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"keyval/messages"
)

// cluster is a model of nodes, links and log around one core. It loses, delays
// and repeats whatever real ones may, and executes commands as the machine does.
type cluster struct {
	t     *rapid.T
	c     *core
	sites []*site

	logTime, revision, term uint64
	rows                    map[string]*row   // sessions, by ClientID
	limbo                   []*proposal       // on their way into the log; may be lost
	executed                map[string]uint64 // revision by value: each value is written by one command
	commands                map[string][]byte // by ClientID and seq: a number is given to one command only
	sessions                map[string][]byte // ClientID by session actor
	submitted               map[uint64]*messages.Submit
	done                    map[uint64]*messages.Done
}

// site is a node and the client's link to it.
type site struct {
	endpoint string
	id       messages.RaftID
	state    string // idle, dialled, up, hung
	life     int    // counts links
	inbox    []send // on their way to the node
	outbox   []proto.Message
	attached int
}

type row struct {
	acked, active, ttl, before uint64
	outcomes                   map[uint64]*messages.Outcome
}

type proposal struct {
	write    *messages.Write
	site     *site
	life     int
	answered *bool // shared by the repetitions of one proposal: a Write is answered once
}

func newCluster(t *rapid.T) *cluster {
	m := &cluster{
		t: t, term: 1, rows: map[string]*row{}, executed: map[string]uint64{}, commands: map[string][]byte{},
		sessions: map[string][]byte{}, submitted: map[uint64]*messages.Submit{}, done: map[uint64]*messages.Done{},
	}
	for i, name := range []string{"a:1", "b:1", "c:1"} {
		m.sites = append(m.sites, &site{endpoint: name, id: uint64(i + 1), state: "idle"})
	}
	known := rapid.IntRange(1, 3).Draw(t, "endpoints")
	s := settings{endpoints: []string{"a:1", "b:1", "c:1"}[:known], sessionTTLMs: 2000}
	s.seed[0] = rapid.Byte().Draw(t, "seed")
	m.c = newCore(s)
	m.run(m.c.start())
	return m
}

func (m *cluster) site(endpoint string) *site {
	return m.sites[slices.IndexFunc(m.sites, func(s *site) bool { return s.endpoint == endpoint })]
}

// run does what the core wants done, and holds it against what it may want.
func (m *cluster) run(effects []effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case dial:
			s := m.site(e.endpoint)
			if s.state != "idle" {
				m.t.Fatalf("%s is dialled while it is %s", e.endpoint, s.state)
			}
			s.state = "dialled"
		case hang:
			s := m.site(e.endpoint)
			if s.state != "dialled" && s.state != "up" {
				m.t.Fatalf("%s is hung while it is %s", e.endpoint, s.state)
			}
			s.state = "hung"
		case send:
			m.take(e)
		case answer:
			m.settle(e)
		}
	}
	checkInvariants(m.t, m.c)
}

func (m *cluster) take(e send) {
	id, _ := messages.ParseNodeAddress(e.node)
	s := m.sites[id-1]
	if s.state != "up" {
		m.t.Fatalf("%s is sent %T while it is %s", s.endpoint, e.message, s.state)
	}
	if w, ok := e.message.(*messages.Write); ok {
		c := commandOf(m.t, w)
		name := fmt.Sprintf("%x-%d", c.Session, c.Seq)
		if before, ok := m.commands[name]; ok && !bytes.Equal(before, w.Command) {
			m.t.Fatalf("number %d is given to two commands", c.Seq)
		}
		m.commands[name] = w.Command
	}
	s.inbox = append(s.inbox, e)
}

func (m *cluster) settle(e answer) {
	d := e.done
	if m.submitted[d.Tag] == nil || m.done[d.Tag] != nil {
		m.t.Fatalf("request %d is answered twice or was never asked", d.Tag)
	}
	m.done[d.Tag] = d
}

// Submit asks for something.
func (m *cluster) submit(t *rapid.T) {
	tag := uint64(len(m.submitted) + 1)
	var s *messages.Submit
	switch rapid.SampledFrom([]kind{write, write, read, status, snapshot, reach}).Draw(t, "kind") {
	case write:
		s = put(tag) // its value is its tag
	case read:
		s = get(tag)
	case snapshot:
		s = snapshotsOf(tag)
	case reach:
		s = &messages.Submit{Tag: tag, Reach: true}
	default:
		s = statusOf(tag)
	}
	s.DeadlineMs = rapid.Uint64Range(50, 3000).Draw(t, "deadline")
	m.submitted[tag] = s
	m.run(m.c.submit(asker{"here", "me"}, s))
}

// withdraw ends a request, or what is answered already.
func (m *cluster) withdraw(t *rapid.T) {
	if len(m.submitted) == 0 {
		t.Skip("nothing was asked")
	}
	tag := rapid.Uint64Range(1, uint64(len(m.submitted))).Draw(t, "tag")
	m.run(m.c.withdraw(asker{"here", "me"}, &messages.Withdraw{Tag: tag, Late: rapid.Bool().Draw(t, "late")}))
	if m.done[tag] == nil {
		m.t.Fatalf("request %d was withdrawn and is not answered", tag)
	}
}

func (m *cluster) tick(t *rapid.T) {
	ms := 50 * rapid.Uint64Range(1, 8).Draw(t, "ticks")
	m.logTime += ms
	m.run(m.c.tick(ms))
}

// where draws a site for which something can be done.
func (m *cluster) where(t *rapid.T, can func(*site) bool) *site {
	var sites []*site
	for _, s := range m.sites {
		if can(s) {
			sites = append(sites, s)
		}
	}
	if len(sites) == 0 {
		t.Skip("nowhere")
	}
	return rapid.SampledFrom(sites).Draw(t, "site")
}

func (m *cluster) reach(t *rapid.T) {
	s := m.where(t, func(s *site) bool { return s.state == "dialled" })
	s.state, s.life = "up", s.life+1
	u := up(s.endpoint, s.id)
	if rapid.IntRange(0, 9).Draw(t, "waits") == 0 {
		u.WaitingFor = "something"
	}
	m.run(m.c.linkUp(u))
}

// lose ends a link, or the attempt at one.
func (m *cluster) lose(t *rapid.T) {
	s := m.where(t, func(s *site) bool { return s.state != "idle" })
	for len(s.inbox) > 0 && rapid.Bool().Draw(t, "arrives") {
		m.handle(t, s)
	}
	s.state = "idle"
	// A gateway answers an Attach that it has, over whichever link there is by then.
	s.inbox = slices.DeleteFunc(s.inbox, func(e send) bool {
		_, attach := e.message.(*messages.Attach)
		return !attach || rapid.Bool().Draw(t, "lost")
	})
	s.outbox = nil
	s.life++
	m.run(m.c.linkDown(down(s.endpoint)))
}

func (m *cluster) nodeTakes(t *rapid.T) {
	m.handle(t, m.where(t, func(s *site) bool { return len(s.inbox) > 0 }))
}

func (m *cluster) clientTakes(t *rapid.T) {
	m.clientTakesFrom(m.where(t, func(s *site) bool { return len(s.outbox) > 0 }))
}

func (m *cluster) clientTakesFrom(s *site) {
	reply := s.outbox[0]
	s.outbox = s.outbox[1:]
	switch r := reply.(type) {
	case *messages.Attached:
		m.run(m.c.attached(r))
	case *messages.WriteReply:
		m.run(m.c.writeReply(r))
	case *messages.ReadReply:
		m.run(m.c.readReply(r))
	case *messages.StatusReply:
		m.run(m.c.statusReply(r))
	case *messages.SnapshotReply:
		m.run(m.c.snapshotReply(r))
	}
}

func (m *cluster) leader(t *rapid.T) *messages.Leader {
	if rapid.Bool().Draw(t, "leaderless") {
		return nil
	}
	m.term += rapid.Uint64Range(0, 1).Draw(t, "elected")
	s := rapid.SampledFrom(m.sites).Draw(t, "leader")
	return leads(s.id, s.endpoint, m.term)
}

// handle lets a node take the next message of its inbox.
func (m *cluster) handle(t *rapid.T, s *site) {
	e := s.inbox[0]
	s.inbox = s.inbox[1:]
	trouble := rapid.SampledFrom([]messages.Code{0, 0, 0, 0, messages.Code_NO_LEADER, messages.Code_REDIRECT, messages.Code_BUSY,
		messages.Code_INTERNAL, messages.Code_OUTCOME_UNKNOWN, messages.Code_UNSAFE}).Draw(t, "trouble")
	switch r := e.message.(type) {
	case *messages.Attach:
		s.attached++
		session := fmt.Sprintf("%s-%d-%d", s.endpoint, s.life, s.attached)
		m.sessions[session] = r.Client
		a := &messages.Attached{Request: r.Request, Session: session, LogTimeMs: m.logTime, RequestsMax: 3, BytesMax: 500, Leader: m.leader(t)}
		if trouble == messages.Code_BUSY {
			a = &messages.Attached{Request: r.Request, Code: trouble}
		}
		s.outbox = append(s.outbox, a)
	case *messages.Write:
		m.handleWrite(t, s, e.actor, r, trouble)
	case *messages.Read:
		s.outbox = append(s.outbox, &messages.ReadReply{Request: r.Request, Code: trouble, Leader: m.leader(t)})
	case *messages.StatusRequest:
		s.outbox = append(s.outbox, &messages.StatusReply{Request: r.Request})
	case *messages.SnapshotRequest:
		s.outbox = append(s.outbox, &messages.SnapshotReply{Request: r.Request, Code: trouble})
	}
}

func (m *cluster) handleWrite(t *rapid.T, s *site, session string, w *messages.Write, trouble messages.Code) {
	if c := commandOf(t, w); !bytes.Equal(c.Session, m.sessions[session]) {
		t.Fatalf("a command of another client goes to session actor %q", session)
	}
	p := &proposal{write: w, site: s, life: s.life, answered: new(bool)}
	switch trouble {
	case messages.Code_OK:
		m.limbo = append(m.limbo, p)
		if rapid.Bool().Draw(t, "repeated") { // by the node, to a new leader
			m.limbo = append(m.limbo, p)
		}
		return
	case messages.Code_INTERNAL, messages.Code_OUTCOME_UNKNOWN:
		*p.answered = true
		m.limbo = append(m.limbo, p)
	}
	s.outbox = append(s.outbox, &messages.WriteReply{Request: w.Request, Code: trouble, Leader: m.leader(t)})
}

// commit brings something into the log, in any order.
func (m *cluster) commit(t *rapid.T) {
	p := m.pick(t)
	o := m.apply(commandOf(t, p.write))
	if !*p.answered && p.life == p.site.life {
		p.site.outbox = append(p.site.outbox, &messages.WriteReply{Request: o.Seq, Code: o.Code, Revision: o.Revision, Leader: m.leader(t)})
	}
	*p.answered = true
}

// forget loses something on its way into the log.
func (m *cluster) forget(t *rapid.T) { m.pick(t) }

func (m *cluster) pick(t *rapid.T) *proposal {
	if len(m.limbo) == 0 {
		t.Skip("nothing is on its way")
	}
	i := rapid.IntRange(0, len(m.limbo)-1).Draw(t, "proposal")
	p := m.limbo[i]
	m.limbo = slices.Delete(m.limbo, i, i+1)
	return p
}

// apply is the machine: sessions, windows, expiry by log time.
func (m *cluster) apply(c *messages.Command) *messages.Outcome {
	m.revision++
	refuse := func(code messages.Code) *messages.Outcome { return &messages.Outcome{Seq: c.Seq, Code: code} }
	r := m.rows[string(c.Session)]
	if r != nil && m.logTime > max(r.active+r.ttl, r.before) {
		r = nil
	}
	if r == nil {
		if c.Open == nil || c.Open.BeforeMs < m.logTime {
			delete(m.rows, string(c.Session))
			return refuse(messages.Code_SESSION_EXPIRED)
		}
		r = &row{ttl: c.Open.TtlMs, before: c.Open.BeforeMs, outcomes: map[uint64]*messages.Outcome{}}
		m.rows[string(c.Session)] = r
	}
	r.active, r.acked = m.logTime, max(r.acked, c.AckedBelow)
	if c.Seq < r.acked {
		return refuse(messages.Code_CONFLICT)
	}
	if o := r.outcomes[c.Seq]; o != nil {
		return o
	}
	value := string(c.Operations[0].GetPut().Value)
	if _, ran := m.executed[value]; ran {
		m.t.Fatalf("the command that writes %s takes effect twice", value)
	}
	m.executed[value] = m.revision
	o := &messages.Outcome{Seq: c.Seq, Revision: m.revision}
	r.outcomes[c.Seq] = o
	return o
}

// age lets log time pass, so that sessions may expire.
func (m *cluster) age(t *rapid.T) { m.logTime += rapid.Uint64Range(0, 3000).Draw(t, "age") }

// judge ends a run: whatever happens to be on its way may still arrive.
func (m *cluster) judge(t *rapid.T) {
	for range 80 {
		m.run(m.c.tick(50))
	}
	for _, p := range m.limbo {
		m.apply(commandOf(t, p.write))
	}
	for tag, s := range m.submitted {
		d := m.done[tag]
		if d == nil {
			t.Fatalf("request %d is not answered", tag)
		}
		if s.Operations == nil {
			continue
		}
		revision, ran := m.executed[fmt.Sprint(tag)]
		switch code := d.GetWrite().GetCode(); {
		case code == messages.Code_OK && (!ran || revision != d.Write.Revision):
			t.Fatalf("write %d is answered with revision %d, and ran at %d (%v)", tag, d.Write.Revision, revision, ran)
		case code != messages.Code_OK && code != messages.Code_OUTCOME_UNKNOWN && ran:
			t.Fatalf("write %d is answered with %s, and took effect", tag, code)
		}
	}
	if m.c.requests.count != 0 || len(m.c.requests.all)+len(m.c.requests.again)+len(m.c.requests.writes)+len(m.c.requests.reads)+len(m.c.requests.ofNode) != 0 {
		t.Fatalf("something is left of answered requests")
	}
}

func TestAnswersAreTrueWhateverTheClusterDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newCluster(t)
		t.Repeat(map[string]func(*rapid.T){
			"submit": m.submit, "withdraw": m.withdraw, "tick": m.tick, "reach": m.reach, "reach2": m.reach, "lose": m.lose, "age": m.age,
			"node takes": m.nodeTakes, "node takes2": m.nodeTakes, "node takes3": m.nodeTakes,
			"client takes": m.clientTakes, "client takes2": m.clientTakes, "client takes3": m.clientTakes,
			"commit": m.commit, "commit2": m.commit, "forget": m.forget,
		})
		m.judge(t)
	})
}

// TestHealedClusterServes: liveness. After any trouble, a cluster that answers
// gets every new request done within its deadline.
func TestHealedClusterServes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newCluster(t)
		t.Repeat(map[string]func(*rapid.T){
			"submit": m.submit, "withdraw": m.withdraw, "tick": m.tick, "reach": m.reach, "lose": m.lose, "age": m.age,
			"node takes": m.nodeTakes, "client takes": m.clientTakes, "commit": m.commit, "forget": m.forget,
		})
		for range 80 {
			m.run(m.c.tick(50))
			m.healthy()
		}
		for _, s := range []*messages.Submit{put(100_001), get(100_002), statusOf(100_003), snapshotsOf(100_004)} {
			m.submitted[s.Tag] = s
			m.run(m.c.submit(asker{"here", "me"}, s))
		}
		for range 40 {
			m.healthy()
			m.logTime += 50
			m.run(m.c.tick(50))
		}
		for tag := uint64(100_001); tag <= 100_004; tag++ {
			if d := m.done[tag]; d == nil || codeOf(d) != messages.Code_OK {
				t.Fatalf("request %d ends with %v", tag, d)
			}
		}
	})
}

// healthy lets everything through that is under way, at once.
func (m *cluster) healthy() {
	for busy := true; busy; {
		busy = false
		for _, s := range m.sites {
			switch {
			case s.state == "hung":
				s.state, s.life, s.inbox, s.outbox = "idle", s.life+1, nil, nil
				m.run(m.c.linkDown(down(s.endpoint)))
			case s.state == "dialled":
				s.state, s.life = "up", s.life+1
				m.run(m.c.linkUp(up(s.endpoint, s.id)))
			case len(s.inbox) > 0:
				m.obey(s)
			case len(s.outbox) > 0:
				m.clientTakesFrom(s)
			default:
				continue
			}
			busy = true
		}
	}
}

// obey is handle without trouble.
func (m *cluster) obey(s *site) {
	e := s.inbox[0]
	s.inbox = s.inbox[1:]
	var reply proto.Message
	leader := leads(2, "b:1", m.term+1)
	switch r := e.message.(type) {
	case *messages.Attach:
		s.attached++
		session := fmt.Sprintf("%s-%d-%d", s.endpoint, s.life, s.attached)
		m.sessions[session] = r.Client
		reply = &messages.Attached{Request: r.Request, Session: session, LogTimeMs: m.logTime, RequestsMax: 3, BytesMax: 500, Leader: leader}
	case *messages.Write:
		o := m.apply(commandOf(m.t, r))
		reply = &messages.WriteReply{Request: o.Seq, Code: o.Code, Revision: o.Revision, Leader: leader}
	case *messages.Read:
		reply = &messages.ReadReply{Request: r.Request, Leader: leader}
	case *messages.StatusRequest:
		reply = &messages.StatusReply{Request: r.Request}
	case *messages.SnapshotRequest:
		reply = &messages.SnapshotReply{Request: r.Request}
	default:
		return
	}
	s.outbox = append(s.outbox, reply)
}

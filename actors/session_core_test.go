package actors

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

var testClient = []byte("0123456789abcdef")

func command(t *testing.T, seq uint64, change func(*messages.Command)) *messages.Write {
	t.Helper()
	c := &messages.Command{Session: testClient, Seq: seq, Operations: []*messages.Operation{
		{Kind: &messages.Operation_Put{Put: &messages.Put{Key: []byte("k"), Value: []byte("v")}}},
	}}
	if change != nil {
		change(c)
	}
	data, err := proto.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return &messages.Write{Request: seq, Command: data}
}

func leaderAt(id, term uint64) *messages.Leader { return &messages.Leader{RaftId: id, Term: term} }

func answerCode(effects []sessionEffect) (messages.Code, bool) {
	for _, e := range effects {
		if a, ok := e.(answer); ok {
			switch r := a.Reply.(type) {
			case *messages.WriteReply:
				return r.Code, true
			case *messages.ReadReply:
				return r.Code, true
			}
		}
	}
	return 0, false
}

func TestSessionRefusesBeforeItProposes(t *testing.T) {
	key := func(key, value []byte) func(*messages.Command) {
		return func(c *messages.Command) {
			c.Operations[0].Kind = &messages.Operation_Put{Put: &messages.Put{Key: key, Value: value}}
		}
	}
	for name, row := range map[string]struct {
		write *messages.Write
		code  messages.Code
	}{
		"no key":          {command(t, 1, key(nil, nil)), messages.Code_INVALID},
		"large key":       {command(t, 1, key(make([]byte, messages.KeySizeMax+1), nil)), messages.Code_INVALID},
		"large value":     {command(t, 1, key([]byte("k"), make([]byte, messages.ValueSizeMax+1))), messages.Code_INVALID},
		"no operation":    {command(t, 1, func(c *messages.Command) { c.Operations = nil }), messages.Code_INVALID},
		"empty operation": {command(t, 1, func(c *messages.Command) { c.Operations[0].Kind = nil }), messages.Code_UNSUPPORTED},
		"another client":  {command(t, 1, func(c *messages.Command) { c.Session = make([]byte, 16) }), messages.Code_NOT_ALLOWED},
		"another number":  {&messages.Write{Request: 2, Command: command(t, 1, nil).Command}, messages.Code_NOT_ALLOWED},
		"number zero":     {command(t, 0, nil), messages.Code_INVALID},
		"garbage":         {&messages.Write{Request: 1, Command: []byte{0xff, 1, 2}}, messages.Code_INVALID},
		"unknown field":   {&messages.Write{Request: 1, Command: append(command(t, 1, nil).Command, 0x98, 0x06, 1)}, messages.Code_UNSUPPORTED},
		"huge":            {&messages.Write{Request: 1, Command: make([]byte, messages.CommandSizeMax+1)}, messages.Code_INVALID},
	} {
		s := newSessionCore(1, testClient, nil, leaderAt(1, 1), 1)
		s.onWrite("asker", row.write)
		effects := s.take()
		if code, ok := answerCode(effects); !ok || code != row.code || len(effects) != 1 {
			t.Errorf("%s: %v, want %v alone", name, effects, row.code)
		}
		if len(s.writes) != 0 || s.bytes != 0 {
			t.Errorf("%s: something is pending", name)
		}
	}
}

// Whose a session is, its node says, and no client.
func TestSessionSaysWhoseItIs(t *testing.T) {
	for name, holder := range map[string][]byte{"a host": {10, 0, 0, 1}, "nobody": nil} {
		s := newSessionCore(1, testClient, holder, leaderAt(1, 1), 1)
		s.onWrite("asker", command(t, 1, func(c *messages.Command) {
			c.Open = &messages.OpenSession{TtlMs: 7, BeforeMs: 5, Holder: []byte("another")}
		}))
		plain := command(t, 2, func(c *messages.Command) { c.Open = nil })
		s.onWrite("asker", plain)
		effects := s.take()
		got := new(messages.Command)
		if err := proto.Unmarshal(effects[0].(proposeTo).Propose.Command, got); err != nil {
			t.Fatal(err)
		}
		if o := got.Open; o.TtlMs != 7 || o.BeforeMs != 5 || !bytes.Equal(o.Holder, holder) || len(got.Operations) == 0 {
			t.Errorf("%s: %v is proposed", name, got)
		}
		if !bytes.Equal(effects[1].(proposeTo).Propose.Command, plain.Command) {
			t.Errorf("%s: a command that opens nothing is changed", name)
		}
	}
}

// A command is proposed in the name of whose session it is, and one that was not allowed when it
// was applied is answered with what is missing, as far as that is known here.
func TestSessionSaysWhatIsMissing(t *testing.T) {
	s := newSessionCore(1, testClient, nil, leaderAt(2, 5), 1)
	s.principal = "alice"
	for seq := uint64(1); seq <= 2; seq++ {
		s.onWrite("asker", command(t, seq, nil))
	}
	for _, e := range s.take() {
		if p, ok := e.(proposeTo); !ok || p.Propose.Principal != "alice" {
			t.Fatalf("%#v", e)
		}
	}
	hint := func(seq uint64) string {
		t.Helper()
		s.onOutcome(&messages.Outcome{Seq: seq, Code: messages.Code_NOT_ALLOWED})
		return s.take()[0].(answer).Reply.(*messages.WriteReply).Hint
	}
	if got := hint(1); got != "see what he may do now: kvctl auth status" { // what was missing is not known here any more, or not yet
		t.Error(got)
	}
	s.auth = &messages.Auth{Enabled: true, Users: []*messages.User{{Name: "root", Grants: []*messages.Grant{{Role: messages.UserRole_ADMIN}}}}}
	if got := hint(2); !strings.Contains(got, "root: kvctl user grant alice writer") {
		t.Error(got)
	}
}

// Refusals are told within bounds, and how many were not.
func TestGatewayTellsFewDenials(t *testing.T) {
	var log bytes.Buffer
	a := &gateway{wiring: &wiring{logger: slog.New(slog.NewTextHandler(&log, nil))}}
	for range 100 {
		a.onDenied(&messages.Denied{Principal: "alice", Request: "12345678-w1", Why: "no"})
	}
	if n := strings.Count(log.String(), "principal=alice request=12345678-w1"); n != deniedMax {
		t.Errorf("%d lines", n)
	}
	a.denied = 0 // a tick
	a.onDenied(&messages.Denied{Principal: "alice"})
	if want := fmt.Sprintf("kept_silent=%d", 100-deniedMax); !strings.Contains(log.String(), want) {
		t.Errorf("no %s in %s", want, log.String())
	}
}

func TestSessionProposesAnewToEveryNewLeader(t *testing.T) {
	s := newSessionCore(1, testClient, nil, leaderAt(2, 5), 1)
	for seq := uint64(3); seq >= 1; seq-- {
		s.onWrite("asker", command(t, seq, nil))
	}
	s.take()
	s.onLeader(nil, 6, 1)
	if effects := s.take(); len(effects) != 0 {
		t.Fatalf("without a leader: %v", effects)
	}
	s.onLeader(leaderAt(3, 6), 6, 1)
	effects := s.take()
	for i, e := range effects {
		if p, ok := e.(proposeTo); !ok || p.Leader != 3 || p.Propose.Seq != uint64(i+1) || p.Propose.Origin != 1 {
			t.Fatalf("effect %d: %#v", i, e)
		}
	}
	if len(effects) != 3 {
		t.Fatalf("%d of 3 proposed anew", len(effects))
	}
	s.onLeader(leaderAt(2, 5), 5, 1)
	s.onProposalRefused(&messages.ProposalRefused{Seq: 1, Code: messages.Code_REDIRECT, Term: 5})
	if effects := s.take(); len(effects) != 0 {
		t.Fatalf("news of an older term: %v", effects)
	}
	s.onOutcome(&messages.Outcome{Seq: 2, Code: messages.Code_OK, Revision: 9})
	s.onOutcome(&messages.Outcome{Seq: 2, Code: messages.Code_OK, Revision: 9})
	if effects := s.take(); len(effects) != 1 {
		t.Fatalf("an outcome is answered once: %v", effects)
	}
}

// A refusal says that nothing happened only if it answers the only proposal.
func TestSessionSaysUnknownOfWhatAnEarlierLeaderMayHaveTaken(t *testing.T) {
	s := newSessionCore(1, testClient, nil, leaderAt(2, 5), 1)
	s.onWrite("asker", command(t, 1, nil))
	s.take()
	s.onProposalRefused(&messages.ProposalRefused{Seq: 1, Code: messages.Code_REDIRECT, Term: 5})
	if code, _ := answerCode(s.take()); code != messages.Code_REDIRECT {
		t.Errorf("of the only proposal: %v", code)
	}
	s.onWrite("asker", command(t, 2, nil))
	s.onLeader(leaderAt(3, 6), 6, 1)
	s.take()
	s.onProposalRefused(&messages.ProposalRefused{Seq: 2, Code: messages.Code_REDIRECT, Term: 6})
	if code, _ := answerCode(s.take()); code != messages.Code_OUTCOME_UNKNOWN {
		t.Errorf("of the second proposal: %v", code)
	}
}

func TestSessionGivesNoAdviceThatTheLeaderItAskedContradicts(t *testing.T) {
	for name, row := range map[string]struct {
		refusal *messages.ProposalRefused
		leader  uint64
	}{
		"it names another":       {&messages.ProposalRefused{Seq: 1, Code: messages.Code_REDIRECT, Leader: 3, Term: 6}, 0},
		"it names nobody":        {&messages.ProposalRefused{Seq: 1, Code: messages.Code_REDIRECT, Term: 6}, 0},
		"it is busy":             {&messages.ProposalRefused{Seq: 1, Code: messages.Code_BUSY, Leader: 2, Term: 5}, 2},
		"the link to it is full": {&messages.ProposalRefused{Seq: 1, Code: messages.Code_BUSY}, 2},
	} {
		s := newSessionCore(1, testClient, nil, leaderAt(2, 5), 1)
		s.onWrite("asker", command(t, 1, nil))
		s.take()
		s.onProposalRefused(row.refusal)
		effects := s.take()
		if len(effects) != 1 || effects[0].(answer).Reply.(*messages.WriteReply).Leader.GetRaftId() != row.leader {
			t.Errorf("%s: %v", name, effects)
		}
	}
	s := newSessionCore(1, testClient, nil, leaderAt(2, 5), 1)
	s.onWrite("asker", command(t, 1, nil))
	s.onLeader(leaderAt(3, 6), 6, 1)
	s.take()
	s.onProposalRefused(&messages.ProposalRefused{Seq: 1, Code: messages.Code_BUSY})
	if effects := s.take(); len(effects) != 0 {
		t.Errorf("a full link to the old leader ended what the new one has: %v", effects)
	}
}

func TestSessionCredits(t *testing.T) {
	s := newSessionCore(1, testClient, nil, leaderAt(1, 1), 1)
	for seq := range uint64(sessionRequestsMax) {
		s.onWrite("asker", command(t, seq+1, nil))
	}
	s.take()
	s.onWrite("asker", command(t, sessionRequestsMax+1, nil))
	if code, _ := answerCode(s.take()); code != messages.Code_BUSY {
		t.Fatalf("beyond the credits: %v", code)
	}
	s.onRead("asker", &messages.Read{Request: 1, Kind: &messages.Read_Get{Get: &messages.Get{Key: []byte("k")}}})
	if code, _ := answerCode(s.take()); code != messages.Code_BUSY {
		t.Fatalf("a read beyond the credits: %v", code)
	}
	s.onOutcome(&messages.Outcome{Seq: 1})
	s.take()
	s.onWrite("asker", command(t, sessionRequestsMax+1, nil))
	if _, answered := answerCode(s.take()); answered {
		t.Fatal("a credit came back and was not taken")
	}
}

func TestSessionAsksAgainForWhatALinkMayHaveLost(t *testing.T) {
	s := newSessionCore(1, testClient, nil, leaderAt(2, 1), 1)
	s.onWrite("asker", command(t, 1, nil))
	s.onRead("asker", &messages.Read{Request: 7, Kind: &messages.Read_Get{Get: &messages.Get{Key: []byte("k")}}})
	s.take()
	proposed, asked, gaveUp := 0, 0, 0
	for range giveUpTicks/8 + 1 {
		s.onTick(8)
		for _, e := range s.take() {
			switch e.(type) {
			case proposeTo:
				proposed++
			case readIndex:
				asked++
			case answer:
				gaveUp++
			}
		}
	}
	// After 2, 6, 14 and 30 seconds, and after 3, 9, 21 and 45: what is slow was not lost.
	if proposed != 4 || asked != 4 || gaveUp != 2 {
		t.Fatalf("proposed %d times, asked %d times, gave up %d", proposed, asked, gaveUp)
	}
	if len(s.writes)+len(s.reads)+s.bytes != 0 {
		t.Fatal("something is still pending")
	}
}

func TestSessionOfTheLeadersNodeNeverProposesTwice(t *testing.T) {
	s := newSessionCore(1, testClient, nil, leaderAt(1, 1), 1)
	s.onWrite("asker", command(t, 1, nil))
	s.take()
	s.onWrite("another", command(t, 1, nil))
	s.onTick(proposeAgainTicks)
	if effects := s.take(); len(effects) != 0 {
		t.Fatalf("%v", effects)
	}
	s.onOutcome(&messages.Outcome{Seq: 1})
	if a := s.take()[0].(answer); a.Actor != "another" {
		t.Fatalf("answered %s, who did not ask last", a.Actor)
	}
}

// A session has few scans under way at once: the others end with it.
func TestSessionHoldsScansBack(t *testing.T) {
	s := newSessionCore(1, testClient, nil, nil, 1)
	sent := func() (requests []uint64) {
		for _, e := range s.take() {
			if r, ok := e.(readIndex); ok {
				requests = append(requests, r.Read.Request)
			}
		}
		return requests
	}
	scan := func(n uint64) *messages.Read {
		return &messages.Read{Request: n, Kind: &messages.Read_Scan{Scan: &messages.Scan{}}}
	}
	for n := range uint64(scansMax + 4) {
		s.onRead("a", scan(n))
	}
	s.onRead("a", &messages.Read{Request: 99, Kind: &messages.Read_Get{Get: &messages.Get{Key: []byte("k")}}})
	if got := sent(); len(got) != scansMax+1 || got[scansMax] != 99 {
		t.Fatalf("sent on are %v", got)
	}
	s.answerRead(&messages.ReadReply{Request: 99})
	if got := sent(); got != nil {
		t.Errorf("a get made room for %v", got)
	}
	for n := range uint64(2) {
		s.answerRead(&messages.ReadReply{Request: n})
	}
	if got := sent(); !slices.Equal(got, []uint64{scansMax, scansMax + 1}) {
		t.Errorf("two were answered, sent on are %v", got)
	}
	s.onTick(readAgainTicks)
	if got := sent(); len(got) != scansMax {
		t.Errorf("asked for again are %v", got)
	}
	s.onTick(giveUpTicks)
	if s.take(); len(s.reads) != 0 || s.scans != 0 || len(s.held) != 0 {
		t.Errorf("left are %d reads, %d scans, %v", len(s.reads), s.scans, s.held)
	}
}

func TestSessionThatEndsDropsItsReads(t *testing.T) {
	for _, row := range []struct {
		reads, drops int
	}{{0, 0}, {1, 1}, {scansMax + 5, 1}} {
		s := newSessionCore(1, testClient, nil, nil, 1)
		for n := range row.reads {
			s.onRead("a", &messages.Read{Request: uint64(n), Kind: &messages.Read_Scan{Scan: &messages.Scan{}}})
		}
		s.take()
		s.end()
		drops, answers := 0, 0
		for _, e := range s.take() {
			switch e.(type) {
			case dropReads:
				drops++
			case answer:
				answers++
			default:
				t.Errorf("%d reads: at its end the session wants %#v", row.reads, e)
			}
		}
		if drops != row.drops || answers != row.reads {
			t.Errorf("%d reads: dropped %d times, %d answers", row.reads, drops, answers)
		}
	}
}

func TestSessionReads(t *testing.T) {
	s := newSessionCore(1, testClient, nil, nil, 1)
	get := &messages.Read_Get{Get: &messages.Get{Key: []byte("k")}}
	s.onRead("a", &messages.Read{Request: 1, Kind: get})
	s.onRead("a", &messages.Read{Request: 2, Consistency: messages.Consistency_STALE, Kind: get})
	s.onRead("a", &messages.Read{Request: 3})
	effects := s.take()
	if _, ok := effects[0].(readIndex); !ok {
		t.Errorf("linearizable: %#v", effects[0])
	}
	if _, ok := effects[1].(readStale); !ok {
		t.Errorf("stale: %#v", effects[1])
	}
	if code, _ := answerCode(effects[2:]); code != messages.Code_INVALID {
		t.Errorf("neither get nor scan: %v", code)
	}
	s.onReadRefused(&messages.ReadRefused{Request: 1, Code: messages.Code_NO_LEADER})
	if code, _ := answerCode(s.take()); code != messages.Code_NO_LEADER {
		t.Errorf("refused: %v", code)
	}
}

// A command that the cluster's level does not admit is refused before it is proposed.
func TestSessionGoesByTheLevel(t *testing.T) {
	s := newSessionCore(1, testClient, nil, leaderAt(1, 1), 0)
	put := &messages.Command{Session: testClient, Seq: 1, Operations: []*messages.Operation{{Kind: &messages.Operation_Put{Put: &messages.Put{Key: []byte("k")}}}}}
	command, err := proto.Marshal(put)
	if err != nil {
		t.Fatal(err)
	}
	s.onWrite("desk", &messages.Write{Request: 1, Command: command})
	reply := s.take()[0].(answer).Reply.(*messages.WriteReply)
	if reply.Code != messages.Code_UNSUPPORTED || reply.Message != "the command needs cluster level 1, the cluster is at 0" {
		t.Errorf("%s", messages.Line(reply))
	}
	s.onLeader(leaderAt(1, 1), 1, 1)
	s.onWrite("desk", &messages.Write{Request: 1, Command: command})
	if _, proposed := s.take()[0].(proposeTo); !proposed {
		t.Error("it is not proposed at its level")
	}
}

// A node that may have lost data answers no read, stale or not, and none that is under way.
func TestAFencedSessionReadsNothing(t *testing.T) {
	s := newSessionCore(1, testClient, nil, leaderAt(2, 1), 1)
	read := func(request uint64, level messages.Consistency) {
		s.onRead("asker", &messages.Read{Request: request, Consistency: level, Kind: &messages.Read_Get{Get: &messages.Get{Key: []byte("k")}}})
	}
	refused := func(what string, want int) {
		t.Helper()
		n := 0
		for _, e := range s.take() {
			switch e := e.(type) {
			case answer:
				if r := e.Reply.(*messages.ReadReply); r.Code != messages.Code_NO_LEADER || r.Message != fencedText {
					t.Errorf("%s: %v", what, r)
				}
				n++
			case readStale, readIndex:
				t.Errorf("%s: %#v", what, e)
			}
		}
		if n != want {
			t.Errorf("%s: %d are refused, want %d", what, n, want)
		}
	}
	read(1, messages.Consistency_STALE)
	read(2, messages.Consistency_LINEARIZABLE)
	s.take()
	s.onFenced(true)
	refused("under way", 2)
	s.answerRead(&messages.ReadReply{Request: 1})
	refused("answered too late", 0)
	s.onFenced(true)
	read(3, messages.Consistency_STALE)
	read(4, messages.Consistency_LINEARIZABLE)
	refused("new", 2)
	s.onFenced(false)
	read(5, messages.Consistency_STALE)
	if effects := s.take(); len(effects) != 1 {
		t.Errorf("lifted: %#v", effects)
	}
}

// Where there is no room, what needs some is refused before it is proposed, and nothing else.
func TestSessionRefusesWhatNeedsRoom(t *testing.T) {
	const why = "n2 has 120 MB free, 512 MB are needed: writes are refused"
	deletes := func(c *messages.Command) {
		c.Operations[0].Kind = &messages.Operation_Delete{Delete: &messages.Delete{Key: []byte("k")}}
	}
	puts := &messages.Operation{Kind: &messages.Operation_Put{Put: &messages.Put{Key: []byte("k"), Value: []byte("v")}}}
	for name, row := range map[string]struct {
		write   *messages.Write
		refused bool
	}{
		"a put":           {command(t, 1, nil), true},
		"a delete":        {command(t, 1, deletes), false},
		"a put beside it": {command(t, 1, func(c *messages.Command) { deletes(c); c.Operations = append(c.Operations, puts) }), true},
		"a put if it does not hold": {command(t, 1, func(c *messages.Command) {
			deletes(c)
			c.Otherwise = []*messages.Operation{puts}
			c.Conditions = []*messages.Condition{{Key: []byte("k"), Target: &messages.Condition_ModRevision{}}}
		}), true},
		"a compaction": {command(t, 1, func(c *messages.Command) {
			c.Operations[0].Kind = &messages.Operation_Compact{Compact: &messages.Compact{Revision: 3}}
		}), false},
	} {
		s := newSessionCore(1, testClient, nil, leaderAt(1, 1), 1)
		s.refused = why
		s.onWrite("asker", row.write)
		effects := s.take()
		code, answered := answerCode(effects)
		if answered != row.refused || row.refused && code != messages.Code_BUSY {
			t.Errorf("%s: %v", name, effects)
		}
		if row.refused && effects[0].(answer).Reply.(*messages.WriteReply).Message != why {
			t.Errorf("%s: %v", name, effects)
		}
		s.refused = ""
		s.onWrite("asker", command(t, 2, nil))
		if _, answered := answerCode(s.take()); answered {
			t.Errorf("%s: refused with room again", name)
		}
	}
}

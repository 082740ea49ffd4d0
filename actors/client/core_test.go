package client

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// script drives a core and writes down what it wants done, a line an effect.
type script struct {
	t *testing.T
	c *core
}

func newScript(t *testing.T, endpoints ...string) *script {
	s := &script{t, newCore(settings{endpoints: endpoints, sessionTTLMs: 60_000})}
	s.c.links.cursor = 0
	return s
}

// expect holds the effects of one event against the wanted lines.
func (s *script) expect(effects []effect, want ...string) {
	s.t.Helper()
	var got []string
	for _, e := range effects {
		got = append(got, s.line(e))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Fatalf("effects (-want +got):\n%s", diff)
	}
	checkInvariants(s.t, s.c)
}

func (s *script) line(e effect) string {
	switch e := e.(type) {
	case dial:
		return "dial " + e.endpoint
	case hang:
		return "hang " + e.endpoint
	case send:
		return e.node + " " + strings.TrimPrefix(e.actor, "node/") + " " + s.message(e.message)
	case answer:
		return fmt.Sprintf("answer %d %s", e.done.Tag, codeOf(e.done))
	}
	s.t.Fatalf("unknown effect %T", e)
	return ""
}

func (s *script) message(m proto.Message) string {
	switch m := m.(type) {
	case *messages.Attach:
		if bytes.Equal(m.Client, s.c.session.client) {
			return "attach"
		}
		return "attach another client"
	case *messages.Write:
		c := commandOf(s.t, m)
		line := fmt.Sprintf("write %d acked %d", c.Seq, c.AckedBelow)
		if c.Open != nil {
			line += fmt.Sprintf(" open %d before %d", c.Open.TtlMs, c.Open.BeforeMs)
		}
		return line
	}
	return messages.Line(m)
}

func commandOf(t interface{ Fatalf(string, ...any) }, m *messages.Write) *messages.Command {
	c := new(messages.Command)
	if err := proto.Unmarshal(m.Command, c); err != nil {
		t.Fatalf("the command cannot be read: %v", err)
	}
	return c
}

func codeOf(d *messages.Done) messages.Code {
	switch {
	case d.Write != nil:
		return d.Write.Code
	case d.Read != nil:
		return d.Read.Code
	case d.Snapshot != nil:
		return d.Snapshot.Code
	case d.Cluster != nil:
		return d.Cluster.Code
	}
	return d.Status.GetCode()
}

func put(tag uint64) *messages.Submit {
	return &messages.Submit{Tag: tag, DeadlineMs: 2000, Operations: []*messages.Operation{
		{Kind: &messages.Operation_Put{Put: &messages.Put{Key: []byte("k"), Value: []byte(fmt.Sprint(tag))}}},
	}}
}

func get(tag uint64) *messages.Submit {
	return &messages.Submit{Tag: tag, DeadlineMs: 2000, Read: &messages.Read{Kind: &messages.Read_Get{Get: &messages.Get{Key: []byte("k")}}}}
}

func statusOf(tag uint64) *messages.Submit {
	return &messages.Submit{Tag: tag, DeadlineMs: 2000, Status: &messages.StatusRequest{}}
}

func snapshotsOf(tag uint64) *messages.Submit {
	return &messages.Submit{Tag: tag, DeadlineMs: 2000, Snapshot: &messages.SnapshotRequest{
		Kind: &messages.SnapshotRequest_List{List: &messages.SnapshotList{}},
	}}
}

func (s *script) submit(m *messages.Submit) []effect { return s.c.submit(asker{"here", "me"}, m) }

func up(endpoint string, id messages.RaftID) *messages.LinkUp {
	return &messages.LinkUp{Endpoint: endpoint, RaftId: id, Name: fmt.Sprint("n", id), ClusterId: []byte("one")}
}

func gave(session string, leader *messages.Leader) *messages.Attached {
	return &messages.Attached{Session: session, LogTimeMs: 1000, RequestsMax: 2, BytesMax: 1 << 20, Leader: leader}
}

func down(endpoint string) *messages.LinkDown {
	return &messages.LinkDown{Endpoint: endpoint, Code: messages.Code_UNREACHABLE, Message: "connection refused"}
}

func leads(id messages.RaftID, address string, term uint64) *messages.Leader {
	return &messages.Leader{RaftId: id, Name: fmt.Sprint("n", id), Address: address, Term: term}
}

// attached is the answer to the last Attach.
func (s *script) attached(m *messages.Attached) []effect {
	m.Request = s.c.links.attaches
	return s.c.attached(m)
}

// serve brings s to a session at the first endpoint, which is node 1.
func (s *script) serve(endpoint string, leader *messages.Leader) {
	s.t.Helper()
	s.expect(s.c.start(), "dial "+endpoint)
	s.expect(s.c.linkUp(up(endpoint, 1)), "node/1 gateway attach")
	s.expect(s.attached(gave("session", leader)))
}

func TestFirstWriteOpensTheSessionAndOutcomesAdvanceAckedBelow(t *testing.T) {
	s := newScript(t, "a:1")
	s.serve("a:1", nil)
	s.expect(s.submit(put(1)), "node/1 session write 1 acked 1 open 60000 before 61000")
	s.expect(s.submit(put(2)), "node/1 session write 2 acked 1 open 60000 before 61000")
	s.expect(s.submit(put(3))) // no credit
	s.expect(s.c.writeReply(&messages.WriteReply{Request: 2, Revision: 8}),
		"answer 2 OK", "node/1 session write 3 acked 1")
	s.expect(s.c.writeReply(&messages.WriteReply{Request: 1, Revision: 7}), "answer 1 OK")
	s.expect(s.submit(put(4)), "node/1 session write 4 acked 3")
	s.expect(s.c.writeReply(&messages.WriteReply{Request: 1, Revision: 7})) // a late repetition
}

func TestSilentNodeIsAskedTwiceWithin300MsThenLeft(t *testing.T) {
	s := newScript(t, "a:1", "b:1")
	s.serve("a:1", nil)
	s.expect(s.submit(put(1)), "node/1 session write 1 acked 1 open 60000 before 61000")
	again := s.until(300, func(e effect) bool { w, ok := e.(send); return ok && w.node == "node/1" })
	if again > 300 {
		t.Fatalf("sent again after %d ms", again)
	}
	if left := s.until(700, func(e effect) bool { return e == dial{"b:1"} }); again+left > 700 {
		t.Fatalf("left after %d ms", again+left)
	}
	s.expect(s.c.linkUp(up("b:1", 2)), "node/2 gateway attach")
	s.expect(s.attached(gave("other", nil)), "node/2 other write 1 acked 1 open 60000 before 61000", "hang a:1")
	s.expect(s.c.linkDown(down("a:1")))
	s.expect(s.c.writeReply(&messages.WriteReply{Request: 1, Revision: 9}), "answer 1 OK")
}

// until ticks until an effect is the wanted one, and returns the milliseconds.
func (s *script) until(limit uint64, wanted func(effect) bool) uint64 {
	s.t.Helper()
	for passed := uint64(50); passed <= limit; passed += 50 {
		for _, e := range s.c.tick(50) {
			if wanted(e) {
				return passed
			}
		}
	}
	s.t.Fatalf("not within %d ms", limit)
	return 0
}

func TestLostLinkSendsTheSameBytesOverTheNext(t *testing.T) {
	s := newScript(t, "a:1", "b:1")
	s.serve("a:1", nil)
	first := s.submit(put(1))[0].(send).message.(*messages.Write)
	s.expect(s.c.linkDown(down("a:1")), "dial b:1")
	s.c.linkUp(up("b:1", 2))
	second := s.attached(gave("other", nil))[0].(send).message.(*messages.Write)
	if !bytes.Equal(first.Command, second.Command) {
		t.Fatal("a repetition is another command")
	}
}

func TestWritesMoveToALeaderThatIsNoEndpoint(t *testing.T) {
	s := newScript(t, "a:1")
	s.serve("a:1", leads(2, "b:1", 5))
	s.expect(s.submit(get(1)), `node/1 session Read{request=1 get=Get{key="k"}}`)
	s.expect(s.submit(put(2)), "dial b:1", "node/1 session write 1 acked 1 open 60000 before 61000")
	s.expect(s.c.linkUp(up("b:1", 2)), "node/2 gateway attach")
	s.expect(s.attached(gave("other", leads(2, "b:1", 5)))) // what node 1 holds stays there
	s.expect(s.submit(put(3)), "node/2 other write 2 acked 1 open 60000 before 61000")
	s.expect(s.c.writeReply(&messages.WriteReply{Request: 1, Revision: 7}), "answer 2 OK")
	s.expect(s.c.readReply(&messages.ReadReply{Request: 1, Revision: 7}), "answer 1 OK", "hang a:1")
}

func TestUnreachableLeaderLeavesWritesWithTheNodeInUse(t *testing.T) {
	s := newScript(t, "a:1")
	s.serve("a:1", leads(2, "b:1", 5))
	s.expect(s.submit(put(1)), "dial b:1", "node/1 session write 1 acked 1 open 60000 before 61000")
	s.expect(s.c.linkDown(down("b:1")))
	s.expect(s.c.writeReply(&messages.WriteReply{Request: 1, Revision: 7}), "answer 1 OK")
	s.expect(s.submit(put(2)), "node/1 session write 2 acked 2")
}

func TestOlderLeaderIsNotFollowed(t *testing.T) {
	s := newScript(t, "a:1")
	s.serve("a:1", leads(1, "a:1", 5))
	s.expect(s.submit(put(1)), "node/1 session write 1 acked 1 open 60000 before 61000")
	s.expect(s.c.writeReply(&messages.WriteReply{Request: 1, Revision: 7, Leader: leads(2, "b:1", 4)}), "answer 1 OK")
	s.expect(s.submit(put(2)), "node/1 session write 2 acked 2")
}

func TestExpiredSession(t *testing.T) {
	expired := func(seq uint64) *messages.WriteReply {
		return &messages.WriteReply{Request: seq, Code: messages.Code_SESSION_EXPIRED}
	}
	t.Run("a command that was sent once goes into a new session", func(t *testing.T) {
		s := newScript(t, "a:1")
		s.serve("a:1", nil)
		s.submit(put(1))
		old := s.c.session.client
		s.expect(s.c.writeReply(expired(1)), "node/1 gateway attach")
		if bytes.Equal(old, s.c.session.client) {
			t.Fatal("the new session has the old ClientID")
		}
		s.expect(s.attached(gave("fresh", nil)), "node/1 session Detach{}",
			"node/1 fresh write 2 acked 2 open 60000 before 61000")
		s.expect(s.c.writeReply(&messages.WriteReply{Request: 2, Revision: 7}), "answer 1 OK")
	})
	t.Run("a command that was sent twice has an unknown outcome", func(t *testing.T) {
		s := newScript(t, "a:1")
		s.serve("a:1", nil)
		s.submit(put(1))
		s.until(300, func(e effect) bool { _, ok := e.(send); return ok })
		s.expect(s.c.writeReply(expired(1)), "answer 1 OUTCOME_UNKNOWN", "node/1 gateway attach")
	})
	t.Run("a command that was sent twice, and whose session was never open, goes into a new session", func(t *testing.T) {
		s := newScript(t, "a:1")
		s.serve("a:1", nil)
		s.submit(put(1))
		s.until(300, func(e effect) bool { _, ok := e.(send); return ok })
		never := expired(1)
		never.Unopened = true
		s.expect(s.c.writeReply(never), "node/1 gateway attach")
		s.expect(s.c.writeReply(never))
		s.expect(s.attached(gave("fresh", nil)), "node/1 session Detach{}",
			"node/1 fresh write 2 acked 2 open 60000 before 61000")
		s.expect(s.c.writeReply(&messages.WriteReply{Request: 2, Revision: 7}), "answer 1 OK")
	})
	t.Run("the old session's commands are answered before the new one starts", func(t *testing.T) {
		s := newScript(t, "a:1")
		s.serve("a:1", nil)
		s.submit(put(1))
		s.submit(put(2))
		s.expect(s.c.writeReply(expired(2)))
		s.expect(s.c.writeReply(&messages.WriteReply{Request: 1, Revision: 7}), "answer 1 OK", "node/1 gateway attach")
	})
	t.Run("sessions that keep expiring are reported", func(t *testing.T) {
		s := newScript(t, "a:1")
		s.serve("a:1", nil)
		s.submit(put(1))
		for range renewalsMax {
			s.c.writeReply(expired(s.c.session.next - 1))
			before := s.c.session.next
			s.attached(gave("fresh", nil))
			for s.c.session.next == before {
				s.c.tick(50)
			}
		}
		s.expect(s.c.writeReply(expired(s.c.session.next-1)), "answer 1 SESSION_EXPIRED", "node/1 gateway attach")
	})
}

// TestDeadlines: what the asker is told when the time is up.
func TestDeadlines(t *testing.T) {
	noLeader := &messages.WriteReply{Request: 1, Code: messages.Code_NO_LEADER}
	tests := []struct {
		name string
		run  func(s *script)
		code messages.Code
		says []string
	}{
		{"no endpoint answers", func(s *script) {
			s.c.start()
			s.c.linkDown(down("a:1"))
			s.submit(put(1))
			s.c.linkDown(down("b:1"))
		}, messages.Code_UNREACHABLE, []string{"a:1: no answer to the dial", "b:1: connection refused"}},
		{"a node waits", func(s *script) {
			s.c.start()
			s.submit(put(1))
			m := up("a:1", 1)
			m.WaitingFor = "waiting to be added"
			s.c.linkUp(m)
		}, messages.Code_UNREACHABLE, []string{"a:1: node n1 is up but does not serve yet: waiting to be added"}},
		{"a write was sent and not answered", func(s *script) {
			s.serve("a:1", nil)
			s.submit(put(1))
		}, messages.Code_OUTCOME_UNKNOWN, []string{"may or may not have happened"}},
		{"a write was sent, lost, and then refused", func(s *script) {
			s.serve("a:1", nil)
			s.submit(put(1))
			s.until(300, func(e effect) bool { _, ok := e.(send); return ok })
			s.c.writeReply(noLeader)
		}, messages.Code_OUTCOME_UNKNOWN, []string{"may or may not have happened"}},
		{"a read was sent and not answered", func(s *script) {
			s.serve("a:1", nil)
			s.submit(get(1))
		}, messages.Code_TIMED_OUT, []string{"no answer within 2000 ms"}},
		{"a write waits for credits", func(s *script) {
			s.serve("a:1", nil)
			s.submit(get(7))
			s.submit(get(8))
			brief := put(1)
			brief.DeadlineMs = 400
			s.submit(brief)
		}, messages.Code_TIMED_OUT, []string{"was not sent"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t, "a:1", "b:1")
			tt.run(s)
			d := s.answerTo(1, 2000)
			if codeOf(d) != tt.code {
				t.Fatalf("code %s, want %s", codeOf(d), tt.code)
			}
			text := d.GetWrite().GetMessage() + d.GetRead().GetMessage()
			for _, want := range tt.says {
				if !strings.Contains(text, want) {
					t.Errorf("%q does not say %q", text, want)
				}
			}
			if d.Endpoint == "" || d.Hint == "" {
				t.Errorf("endpoint %q, hint %q", d.Endpoint, d.Hint)
			}
		})
	}
}

// answerTo ticks until a request is answered, at the latest when limit has passed.
func (s *script) answerTo(tag, limit uint64) *messages.Done {
	s.t.Helper()
	var done *messages.Done
	s.until(limit, func(e effect) bool {
		a, ok := e.(answer)
		if ok && a.done.Tag == tag {
			done = a.done
		}
		return done != nil
	})
	return done
}

// refusing answers every write with a code, for as long as the script ticks.
func (s *script) refusing(tag, limit uint64, code messages.Code) *messages.Done {
	s.t.Helper()
	var done *messages.Done
	var take func([]effect)
	take = func(effects []effect) {
		for _, e := range effects {
			switch e := e.(type) {
			case answer:
				done = e.done
			case send:
				if w, ok := e.message.(*messages.Write); ok {
					take(s.c.writeReply(&messages.WriteReply{Request: w.Request, Code: code}))
				}
			}
		}
	}
	take(s.submit(put(tag)))
	for passed := uint64(0); passed < limit && done == nil; passed += 50 {
		take(s.c.tick(50))
	}
	if done == nil {
		s.t.Fatalf("no answer within %d ms", limit)
	}
	return done
}

func TestRefusedToTheEndSurelyDidNotHappen(t *testing.T) {
	for sent, want := range map[messages.Code]messages.Code{
		messages.Code_NO_LEADER: messages.Code_NO_LEADER, messages.Code_REDIRECT: messages.Code_NO_LEADER,
		messages.Code_BUSY: messages.Code_BUSY, messages.Code_INTERNAL: messages.Code_OUTCOME_UNKNOWN,
	} {
		s := newScript(t, "a:1")
		s.serve("a:1", nil)
		if d := s.refusing(1, 2000, sent); codeOf(d) != want {
			t.Errorf("%s to the end: %s, want %s", sent, codeOf(d), want)
		}
	}
}

func TestUselessNodeIsLeft(t *testing.T) {
	s := newScript(t, "a:1", "b:1")
	s.serve("a:1", nil)
	s.submit(put(1))
	s.expect(s.c.writeReply(&messages.WriteReply{Request: 1, Code: messages.Code_NO_LEADER}))
	s.until(300, func(e effect) bool { _, ok := e.(send); return ok })
	s.expect(s.c.writeReply(&messages.WriteReply{Request: 1, Code: messages.Code_NO_LEADER}), "dial b:1")
}

// A node that is cut off from its cluster still answers stale reads: that does not
// keep a client whose writes it cannot serve.
func TestStaleAnswersDoNotMakeANodeUseful(t *testing.T) {
	s := newScript(t, "a:1", "b:1")
	s.serve("a:1", nil)
	s.submit(put(1))
	for passed := 50; ; passed += 50 {
		if passed > 900 {
			t.Fatal("the node is not left within 900 ms")
		}
		stale := get(uint64(passed))
		stale.Read.Consistency = messages.Consistency_STALE
		for _, e := range s.submit(stale) {
			if r, ok := e.(send); ok {
				s.c.readReply(&messages.ReadReply{Request: r.message.(*messages.Read).Request, Revision: 1})
			}
		}
		for _, e := range s.c.tick(50) {
			if e == (dial{"b:1"}) {
				return
			}
		}
	}
}

func (s *script) withdraw(from string, tag uint64, late bool) []effect {
	return s.c.withdraw(asker{"here", from}, &messages.Withdraw{Tag: tag, Late: late})
}

func TestWithdrawnIsAnsweredAtOnceAndNotSentAgain(t *testing.T) {
	s := newScript(t, "a:1")
	s.serve("a:1", nil)
	for tag := range uint64(5) { // more than the node gives credit for: the last ones wait
		s.submit(put(tag + 1))
	}
	s.expect(s.withdraw("another", 1, false))
	s.expect(s.withdraw("me", 1, false), "answer 1 OUTCOME_UNKNOWN", "node/1 session write 3 acked 2 open 60000 before 61000")
	s.expect(s.withdraw("me", 1, true))
	s.expect(s.withdraw("me", 5, false), "answer 5 TIMED_OUT")
	s.expect(s.withdraw("me", 4, true), "answer 4 TIMED_OUT")
	s.expect(s.withdraw("me", 4711, true))
	sent := 0
	for range 20 {
		for _, e := range s.c.tick(50) {
			sending, _ := e.(send)
			w, ok := sending.message.(*messages.Write)
			if ok && w.Request == 1 {
				t.Fatal("what was withdrawn is sent again")
			}
			if ok {
				sent++
			}
		}
	}
	if sent == 0 {
		t.Error("the others are not sent again")
	}
}

func TestAbandonedNumberDoesNotHoldBackAckedBelow(t *testing.T) {
	s := newScript(t, "a:1")
	s.serve("a:1", nil)
	brief := put(1)
	brief.DeadlineMs = 300
	s.submit(brief)
	if d := s.answerTo(1, 300); codeOf(d) != messages.Code_OUTCOME_UNKNOWN {
		t.Fatalf("code %s", codeOf(d))
	}
	var last string
	for _, e := range s.submit(put(2)) {
		last = s.line(e)
	}
	if want := "node/1 session write 2 acked 2 open 60000 before 61000"; last != want {
		t.Fatalf("got %q, want %q", last, want)
	}
}

func TestRefusalByEveryEndpointIsReportedAtOnce(t *testing.T) {
	s := newScript(t, "a:1")
	s.expect(s.submit(put(1)), "dial a:1")
	s.expect(s.c.linkDown(&messages.LinkDown{Endpoint: "a:1", Code: messages.Code_UNSUPPORTED, Message: "speaks protocol 2"}),
		"answer 1 UNSUPPORTED")
	s.expect(s.submit(put(2)), "answer 2 UNSUPPORTED")
	s.c.tick(1000)
	s.expect(s.submit(put(3)), "dial a:1")
}

// A node that is full sends a client to another; where all are, it is tried again, and
// the deadline says BUSY.
func TestFullNodesSendOnToOthers(t *testing.T) {
	s := newScript(t, "a:1", "b:1")
	full := func(endpoint string) *messages.LinkDown {
		return &messages.LinkDown{Endpoint: endpoint, Code: messages.Code_BUSY, Message: "takes no more", Hint: "use another node"}
	}
	s.expect(s.submit(put(1)), "dial a:1")
	s.expect(s.c.linkDown(full("a:1")), "dial b:1")
	s.expect(s.c.linkDown(full("b:1")))
	for range 300 {
		for effects := s.c.tick(50); len(effects) > 0; {
			e := effects[0]
			effects = effects[1:]
			switch e := e.(type) {
			case dial:
				effects = append(effects, s.c.linkDown(full(e.endpoint))...)
			case answer:
				if codeOf(e.done) != messages.Code_BUSY || e.done.Hint != "use another node" {
					t.Errorf("%v", e.done)
				}
				return
			}
		}
	}
	t.Error("no answer")
}

func TestNodeOfAnotherClusterIsRefused(t *testing.T) {
	s := newScript(t, "a:1", "b:1")
	s.serve("a:1", nil)
	s.submit(put(1))
	s.c.linkDown(down("a:1"))
	stranger := up("b:1", 1)
	stranger.ClusterId = []byte("two")
	s.expect(s.c.linkUp(stranger), "hang b:1")
}

// TestLateAttachedIsNotTakenForAnother: a node answers so late that its link was given up
// meanwhile. The answer goes to the client's address, and so comes over the link that the
// client has to that node by then.
func TestLateAttachedIsNotTakenForAnother(t *testing.T) {
	late := func(s *script) *messages.Attached { // of the first Attach, which was given up
		s.submit(put(1))
		s.expect(s.c.linkUp(up("a:1", 1)), "node/1 gateway attach")
		return &messages.Attached{Request: s.c.links.attaches, Session: "late", RequestsMax: 2, BytesMax: 1 << 20}
	}
	t.Run("node's", func(t *testing.T) {
		s := newScript(t, "a:1", "b:1")
		m := late(s)
		s.expect(s.c.tick(500), "hang a:1", "dial b:1")
		s.expect(s.c.linkUp(up("b:1", 2)), "node/2 gateway attach")
		s.expect(s.c.linkDown(down("a:1")))
		s.expect(s.c.attached(m))
		s.expect(s.attached(gave("other", nil)), "node/2 other write 1 acked 1 open 60000 before 61000")
	})
	t.Run("Attach of the same node", func(t *testing.T) {
		s := newScript(t, "a:1")
		m := late(s)
		s.expect(s.c.tick(500), "hang a:1")
		s.expect(s.c.linkDown(down("a:1")))
		s.until(500, func(e effect) bool { return e == dial{"a:1"} })
		s.expect(s.c.linkUp(up("a:1", 1)), "node/1 gateway attach")
		s.expect(s.c.attached(m)) // the gateway has stopped that session actor for the next
		s.expect(s.attached(gave("session", nil)), "node/1 session write 1 acked 1 open 60000 before 61000")
		s.expect(s.c.attached(m))
	})
}

// A Submit may come right before a tick: the first tick after it says little about how
// long it has waited.
func TestNoDeadlineIsEarly(t *testing.T) {
	s := newScript(t, "a:1")
	s.c.tickMs = 50
	brief := get(1)
	brief.DeadlineMs = 100
	s.expect(s.submit(brief), "dial a:1")
	s.expect(s.c.tick(50))
	s.expect(s.c.tick(50)) // it may have waited for 51 ms only
	s.expect(s.c.tick(50), "answer 1 UNREACHABLE")
}

func TestStatusNeedsNoSession(t *testing.T) {
	s := newScript(t, "a:1")
	s.expect(s.submit(statusOf(1)), "dial a:1")
	s.expect(s.c.linkUp(up("a:1", 1)), "node/1 gateway attach", "node/1 gateway StatusRequest{request=1}")
	s.expect(s.attached(&messages.Attached{Code: messages.Code_BUSY}))
	s.expect(s.c.statusReply(&messages.StatusReply{Request: 1, Name: "n1"}), "answer 1 OK", "hang a:1")
}

func TestSnapshotRequestNeedsNoSession(t *testing.T) {
	s := newScript(t, "a:1")
	s.expect(s.submit(snapshotsOf(1)), "dial a:1")
	s.expect(s.c.linkUp(up("a:1", 1)), "node/1 gateway attach", "node/1 snapshots SnapshotRequest{request=1 list=SnapshotList{}}")
	s.expect(s.submit(statusOf(2)), "node/1 gateway StatusRequest{request=2}")
	s.expect(s.c.statusReply(&messages.StatusReply{Request: 1}))     // nobody asked for that
	s.expect(s.c.snapshotReply(&messages.SnapshotReply{Request: 2})) // nor for that
	s.expect(s.c.snapshotReply(&messages.SnapshotReply{Request: 1, Code: messages.Code_INTERNAL, Message: "the disk is full"}), "answer 1 INTERNAL")
	s.expect(s.c.statusReply(&messages.StatusReply{Request: 2, Name: "n1"}), "answer 2 OK")
}

// A node may read much before it answers: it is not asked again at once.
func TestSlowRequestsAreNotRepeatedAtOnce(t *testing.T) {
	digest := get(1)
	digest.Read.Kind = &messages.Read_Digest{Digest: &messages.Digest{Limit: 9}}
	for _, m := range []*messages.Submit{snapshotsOf(1), digest} {
		s := newScript(t, "a:1")
		s.serve("a:1", nil)
		s.submit(m)
		if again := s.until(2000, func(e effect) bool { _, ok := e.(send); return ok }); again < patienceMaxMs {
			t.Errorf("sent again after %d ms", again)
		}
	}
}

// Megabytes on their way are given time: sent again, they would only be later.
func TestPatienceGrowsWithWhatIsUnanswered(t *testing.T) {
	s := newScript(t, "a:1")
	s.c.start()
	s.c.linkUp(up("a:1", 1))
	m := gave("session", nil)
	m.RequestsMax, m.BytesMax = 16, 8<<20
	s.attached(m)
	for tag := range uint64(15) {
		large := put(tag + 1)
		large.Operations[0].GetPut().Value = make([]byte, 500<<10)
		s.submit(large)
	}
	first, last := s.c.requests.writes[1].patience, s.c.requests.writes[15].patience
	if first > 320 || last < 15*500<<10/patienceBytes || last > 1300 {
		t.Errorf("the first of 15 large writes has %d ms to be answered, the last %d ms", first, last)
	}
}

func TestBusySnapshotsAreAskedAgain(t *testing.T) {
	s := newScript(t, "a:1")
	s.serve("a:1", nil)
	s.submit(snapshotsOf(1))
	s.expect(s.c.snapshotReply(&messages.SnapshotReply{Request: 1, Code: messages.Code_BUSY}))
	s.until(300, func(e effect) bool { m, ok := e.(send); return ok && m.actor == messages.ActorSnapshots })
	s.expect(s.c.snapshotReply(&messages.SnapshotReply{Request: 1}), "answer 1 OK")
}

func TestNothingIsDialledAgainBeforeItsLinkDown(t *testing.T) {
	s := newScript(t, "a:1")
	s.submit(put(1))
	for range 19 {
		s.expect(s.c.tick(50))
	}
	s.expect(s.c.tick(50), "hang a:1")
	s.expect(s.c.linkUp(up("a:1", 1))) // it came up meanwhile
	s.expect(s.c.tick(500))
	s.expect(s.c.linkDown(down("a:1")), "dial a:1")
}

func TestSessionActorThatIsGoneIsReplacedAtTheOnlyEndpoint(t *testing.T) {
	s := newScript(t, "a:1")
	s.serve("a:1", nil)
	s.submit(get(1))
	s.until(1500, func(e effect) bool {
		m, ok := e.(send)
		return ok && m.actor == messages.ActorGateway
	})
}

func TestBounds(t *testing.T) {
	s := newScript(t, "a:1")
	s.expect(s.c.start(), "dial a:1")
	for i := range requestsMax {
		s.expect(s.submit(get(uint64(i))))
	}
	s.expect(s.submit(get(9999)), "answer 9999 BUSY")

	s = newScript(t, "a:1")
	big := put(1)
	big.Operations[0].GetPut().Value = make([]byte, messages.ValueSizeMax)
	held := 0
	for ; held < requestsMax && len(s.submit(big)) == 0 || held == 0; held++ {
	}
	if got := s.c.requests.bytes; got > bytesMax || got < bytesMax-2*messages.ValueSizeMax {
		t.Fatalf("%d requests hold %d bytes, the bound is %d", held, got, bytesMax)
	}
}

func TestNodeThatRefusesAnotherSessionIsLeft(t *testing.T) {
	s := newScript(t, "a:1", "b:1")
	s.serve("a:1", nil)
	s.submit(put(1))
	s.submit(get(2))
	s.expect(s.c.writeReply(&messages.WriteReply{Request: 1, Code: messages.Code_SESSION_EXPIRED}), "node/1 gateway attach")
	s.expect(s.attached(&messages.Attached{Code: messages.Code_BUSY}), "dial b:1", "hang a:1")
	s.c.linkUp(up("b:1", 2))
	s.expect(s.attached(gave("other", nil)),
		`node/2 other Read{request=1 get=Get{key="k"}}`, "node/2 other write 2 acked 2 open 60000 before 61000")
}

func TestNumbersStayWithinTheWindowOfTheSession(t *testing.T) {
	s := newScript(t, "a:1")
	s.c.start()
	s.c.linkUp(up("a:1", 1))
	s.attached(&messages.Attached{Session: "session", RequestsMax: 5000})
	for i := range uint64(sessionWindow) {
		if effects := s.submit(put(i + 1)); len(effects) != 1 {
			t.Fatalf("command %d is not sent", i+1)
		}
	}
	s.expect(s.submit(put(5000)))
	s.expect(s.c.writeReply(&messages.WriteReply{Request: 2, Revision: 9}), "answer 2 OK")
	s.expect(s.c.writeReply(&messages.WriteReply{Request: 1, Revision: 8}), "answer 1 OK", "node/1 session write 1025 acked 3")
}

func TestInvalidSubmitsAreAnsweredAtOnce(t *testing.T) {
	noKey := put(1)
	noKey.Operations[0].GetPut().Key = nil
	large := put(1)
	large.Operations = append(large.Operations, put(1).Operations...)
	large.Operations[0].GetPut().Value = make([]byte, messages.ValueSizeMax)
	large.Operations[1].GetPut().Value = make([]byte, messages.ValueSizeMax)
	both := put(1)
	both.Read = get(1).Read
	noKind := get(1)
	noKind.Read = &messages.Read{}
	noSnapshot, noID := snapshotsOf(1), snapshotsOf(1)
	noSnapshot.Snapshot.Kind = nil
	noID.Snapshot.Kind = &messages.SnapshotRequest_Delete{Delete: &messages.SnapshotDelete{Id: "../wal"}}
	wide := get(1)
	wide.Read.Kind = &messages.Read_Digest{Digest: &messages.Digest{From: make([]byte, messages.KeySizeMax+2)}}
	future := put(1)
	future.Operations[0].Kind = &messages.Operation_Compact{Compact: &messages.Compact{}}
	for name, m := range map[string]*messages.Submit{
		"nothing": {Tag: 1}, "two things": both, "no key": noKey, "too large together": large, "a read of nothing": noKind,
		"nothing of snapshots": noSnapshot, "no id": noID, "a wide bound": wide, "compacting at nothing": future,
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, "a:1")
			s.expect(s.submit(m), "answer 1 INVALID")
		})
	}
}

func TestCloseAnswersEverybody(t *testing.T) {
	s := newScript(t, "a:1")
	s.serve("a:1", nil)
	s.submit(put(1))
	s.submit(get(2))
	s.submit(put(3))
	s.expect(s.c.close(), "answer 1 OUTCOME_UNKNOWN", "answer 2 INVALID", "answer 3 INVALID",
		"node/1 session Detach{}", "hang a:1")
	s.expect(s.submit(put(4)), "answer 4 INVALID")
	s.expect(s.c.tick(50))
}

// checkInvariants holds the state against what its fields promise.
func checkInvariants(t interface {
	Helper()
	Fatalf(string, ...any)
}, c *core) {
	t.Helper()
	q, s := &c.requests, &c.session
	count, size := 0, 0
	requests, sizes, ofNode := map[*link]int{}, map[*link]int{}, map[*link]int{}
	lowest := s.next
	for _, r := range q.all {
		if r.done {
			continue
		}
		count++
		size += r.size
		switch {
		case r.via != nil && r.kind.ofNode():
			ofNode[r.via]++
		case r.via != nil:
			requests[r.via]++
			sizes[r.via] += r.size
		}
		if r.kind == write && r.number != 0 {
			lowest = min(lowest, r.number)
		}
	}
	if count != q.count || size != q.bytes || count > requestsMax || size > bytesMax {
		t.Fatalf("%d requests of %d bytes are counted as %d of %d", count, size, q.count, q.bytes)
	}
	if lowest != s.acked || s.next-s.acked > sessionWindow {
		t.Fatalf("acked %d, lowest unanswered %d, next %d", s.acked, lowest, s.next)
	}
	links := append([]*link{}, c.links.parting...)
	if c.links.current != nil {
		links = append(links, c.links.current)
	}
	if c.links.next != nil {
		links = append(links, c.links.next)
	}
	for _, l := range links {
		if l.at.link != l || l.at.hanging {
			t.Fatalf("the link at %s is not the endpoint's", l.at.name)
		}
		if l.requests != requests[l] || l.bytes != sizes[l] || l.ofNode != ofNode[l] {
			t.Fatalf("%s holds %d requests, %d bytes, %d of its node, counted as %d, %d, %d",
				l.at.name, requests[l], sizes[l], ofNode[l], l.requests, l.bytes, l.ofNode)
		}
		if l.requests > l.requestsMax || l.requests > 1 && l.bytes > l.bytesMax {
			t.Fatalf("%s: %d requests of %d, %d bytes of %d", l.at.name, l.requests, l.requestsMax, l.bytes, l.bytesMax)
		}
		delete(requests, l)
		delete(ofNode, l)
	}
	if len(requests)+len(ofNode) > 0 {
		t.Fatalf("requests are with links that are gone")
	}
}

package state

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/raft/v3/raftpb"
	"pgregory.net/rapid"

	"keyval/messages"
	"keyval/storeactor/disk/disktest"
	"keyval/storeactor/state/statetest"
)

// step is one command in an entry of its own, at a log time, and its outcome.
type step struct {
	now     uint64
	client  byte
	seq     uint64
	acked   uint64
	open    *messages.OpenSession
	outcome string
}

func TestSessions(t *testing.T) {
	day := uint64(SessionTTLMaxMS)
	for _, test := range []struct {
		name  string
		steps []step
		left  string // clients that are left
	}{
		{"an unknown session", []step{
			{now: 5, client: 1, seq: 1, outcome: "1:SESSION_EXPIRED@0 deleted 0"},
		}, ""},
		{"opened with the first command", []step{
			{now: 5, client: 1, seq: 1, open: statetest.Opens(10, 15), outcome: "1:OK@1 deleted 0"},
			{now: 5, client: 1, seq: 2, outcome: "2:OK@2 deleted 0"},
		}, "1"},
		{"an opening just in time", []step{
			{now: 5, client: 1, seq: 1, open: statetest.Opens(10, 5), outcome: "1:OK@1 deleted 0"},
		}, "1"},
		{"a late opening", []step{
			{now: 5, client: 1, seq: 1, open: statetest.Opens(10, 4), outcome: "1:SESSION_EXPIRED@0 deleted 0"},
		}, ""},
		{"openings that may not be", []step{
			{now: 5, client: 1, seq: 1, open: statetest.Opens(0, 5), outcome: "1:INVALID@0 deleted 0"},
			{now: 5, client: 1, seq: 1, open: statetest.Opens(day+1, 5), outcome: "1:INVALID@0 deleted 0"},
			{now: 5, client: 1, seq: 1, open: statetest.Opens(10, 16), outcome: "1:INVALID@0 deleted 0"},
			{now: 5, client: 1, seq: 1, open: statetest.Opens(day, day+5), outcome: "1:INVALID@0 deleted 0"},
			{now: 5, client: 1, seq: 1, open: statetest.Opens(day, 6+messages.SessionOpenMaxMS), outcome: "1:INVALID@0 deleted 0"},
			{now: 5, client: 1, seq: 1, open: statetest.Opens(day, 5+messages.SessionOpenMaxMS), outcome: "1:OK@1 deleted 0"},
		}, "1"},
		{"numbers that may not be", []step{
			{now: 5, client: 1, seq: 0, open: statetest.Opens(10, 15), outcome: "0:INVALID@0 deleted 0"},
			{now: 5, client: 1, seq: 2, acked: 3, open: statetest.Opens(10, 15), outcome: "2:INVALID@0 deleted 0"},
		}, ""},
		{"a repetition has the same outcome, out of order too", []step{
			{now: 5, client: 1, seq: 3, open: statetest.Opens(10, 15), outcome: "3:OK@1 deleted 0"},
			{now: 5, client: 1, seq: 1, open: statetest.Opens(10, 15), outcome: "1:OK@2 deleted 0"},
			{now: 6, client: 1, seq: 3, outcome: "3:OK@1 deleted 0"},
			{now: 16, client: 1, seq: 1, open: statetest.Opens(10, 15), outcome: "1:OK@2 deleted 0"},
			{now: 16, client: 1, seq: 2, outcome: "2:OK@3 deleted 0"},
		}, "1"},
		{"what is acknowledged is never executed again", []step{
			{now: 5, client: 1, seq: 1, open: statetest.Opens(10, 15), outcome: "1:OK@1 deleted 0"},
			{now: 5, client: 1, seq: 3, acked: 3, outcome: "3:OK@2 deleted 0"},
			{now: 5, client: 1, seq: 1, outcome: "1:CONFLICT@2 deleted 0"},
			{now: 5, client: 1, seq: 2, acked: 2, outcome: "2:CONFLICT@2 deleted 0"},
			{now: 5, client: 1, seq: 3, outcome: "3:OK@2 deleted 0"},
		}, "1"},
		{"the window is 4 here", []step{
			{now: 5, client: 1, seq: 4, open: statetest.Opens(10, 15), outcome: "4:BUSY@0 deleted 0"},
			{now: 5, client: 1, seq: 3, open: statetest.Opens(10, 15), outcome: "3:OK@1 deleted 0"},
			{now: 5, client: 1, seq: 4, outcome: "4:BUSY@1 deleted 0"},
			{now: 5, client: 1, seq: 4, acked: 1, outcome: "4:OK@2 deleted 0"},
		}, "1"},
		{"a session expires a ttl after its last command", []step{
			{now: 5, client: 1, seq: 1, open: statetest.Opens(10, 5), outcome: "1:OK@1 deleted 0"},
			{now: 15, client: 1, seq: 1, outcome: "1:OK@1 deleted 0"},
			{now: 25, client: 1, seq: 2, outcome: "2:OK@2 deleted 0"},
			{now: 36, client: 1, seq: 3, outcome: "3:SESSION_EXPIRED@2 deleted 0"},
		}, ""},
		{"a session outlives its opening", []step{
			{now: 5, client: 1, seq: 1, open: statetest.Opens(10, 5), outcome: "1:OK@1 deleted 0"},
			{now: 5, client: 1, seq: 2, open: statetest.Opens(50, 55), outcome: "2:OK@2 deleted 0"},
			{now: 55, client: 2, seq: 1, open: statetest.Opens(9, 60), outcome: "1:OK@3 deleted 0"},
			{now: 55, client: 1, seq: 2, open: statetest.Opens(50, 55), outcome: "2:OK@2 deleted 0"},
		}, "1 2"},
		{"the idlest goes first", []step{
			{now: 1, client: 3, seq: 1, open: statetest.Opens(99, 1), outcome: "1:OK@1 deleted 0"},
			{now: 2, client: 2, seq: 1, open: statetest.Opens(99, 2), outcome: "1:OK@2 deleted 0"},
			{now: 3, client: 1, seq: 1, open: statetest.Opens(99, 3), outcome: "1:OK@3 deleted 0"},
			{now: 4, client: 3, seq: 2, acked: 2, outcome: "2:OK@4 deleted 0"},
			{now: 5, client: 4, seq: 1, open: statetest.Opens(99, 5), outcome: "1:OK@5 deleted 0"},
			{now: 6, client: 5, seq: 1, open: statetest.Opens(99, 5+99), outcome: "1:OK@6 deleted 0"},
			{now: 7, client: 6, seq: 1, open: statetest.Opens(99, 7), outcome: "1:OK@7 deleted 0"},
			{now: 7, client: 2, seq: 2, outcome: "2:SESSION_EXPIRED@7 deleted 0"},
		}, "3 4 5 6"},
		{"among equally idle ones the smallest ClientID goes", []step{
			{now: 1, client: 4, seq: 1, open: statetest.Opens(99, 1), outcome: "1:OK@1 deleted 0"},
			{now: 1, client: 2, seq: 1, open: statetest.Opens(99, 1), outcome: "1:OK@2 deleted 0"},
			{now: 1, client: 3, seq: 1, open: statetest.Opens(99, 1), outcome: "1:OK@3 deleted 0"},
			{now: 1, client: 5, seq: 1, open: statetest.Opens(99, 1), outcome: "1:OK@4 deleted 0"},
			{now: 2, client: 1, seq: 1, open: statetest.Opens(99, 2), outcome: "1:OK@5 deleted 0"},
		}, "3 4 5 1"},
		{"none is evicted that a late opening could want", []step{
			{now: 1, client: 1, seq: 1, open: statetest.Opens(99, 50), outcome: "1:OK@1 deleted 0"},
			{now: 2, client: 2, seq: 1, open: statetest.Opens(99, 50), outcome: "1:OK@2 deleted 0"},
			{now: 3, client: 3, seq: 1, open: statetest.Opens(99, 50), outcome: "1:OK@3 deleted 0"},
			{now: 4, client: 4, seq: 1, open: statetest.Opens(99, 60), outcome: "1:OK@4 deleted 0"},
			{now: 50, client: 5, seq: 1, open: statetest.Opens(99, 60), outcome: "1:BUSY@4 deleted 0"},
			{now: 51, client: 5, seq: 1, open: statetest.Opens(99, 60), outcome: "1:OK@5 deleted 0"},
			{now: 51, client: 1, seq: 1, open: statetest.Opens(99, 50), outcome: "1:SESSION_EXPIRED@5 deleted 0"},
		}, "2 3 4 5"},
		{"outcomes take room too, but none of their own session's", []step{
			{now: 1, client: 1, seq: 1, open: statetest.Opens(99, 1), outcome: "1:OK@1 deleted 0"},
			{now: 1, client: 2, seq: 1, open: statetest.Opens(99, 20), outcome: "1:OK@2 deleted 0"},
			{now: 1, client: 3, seq: 1, open: statetest.Opens(99, 1), outcome: "1:OK@3 deleted 0"},
			{now: 1, client: 3, seq: 2, outcome: "2:OK@4 deleted 0"},
			{now: 2, client: 4, seq: 1, open: statetest.Opens(99, 20), outcome: "1:OK@5 deleted 0"},
			{now: 2, client: 4, seq: 2, outcome: "2:OK@6 deleted 0"},
			{now: 3, client: 3, seq: 3, outcome: "3:OK@7 deleted 0"}, // client 1 went for it
			{now: 3, client: 1, seq: 2, outcome: "2:SESSION_EXPIRED@7 deleted 0"},
		}, "2 4 3"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newReplica(t, statetest.First(), disktest.NewMemory(), narrowBounds)
			for i, s := range test.steps {
				c := &messages.Command{Session: statetest.Client(s.client), Seq: s.seq, AckedBelow: s.acked, Open: s.open, Operations: statetest.Ops(statetest.Put("k", ""))}
				settled := r.apply(statetest.Entry(uint64(i)+2, s.now, c))
				if got := settled[0].outcome.String(); got != s.outcome {
					t.Errorf("step %d gives %s, not %s", i+1, got, s.outcome)
				}
			}
			var left []string
			for _, s := range r.state.sessions.sorted() {
				left = append(left, fmt.Sprint(s.client[0]))
			}
			if got := strings.Join(left, " "); got != test.left {
				t.Errorf("left are the sessions of %q, not %q", got, test.left)
			}
		})
	}
}

// Where no session may go for it, another outcome is refused, and the command not
// executed.
func TestOutcomesFindNoRoom(t *testing.T) {
	bounds := sessionBounds{sessions: 9, bytes: sessionBytes + 2*outcomeBytes, window: 9}
	r := newReplica(t, statetest.First(), disktest.NewMemory(), bounds)
	var got []string
	for _, c := range []*messages.Command{
		{Seq: 1, Open: statetest.Opens(9, 9)},
		{Seq: 2},
		{Seq: 3},
		{Seq: 4, AckedBelow: 2},
	} {
		c.Session, c.Operations = statetest.Client(1), statetest.Ops(statetest.Put("a", fmt.Sprint(c.Seq)))
		got = append(got, r.apply(statetest.Entry(r.state.index+1, c.Seq, c))[0].outcome.String())
	}
	want := []string{"1:OK@1 deleted 0", "2:OK@2 deleted 0", "3:BUSY@2 deleted 0", "4:OK@3 deleted 0"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	if live := r.store.Live(t, 4); live != "a=4@3" {
		t.Errorf("there is %q", live)
	}
}

// However often and in whatever order a client's commands come into the log, each
// has its effect at most once, and all its executions have the one outcome.
func TestCommandsTakeEffectAtMostOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		commands := drawClients(rt)
		r := newReplica(t, statetest.First(), disktest.NewMemory(), narrowBounds)
		now := uint64(0)
		executed, unopened := map[string]string{}, map[string]bool{}
		for i := range rapid.IntRange(1, 60).Draw(rt, "entries") {
			now += rapid.SampledFrom([]uint64{0, 0, 0, 0, 1, 2, 5, 30}).Draw(rt, "time")
			var list []*messages.Command
			for range rapid.IntRange(1, 4).Draw(rt, "commands") {
				list = append(list, rapid.SampledFrom(commands).Draw(rt, "command"))
			}
			for n, s := range r.apply(statetest.Entry(uint64(i)+2, now, list...)) {
				if s.outcome.unopened {
					unopened[string(list[n].Session)] = true
				}
				if s.outcome.code != messages.Code_OK {
					continue
				}
				name, outcome := commandName(list[n]), s.outcome.String()
				if before, known := executed[name]; known && before != outcome {
					rt.Fatalf("%s had the outcome %s, and later %s", name, before, outcome)
				}
				executed[name] = outcome
			}
		}
		for _, c := range commands {
			name := commandName(c)
			if n, executed := len(r.store.Rows[name]), executed[name] != ""; n > 1 || executed != (n == 1) {
				rt.Fatalf("%s has taken effect %d times, executed: %v", name, n, executed)
			} else if n > 0 && unopened[string(c.Session)] {
				rt.Fatalf("%s has taken effect, and its session is said to have never been open", name)
			}
		}
		if n := len(r.state.sessions.rows); n > narrowBounds.sessions || r.state.sessions.bytes() > narrowBounds.bytes {
			rt.Fatalf("%d sessions take %d bytes", n, r.state.sessions.bytes())
		}
	})
}

// drawClients draws the commands of some clients. Each opens its session once,
// which any of its commands may carry, and leaves a mark of its own.
func drawClients(t *rapid.T) (commands []*messages.Command) {
	for id := range byte(rapid.IntRange(1, 8).Draw(t, "clients")) {
		ttl := rapid.Uint64Range(1, 40).Draw(t, "ttl")
		open := statetest.Opens(ttl, rapid.Uint64Range(ttl/2, ttl).Draw(t, "before"))
		open.Holder = []byte(rapid.SampledFrom([]string{"", "here", "there"}).Draw(t, "holder"))
		for seq := range rapid.Uint64Range(1, 6).Draw(t, "commands") {
			c := &messages.Command{Session: statetest.Client(id), Seq: seq + 1, AckedBelow: rapid.Uint64Range(0, seq+1).Draw(t, "acked_below")}
			if rapid.IntRange(0, 3).Draw(t, "opens") > 0 {
				c.Open = open
			}
			c.Operations = statetest.Ops(statetest.Put(commandName(c), ""))
			commands = append(commands, c)
		}
	}
	return commands
}

func commandName(c *messages.Command) string {
	return messages.RequestID(c.Session, messages.RequestWrite, c.Seq)
}

// Openings without end cost the memory of the bounds only.
func TestSessionsAreBounded(t *testing.T) {
	bounds := sessionBounds{sessions: 50, bytes: 40*sessionBytes + 40*outcomeBytes, window: 8}
	r := newReplica(t, statetest.First(), disktest.NewMemory(), bounds)
	for i := range 1000 {
		c := &messages.Command{Session: statetest.Client(0), Seq: 1, Open: statetest.Opens(SessionTTLMaxMS, uint64(i))}
		c.Session[0], c.Session[1] = byte(i), byte(i>>8)
		e := []*raftpb.Entry{statetest.Entry(uint64(i)+2, uint64(i), c)}
		if got := r.apply(e...)[0].outcome.code; got != messages.Code_OK {
			t.Fatalf("opening %d: %s", i, got)
		}
	}
	s := r.state.sessions
	queued := len(s.idle.heap) + len(s.pinned.heap)
	if len(s.rows) != 40 || len(s.expiry.heap) != 40 || queued != 40 || s.kept != 40 {
		t.Errorf("%d sessions, %d by deadline, %d to be evicted, %d outcomes", len(s.rows), len(s.expiry.heap), queued, s.kept)
	}
}

// Whoever opens all the sessions there may be, for as long as there may be, shuts others
// out until the openings end, and not for a day.
func TestSessionsOfOneClientShutNobodyOutForLong(t *testing.T) {
	const sessions = 20
	r := newReplica(t, statetest.First(), disktest.NewMemory(), sessionBounds{sessions: sessions, bytes: 1 << 20, window: 8})
	index := uint64(1)
	open := func(client byte, now uint64) messages.Code {
		index++
		c := &messages.Command{Session: statetest.Client(client), Seq: 1, Open: statetest.Opens(SessionTTLMaxMS, now+messages.SessionOpenMaxMS)}
		return r.apply(statetest.Entry(index, now, c))[0].outcome.code
	}
	for client := range byte(sessions) {
		if got := open(client, 5); got != messages.Code_OK {
			t.Fatalf("opening %d: %s", client, got)
		}
	}
	for _, step := range []struct {
		now  uint64
		code messages.Code
	}{{6, messages.Code_BUSY}, {5 + messages.SessionOpenMaxMS, messages.Code_BUSY}, {6 + messages.SessionOpenMaxMS, messages.Code_OK}} {
		if got := open(99, step.now); got != step.code {
			t.Errorf("another client at %d: %s, want %s", step.now, got, step.code)
		}
	}
}

// Log time leaps where a cluster was at rest. A session that the leap finds too late to
// open was surely never open; one that it ends, or that ended before, may have been.
func TestOpeningsThatALeapOfTimeFindsTooLate(t *testing.T) {
	type step struct {
		now    uint64
		client byte
		code   messages.Code
		never  bool
	}
	for name, steps := range map[string][]step{
		"it comes too late":                     {{5, 1, messages.Code_OK, false}, {90, 2, messages.Code_SESSION_EXPIRED, true}},
		"it comes too late twice":               {{5, 1, messages.Code_OK, false}, {90, 2, messages.Code_SESSION_EXPIRED, true}, {90, 2, messages.Code_SESSION_EXPIRED, true}},
		"it comes again, later":                 {{90, 2, messages.Code_SESSION_EXPIRED, true}, {91, 2, messages.Code_SESSION_EXPIRED, false}},
		"it was executed, and the leap ends it": {{5, 2, messages.Code_OK, false}, {90, 2, messages.Code_SESSION_EXPIRED, false}},
		"it may have ended before":              {{5, 2, messages.Code_OK, false}, {60, 1, messages.Code_SESSION_EXPIRED, true}, {90, 2, messages.Code_SESSION_EXPIRED, false}},
	} {
		r := newReplica(t, statetest.First(), disktest.NewMemory(), narrowBounds)
		for i, s := range steps {
			c := &messages.Command{Session: statetest.Client(s.client), Seq: 1, Open: statetest.Opens(20, 20)}
			o := r.apply(statetest.Entry(uint64(i)+2, s.now, c))[0].outcome
			if o.code != s.code || o.unopened != s.never {
				t.Errorf("%s: step %d: %s, never open: %v", name, i+1, o.code, o.unopened)
			}
		}
		// Of a checkpoint nobody knows what went before.
		again := newReplica(t, r.state.Checkpoint(), disktest.NewMemory(), narrowBounds)
		last := steps[len(steps)-1]
		c := &messages.Command{Session: statetest.Client(9), Seq: 1, Open: statetest.Opens(20, 20)}
		if o := again.apply(statetest.Entry(uint64(len(steps))+2, last.now, c))[0].outcome; o.code != messages.Code_SESSION_EXPIRED || o.unopened {
			t.Errorf("%s: from a checkpoint: %s, never open: %v", name, o.code, o.unopened)
		}
	}
}

// A holder that opens sessions without end has half of what there is, and evicts its own.
// Others lose none, however long theirs have been idle, and open more.
func TestOneHolderCostsOthersNothing(t *testing.T) {
	const minute = messages.SessionOpenMaxMS
	r := newReplica(t, statetest.First(), disktest.NewMemory(), sessionBounds{sessions: 20, bytes: 1 << 20, window: 8})
	index, clients, opened := uint64(1), byte(0), map[string]int{}
	open := func(holder string, now uint64) messages.Code {
		index++
		clients++
		o := statetest.Opens(SessionTTLMaxMS, now+minute)
		o.Holder = []byte(holder)
		got := r.apply(statetest.Entry(index, now, &messages.Command{Session: statetest.Client(clients), Seq: 1, Open: o}))[0].outcome.code
		if got == messages.Code_OK {
			opened[holder]++
		}
		return got
	}
	held := func(holder string) int {
		if h := r.state.sessions.holders[holder]; h != nil {
			return h.rows
		}
		return 0
	}
	for range 4 {
		open("b", 1)
		open("c", 1)
	}
	now := uint64(3 * minute) // the others are idle
	for i := range 30 {
		if got := open("a", now); (got == messages.Code_OK) != (i < 10) {
			t.Errorf("opening %d of a: %s", i+1, got)
		}
	}
	now += minute + 1 // its openings have ended
	for i := range 30 {
		if got := open("a", now); (got == messages.Code_OK) != (i < 10) {
			t.Errorf("opening %d of a, later: %s", i+1, got)
		}
	}
	if open("b", now) != messages.Code_OK || open("d", now) != messages.Code_OK {
		t.Error("others open no more")
	}
	if held("a") != 10 || held("b") != 5 || held("c") != 4 || held("d") != 1 {
		t.Errorf("a, b, c and d have %d, %d, %d and %d", held("a"), held("b"), held("c"), held("d"))
	}
	// All is full now. Nobody of those with the most may be evicted: the idlest goes for
	// one that has little, and for no other.
	if open("d", now) != messages.Code_OK || held("b")+held("c") != 8 {
		t.Errorf("b and c have %d and %d", held("b"), held("c"))
	}
	if got := open("a", now); got != messages.Code_BUSY || held("b")+held("c") != 8 {
		t.Errorf("a opens with %s, b and c have %d and %d", got, held("b"), held("c"))
	}
	now += minute + 1 // whoever has the most loses for others
	if open("c", now) != messages.Code_OK || held("a") != 9 {
		t.Errorf("a has %d", held("a"))
	}
}

// Outcomes pruned one by one, and a window that was once full, hold no memory.
func TestOutcomesReleaseTheirMemory(t *testing.T) {
	var k outcomes
	for seq := range uint64(1000) {
		k.insert(outcome{seq: seq})
	}
	for seq := range uint64(999) {
		if n := k.prune(seq + 1); n != 1 {
			t.Fatalf("pruning below %d takes %d", seq+1, n)
		}
	}
	if k.len() != 1 || k.list()[0].seq != 999 || cap(k.all) > 32 {
		t.Errorf("%d outcomes are left in room for %d", k.len(), cap(k.all))
	}
	allocations := testing.AllocsPerRun(1000, func() {
		next := k.list()[0].seq + 1
		k.insert(outcome{seq: next})
		k.prune(next)
	})
	if allocations != 0 {
		t.Errorf("a command allocates %v times", allocations)
	}
}

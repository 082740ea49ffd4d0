package state

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"keyval/actors/auth"
	"keyval/messages"
	"keyval/storeactor/disk/disktest"
	"keyval/storeactor/state/statetest"
)

// Rights count as of the entry that holds a command, and that it was not allowed is an outcome
// like any other.
func TestRightsCountWhenACommandIsApplied(t *testing.T) {
	r := newReplica(t, statetest.First(), disktest.NewMemory(), wideBounds)
	seq := uint64(0)
	command := func(operations ...*messages.Operation) *messages.Command {
		seq++
		return &messages.Command{Session: statetest.Client(1), Seq: seq, Open: statetest.Opens(1000, 1000), Operations: operations}
	}
	by := func(principal string, c *messages.Command) string {
		t.Helper()
		return r.apply(statetest.EntryBy(principal, r.state.index+1, 1, c))[0].outcome.String()
	}
	set := func(version uint64, users ...*messages.User) {
		t.Helper()
		if code := r.apply(statetest.Entry(r.state.index+1, 1, &messages.Command{Operations: statetest.Ops(statetest.SetAuth(version, users...))}))[0].outcome.code; code != messages.Code_OK {
			t.Fatal(code)
		}
	}
	is := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	is(by("", command(statetest.Put("a/1", "0"))), "1:OK@1 deleted 0")
	set(1, statetest.User("alice", messages.UserRole_WRITER, "a/"))
	is(by("", command(statetest.Put("a/1", "1"))), "2:NOT_ALLOWED@1 deleted 0")
	is(by("bob", command(statetest.Put("a/1", "1"))), "3:NOT_ALLOWED@1 deleted 0")
	put := command(statetest.Put("a/1", "1"))
	is(by("alice", put), "4:OK@2 deleted 0")
	is(by("alice", command(statetest.Put("a/1", "2"), statetest.Put("b/1", "2"))), "5:NOT_ALLOWED@2 deleted 0")
	is(by("alice", command(statetest.DeleteRange("a/", "a0", 0))), "6:OK@3 deleted 1")
	is(by("alice", command(statetest.DeleteRange("a/", "b", 1))), "7:NOT_ALLOWED@3 deleted 0")
	is(by("alice", command(statetest.Compact(2))), "8:NOT_ALLOWED@3 deleted 0")
	is(by("root", command(statetest.Compact(2))), "9:OK@3 deleted 0")
	peek := command(statetest.Put("a/1", "3"))
	peek.Conditions = []*messages.Condition{statetest.IfRevision("b/1", 0)}
	is(by("alice", peek), "10:NOT_ALLOWED@3 deleted 0")

	later := command(statetest.Put("a/1", "4"))
	set(2, statetest.User("alice", messages.UserRole_VIEWER, "a/"))
	is(by("alice", later), "11:NOT_ALLOWED@3 deleted 0") // whenever it was proposed
	is(by("alice", put), "4:OK@2 deleted 0")             // what took effect before is told again, and not done again
	set(3, statetest.User("alice", messages.UserRole_WRITER, "a/"))
	is(by("alice", later), "11:NOT_ALLOWED@3 deleted 0") // what was refused stays so
	is(by("alice", command(statetest.Put("a/1", "5"))), "12:OK@4 deleted 0")
	is(r.apply(statetest.Entry(r.state.index+1, 1, &messages.Command{Operations: statetest.Ops(statetest.Compact(4))}))[0].outcome.String(), "0:OK@4 deleted 0") // of a node
}

// A session that a user opened is his: nobody else uses up its numbers, is told of its outcomes,
// or keeps it alive.
func TestSessionsAreTheirUsers(t *testing.T) {
	r := newReplica(t, statetest.First(), disktest.NewMemory(), wideBounds)
	for _, step := range []struct {
		principal string
		now, seq  uint64
		opens     bool
		outcome   string
	}{
		{"alice", 1, 1, true, "1:OK@1 deleted 0"},
		{"bob", 2, 1, true, "1:NOT_ALLOWED@1 deleted 0"}, // he is not told what she did
		{"bob", 2, 2, false, "2:NOT_ALLOWED@1 deleted 0"},
		{"alice", 2, 2, false, "2:OK@2 deleted 0"}, // the number is still hers
		{"alice", 2, 1, true, "1:OK@1 deleted 0"},
		{"", 3, 2, false, "2:OK@2 deleted 0"}, // without keys nobody is told apart
		{"bob", 12, 3, false, "3:NOT_ALLOWED@2 deleted 0"},
		{"alice", 14, 3, false, "3:SESSION_EXPIRED@2 deleted 0"}, // he did not keep it alive
		{"bob", 14, 4, true, "4:OK@3 deleted 0"},
	} {
		c := &messages.Command{Session: statetest.Client(1), Seq: step.seq, Operations: statetest.Ops(statetest.Put("k", "v"))}
		if step.opens {
			c.Open = statetest.Opens(10, step.now)
			c.Open.Holder = messages.HolderOf(step.principal)
		}
		if got := r.apply(statetest.EntryBy(step.principal, r.state.index+1, step.now, c))[0].outcome.String(); got != step.outcome {
			t.Errorf("%+v: %s", step, got)
		}
	}
}

// What is asked in place is what package auth says of the same command.
func TestRightsInPlace(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := drawCommand(rt)
		c.Operations = slices.DeleteFunc(c.Operations, func(o *messages.Operation) bool { return o.Number() == 0 || o.Number().AboutMembers() })
		c.Otherwise = slices.DeleteFunc(c.Otherwise, func(o *messages.Operation) bool { return o.Number() == 0 || o.Number().AboutMembers() })
		key := ""
		if len(c.Operations) > 0 {
			key = string(c.Operations[0].GetPut().GetKey())
		}
		prefix := key[:rapid.IntRange(0, len(key)).Draw(rt, "prefix")]
		role := messages.UserRole(rapid.Int32Range(1, 4).Draw(rt, "role"))
		s := &State{auth: statetest.SetAuth(1, statetest.User("alice", role, prefix)).GetSetAuth().Auth}
		var read command
		data := statetest.Marshal(c)
		if proto.Unmarshal(data, &messages.Command{}) != nil || !read.read(data) {
			return
		}
		for _, who := range []string{"alice", "root", "", strings.Repeat("x", 70)} {
			want := auth.Missing(s.auth, who, auth.OfCommand(c)...)
			if got := s.allows([]byte(who), &read); got != (want == nil) {
				rt.Fatalf("%q, role %v on %q: %v, %v for %s", who, role, prefix, got, want, messages.Line(c))
			}
		}
	})
}

package actors_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"keyval/actors"
	"keyval/actors/client"
	"keyval/messages"
)

// fleet is some nodes in this process, with real disks and sockets, and a client that
// writes all the time.
type fleet struct {
	t     *testing.T
	ctx   context.Context
	at    map[string]string // address by name
	stop  map[string]func()
	c     *client.Client
	wrote chan error
}

func newFleet(t *testing.T, n int) *fleet {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	f := &fleet{t: t, ctx: ctx, at: map[string]string{}, stop: map[string]func(){}}
	var founders []*messages.Founder
	for i := range n {
		founders = append(founders, &messages.Founder{Name: fmt.Sprintf("node%d", i+1), Address: f.place(fmt.Sprintf("node%d", i+1))})
	}
	for _, o := range founders {
		f.serve(actors.ServeOptions{Name: o.Name, Listen: o.Address, InitialCluster: founders})
	}
	var err error
	if f.c, err = client.Connect(ctx, client.Options{Endpoints: []string{founders[n-1].Address}, Timeout: 30 * time.Second}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.c.Close()
		for _, stop := range f.stop {
			stop()
		}
		cancel()
	})
	return f
}

// place finds an address for a node.
func (f *fleet) place(name string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	defer l.Close()
	f.at[name] = l.Addr().String()
	return f.at[name]
}

func (f *fleet) serve(o actors.ServeOptions) {
	o.DataDir = f.t.TempDir() // an empty one
	o.Logger = f.logger(o.Name)
	ctx, cancel := context.WithCancel(f.ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := actors.Serve(ctx, o); err != nil && ctx.Err() == nil {
			f.t.Errorf("%s: %v", o.Name, err)
		}
	}()
	f.stop[o.Name] = func() { cancel(); <-ended }
}

func (f *fleet) ask(m *messages.ClusterRequest) (client.ClusterAnswer, error) {
	return f.c.AskCluster(f.ctx, m)
}

func (f *fleet) begin(o *messages.ClusterOperation) []byte {
	f.t.Helper()
	o.Id = make([]byte, messages.OperationIDSize)
	rand.Read(o.Id)
	if _, err := f.ask(&messages.ClusterRequest{Kind: &messages.ClusterRequest_Begin{Begin: &messages.BeginOperation{Operation: o}}}); err != nil {
		f.t.Fatalf("%v: %v", o.Kind, err)
	}
	return o.Id
}

// refused asks for an operation that is refused with that code.
func (f *fleet) refused(o *messages.ClusterOperation, code messages.Code, says string) {
	f.t.Helper()
	o.Id = make([]byte, messages.OperationIDSize)
	rand.Read(o.Id)
	_, err := f.ask(&messages.ClusterRequest{Kind: &messages.ClusterRequest_Begin{Begin: &messages.BeginOperation{Operation: o}}})
	if messages.CodeOf(err) != code || !strings.Contains(err.Error(), says) {
		f.t.Errorf("%v is answered %v: %v", o.Kind, messages.CodeOf(err), err)
	}
}

func (f *fleet) view() *messages.ClusterView {
	f.t.Helper()
	a, err := f.c.Cluster().Query(f.ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	return a.GetView()
}

// until waits for an operation to be in that phase.
func (f *fleet) until(id []byte, phase messages.OperationPhase) *messages.ClusterOperation {
	f.t.Helper()
	began := time.Now()
	for {
		for _, o := range f.view().Operations {
			if bytes.Equal(o.Id, id) && o.Phase == phase {
				f.t.Logf("%v of %s%s: %v after %v", o.Kind, o.OldNode, o.NewNode, phase, time.Since(began).Round(time.Millisecond))
				return o
			}
		}
		if time.Since(began) > 30*time.Second {
			f.t.Fatalf("operation %x does not come to %v: %s", id, phase, messages.Line(f.view()))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (f *fleet) members() string {
	var names []string
	for _, m := range f.view().Members {
		names = append(names, fmt.Sprintf("%s %v", m.Member.Name, m.Member.Type))
	}
	return strings.Join(names, ", ")
}

func (f *fleet) leader() string {
	f.t.Helper()
	for range 500 {
		v := f.view()
		for _, m := range v.Members {
			if m.Member.RaftId == v.Leader {
				return m.Member.Name
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	f.t.Fatal("nobody leads")
	return ""
}

// write puts keys until stop, which says the longest time between two acknowledgements.
func (f *fleet) write() (stop func() (writes int, gap time.Duration)) {
	ctx, cancel := context.WithCancel(f.ctx)
	ended := make(chan struct{})
	var writes int
	var gap time.Duration
	go func() {
		defer close(ended)
		for last := time.Now(); ctx.Err() == nil; writes++ {
			if _, err := f.c.Put(f.ctx, []byte("key"), fmt.Append(nil, writes)); err != nil {
				f.t.Errorf("a write failed: %v", err)
				return
			}
			gap, last = max(gap, time.Since(last)), time.Now()
		}
	}()
	return func() (int, time.Duration) { cancel(); <-ended; return writes, gap }
}

// Members come and go in a cluster that is written to all the time, its leader among them,
// and no write fails.
func TestMembersChangeUnderWrites(t *testing.T) {
	f := newFleet(t, 3)
	stop := f.write()
	const add, promote, remove = messages.OperationKind_ADD, messages.OperationKind_PROMOTE, messages.OperationKind_REMOVE

	first := f.leader()
	for _, to := range []string{"node1", "node2", "node3"} {
		if _, err := f.ask(&messages.ClusterRequest{Kind: &messages.ClusterRequest_Transfer{Transfer: &messages.TransferLeadership{To: to}}}); err != nil {
			t.Fatalf("from %s to %s: %v", first, to, err)
		}
		if got := f.leader(); got != to {
			t.Errorf("%s leads, and not %s", got, to)
		}
	}
	moved := strings.Replace(f.at["node2"], "127.0.0.1", "localhost", 1)
	if _, err := f.ask(&messages.ClusterRequest{Kind: &messages.ClusterRequest_Address{Address: &messages.ChangeAddress{Name: "node2", Address: moved}}}); err != nil {
		t.Error(err)
	}

	nowhere := f.place("node9")
	f.until(f.begin(&messages.ClusterOperation{Kind: add, NewNode: "node9", NewAddress: nowhere, StayLearner: true}), messages.OperationPhase_COMPLETE)
	f.refused(&messages.ClusterOperation{Kind: promote, NewNode: "node9"}, messages.Code_UNSAFE, "node9 has not joined yet")
	f.refused(&messages.ClusterOperation{Kind: add, NewNode: "node3", NewAddress: f.place("nobody")}, messages.Code_CONFLICT, "node3 is a member already")
	f.until(f.begin(&messages.ClusterOperation{Kind: remove, OldNode: "node9"}), messages.OperationPhase_COMPLETE)

	id := f.begin(&messages.ClusterOperation{Kind: messages.OperationKind_REPLACE, OldNode: "node2", NewNode: "node9", NewAddress: nowhere})
	f.until(id, messages.OperationPhase_CATCH_UP)
	f.refused(&messages.ClusterOperation{Kind: remove, OldNode: "node2"}, messages.Code_CONFLICT, fmt.Sprintf("operation %x is under way", id))
	if !strings.Contains(f.members(), "node9 LEARNER") {
		t.Error(f.members())
	}
	if _, err := f.ask(&messages.ClusterRequest{Kind: &messages.ClusterRequest_Abort{Abort: &messages.AbortOperation{Id: id}}}); err != nil {
		t.Error(err)
	}
	f.until(id, messages.OperationPhase_FAILED)
	if got := f.members(); got != "node1 VOTER, node2 VOTER, node3 VOTER" {
		t.Error(got)
	}

	f.until(f.begin(&messages.ClusterOperation{Kind: remove, OldNode: f.leader()}), messages.OperationPhase_COMPLETE)
	f.until(f.begin(&messages.ClusterOperation{Kind: remove, OldNode: f.leader()}), messages.OperationPhase_COMPLETE)
	last := f.leader()
	f.refused(&messages.ClusterOperation{Kind: remove, OldNode: last}, messages.Code_UNSAFE, "the last voter")
	if got := f.members(); got != last+" VOTER" {
		t.Error(got)
	}
	writes, gap := stop()
	t.Logf("%d writes, the longest gap %v", writes, gap.Round(time.Millisecond))
	if writes == 0 {
		t.Error("nothing was written")
	}
}

// join starts a node that asks to be let in, on an empty directory.
func (f *fleet) join(name, by string) {
	f.serve(actors.ServeOptions{Name: name, Listen: f.at[name], Join: []string{f.at[by]}})
}

// waits is why an operation waits, and what somebody can do, as soon as there is such a text.
func (f *fleet) waits(id []byte, says string) (hint string) {
	f.t.Helper()
	for range 500 {
		for _, w := range f.view().Waits {
			if bytes.Equal(w.Id, id) && strings.Contains(w.Why, says) {
				return w.Hint
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	f.t.Errorf("nobody says %q: %v", says, f.view().Waits)
	return ""
}

// A dead node is replaced by another, an emptied one comes back under its own name, and the
// leader is replaced while it leads, all under writes.
func TestReplacesUnderWrites(t *testing.T) {
	f := newFleet(t, 3)
	stop := f.write()
	const add, replace, complete = messages.OperationKind_ADD, messages.OperationKind_REPLACE, messages.OperationPhase_COMPLETE
	transfer := func(to string) {
		if _, err := f.ask(&messages.ClusterRequest{Kind: &messages.ClusterRequest_Transfer{Transfer: &messages.TransferLeadership{To: to}}}); err != nil {
			t.Error(err)
		}
	}

	transfer("node1")
	f.stop["node2"]()
	id := f.begin(&messages.ClusterOperation{Kind: replace, OldNode: "node2", NewNode: "node4", NewAddress: f.place("node4")})
	if hint := f.waits(id, "node4 has not joined yet"); !strings.Contains(hint, "--name node4 --listen "+f.at["node4"]) {
		t.Error(hint)
	}
	f.join("node4", "node1")
	f.until(id, complete)
	if got := f.members(); got != "node1 VOTER, node3 VOTER, node4 VOTER" {
		t.Error(got)
	}

	f.stop["node3"]()
	id = f.begin(&messages.ClusterOperation{Kind: replace, OldNode: "node3", NewNode: "node3", NewAddress: f.at["node3"]})
	f.until(id, messages.OperationPhase_CATCH_UP)
	f.join("node3", "node4")
	f.until(id, complete)
	if got := f.members(); got != "node1 VOTER, node4 VOTER, node3 VOTER" {
		t.Error(got)
	}

	f.place("node5")
	f.join("node5", "node4") // it waits, and its address is known
	for len(f.view().Waiting) == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	f.until(f.begin(&messages.ClusterOperation{Kind: replace, OldNode: "node1", NewNode: "node5"}), complete)
	if got := f.members(); got != "node4 VOTER, node3 VOTER, node5 VOTER" || f.leader() == "node1" {
		t.Errorf("%s, led by %s", got, f.leader())
	}

	f.place("node6")
	f.join("node6", "node4")
	f.until(f.begin(&messages.ClusterOperation{Kind: add, NewNode: "node6", NewAddress: f.at["node6"]}), complete)
	if got := f.members(); got != "node4 VOTER, node3 VOTER, node5 VOTER, node6 VOTER" {
		t.Error(got)
	}
	writes, gap := stop()
	t.Logf("%d writes, the longest gap %v", writes, gap.Round(time.Millisecond))
}

// The leader that began a replace is gone amid, and does not come back: the next one goes on
// from the record.
func TestAReplaceOutlivesItsLeader(t *testing.T) {
	f := newFleet(t, 3)
	first := f.leader()
	old := map[string]string{"node1": "node2", "node2": "node3", "node3": "node1"}[first]
	id := f.begin(&messages.ClusterOperation{Kind: messages.OperationKind_REPLACE, OldNode: old, NewNode: "node4", NewAddress: f.place("node4")})
	f.until(id, messages.OperationPhase_CATCH_UP)
	f.stop[first]()
	second := f.leader()
	for second == first {
		time.Sleep(10 * time.Millisecond)
		second = f.leader()
	}
	f.waits(id, "node4 has not joined yet")
	f.join("node4", second)
	f.until(id, messages.OperationPhase_COMPLETE)
	if got := f.members(); strings.Contains(got, old) || !strings.Contains(got, "node4 VOTER") || !strings.Contains(got, first) {
		t.Error(got)
	}
}

// logger is a node's, to the log of the test.
func (f *fleet) logger(name string) *slog.Logger {
	return slog.New(slog.NewTextHandler(f.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})).With("at", name)
}

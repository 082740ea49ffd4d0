package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// fakeCluster is the membership actor of a fake node: it answers with view, and begins
// whatever it is asked for.
type fakeCluster struct {
	mu     sync.Mutex
	reply  *messages.ClusterReply // of a question
	asked  []*messages.ClusterRequest
	refuse *messages.ClusterReply    // of a change, if it is set
	steps  []messages.OperationPhase // that an operation goes through, one a question
	read   error
}

func (f *fakeCluster) Receive(ctx actor.Context) {
	if m, ok := ctx.Message().(*messages.ClusterRequest); ok {
		ctx.Respond(f.answer(m))
	}
}

func (f *fakeCluster) answer(m *messages.ClusterRequest) *messages.ClusterReply {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, m)
	r := proto.Clone(f.reply).(*messages.ClusterReply)
	switch {
	case m.GetQuery() != nil:
		if n := len(f.reply.View.Operations); n > 0 && len(f.steps) > 0 {
			o := f.reply.View.Operations[n-1]
			o.Reached, o.Phase, f.steps = o.Phase, f.steps[0], f.steps[1:]
		}
	case f.refuse != nil:
		r = proto.Clone(f.refuse).(*messages.ClusterReply)
	case m.DryRun:
		r.Meanwhile, r.After, r.Operation = f.reply.Meanwhile, f.reply.After, proto.Clone(m.GetBegin().GetOperation()).(*messages.ClusterOperation)
		if w := f.reply.View.Waiting; r.Operation.GetNewAddress() == "" && len(w) > 0 {
			r.Operation.NewAddress = w[0].Address
		}
	case m.GetBegin() != nil:
		o := proto.Clone(m.GetBegin().Operation).(*messages.ClusterOperation)
		o.Phase = messages.OperationPhase_ADD_LEARNER
		f.reply.View.Operations = append(f.reply.View.Operations, o)
		r.Operation = o
	case m.GetTransfer() != nil:
		for _, v := range f.reply.View.Members {
			v.Role = "follower"
			if v.Member.Name == m.GetTransfer().To {
				v.Role = "leader"
			}
		}
	}
	r.Request = m.Request
	return r
}

// AskCluster and Newest make it a ClusterAsker of its own, without a network.
func (f *fakeCluster) AskCluster(ctx context.Context, m *messages.ClusterRequest) (ClusterAnswer, error) {
	if err := ctx.Err(); err != nil {
		return ClusterAnswer{}, &unfinished{messages.Errorf(messages.Code_TIMED_OUT, "nothing was sent"), err}
	}
	r := f.answer(m)
	a := ClusterAnswer{ClusterReply: r, At: time.Unix(1000, 0), Endpoint: "n1:1", RequestID: "r"}
	if r.Code != messages.Code_OK {
		return a, messages.Errorf(r.Code, "%s", r.Message)
	}
	return a, nil
}

func (f *fakeCluster) Newest(context.Context) (uint64, error) { return 1, f.read }

// theCluster has a leader n1, a follower n2, a voter n3 that is silent, and a learner n4.
func theCluster() *fakeCluster {
	member := func(id uint64, kind messages.MemberType, role string, v *messages.MemberView) *messages.MemberView {
		v.Member = &messages.Member{RaftId: id, Name: fmt.Sprint("n", id), Address: fmt.Sprintf("h:%d", id), Type: kind}
		v.Role, v.ContactKnown = role, true
		return v
	}
	late := member(4, messages.MemberType_LEARNER, "learner", &messages.MemberView{
		Match: 60, Rate: 100, EtaMs: 400, SilentMs: 20, WaitingFor: "n4 lacks 40 entries", SnapshotBytesDone: 3, SnapshotBytesTotal: 9,
	})
	late.Member.AddedAtMs = 5000
	return &fakeCluster{reply: &messages.ClusterReply{
		Node: "n2", Leader: &messages.Leader{RaftId: 1, Name: "n1", Term: 7},
		Before: &messages.FaultBudget{Voters: 3, Quorum: 2, Alive: 2, Available: true, Stops: []string{"n1", "n2"}},
		View: &messages.ClusterView{
			ClusterId: []byte{0xab}, ConfigurationIndex: 50, Term: 7, Leader: 1, Commit: 100, PulseKnown: true,
			Members: []*messages.MemberView{
				member(1, messages.MemberType_VOTER, "leader", &messages.MemberView{Match: 100, Applied: 100}),
				member(2, messages.MemberType_VOTER, "follower", &messages.MemberView{Match: 100, Applied: 99, Version: "v", RoomBytes: 8 << 30}),
				member(3, messages.MemberType_VOTER, "unreachable", &messages.MemberView{Match: 40, SilentMs: 2000}),
				late,
			},
			Waiting: []*messages.WaitingNode{{Name: "n5", Address: "h:5", SilentMs: 1000}},
		},
	}}
}

// whole is theCluster with all three voters there, and no learner.
func whole() *fakeCluster {
	f := theCluster()
	v := f.reply.View
	v.Members = v.Members[:3]
	v.Members[2].Role, v.Members[2].SilentMs, v.Members[2].Match = "follower", 30, 100
	f.reply.Before = &messages.FaultBudget{Voters: 3, Quorum: 2, Alive: 3, Slack: 1, Available: true, Survives: []string{"n1", "n2", "n3"}}
	return f
}

func api(f *fakeCluster) ClusterAPI { return ClusterAPI{f} }

func TestGetClusterInfo(t *testing.T) {
	i, err := api(theCluster()).GetClusterInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if i.LeaderID != "n1" || i.CurrentTerm != 7 || i.ConfigurationIndex != 50 || i.ClusterID != "ab" || i.MemberCount != 4 || i.VoterCount != 3 ||
		i.LearnerCount != 1 || i.Quorum != 2 || i.Healthy || len(i.Waiting) != 1 || i.Waiting[0].ID != "n5" || i.Timestamp.IsZero() {
		t.Errorf("%+v", i)
	}
	if i, _ := api(whole()).GetClusterInfo(t.Context()); !i.Healthy {
		t.Errorf("a whole cluster: %+v", i)
	}
}

func TestCountsOfAJointConfiguration(t *testing.T) {
	f := whole()
	f.reply.View.Members[2].Member.Type = messages.MemberType_OUTGOING
	f.reply.View.Members = append(f.reply.View.Members, &messages.MemberView{Member: &messages.Member{RaftId: 4, Name: "n4", Type: messages.MemberType_INCOMING}, Role: "follower"})
	if i, _ := api(f).GetClusterInfo(t.Context()); i.VoterCount != 3 || i.Quorum != 2 || i.MemberCount != 4 {
		t.Errorf("%+v", i)
	}
}

func TestListMembers(t *testing.T) {
	all, err := api(theCluster()).ListMembers(t.Context())
	if err != nil || len(all) != 4 {
		t.Fatal(all, err)
	}
	if m := all[1]; m.ID != "n2" || m.RaftID != 2 || m.Address != "h:2" || m.Type != TypeVoter || m.State != "follower" || m.IsLeader || !m.IsSelf || m.Version != "v" {
		t.Errorf("%+v", m)
	}
	if m := all[2]; m.State != "unreachable" || !m.LastContact.Equal(time.Unix(998, 0)) || m.LagEntries != 60 {
		t.Errorf("%+v", m)
	}
	if m := all[3]; m.Type != TypeLearner || !m.AddedAt.Equal(time.Unix(5, 0)) || m.LearnerStatus == nil {
		t.Errorf("%+v", m)
	}
}

func TestGetMember(t *testing.T) {
	if m, err := api(theCluster()).GetMember(t.Context(), "n3"); err != nil || m.RaftID != 3 {
		t.Error(m, err)
	}
	for name, want := range map[string]string{"n9": `no member is called "n9"`, "n5": "n5 waits to be added, and is no member"} {
		if _, err := api(theCluster()).GetMember(t.Context(), name); messages.CodeOf(err) != messages.Code_NOT_FOUND || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGetLeader(t *testing.T) {
	if m, err := api(theCluster()).GetLeader(t.Context()); err != nil || m.ID != "n1" {
		t.Error(m, err)
	}
	f := theCluster()
	f.reply.View.Members[0].Role = "unreachable"
	if _, err := api(f).GetLeader(t.Context()); messages.CodeOf(err) != messages.Code_NO_LEADER {
		t.Error(err)
	}
}

func TestGetClusterHealth(t *testing.T) {
	for name, row := range map[string]struct {
		change  func(*fakeCluster)
		healthy int
		quorum  bool
		issues  []string
	}{
		"whole": {func(*fakeCluster) {}, 3, true, nil},
		"a voter is silent": {func(f *fakeCluster) {
			*f = fakeCluster{reply: theCluster().reply}
			f.reply.View.Members = f.reply.View.Members[:3]
		}, 2, true, []string{"n3 at h:3 is out of contact for 2s"}},
		"no leader": {func(f *fakeCluster) {
			f.reply.View.Members[0].Role, f.reply.Before = "unknown", nil
			f.read = errors.New("late")
		}, 2, false, []string{"no leader", "linearizable read did not come back: late"}},
		"no word from leader": {func(f *fakeCluster) { f.reply.Before = nil }, 3, true, []string{"n2 has had no word from the leader"}},
		"no quorum": {func(f *fakeCluster) {
			f.reply.Before, f.read = &messages.FaultBudget{Voters: 3, Quorum: 2, Alive: 1}, errors.New("late")
		}, 3, false, []string{"no quorum: 1 of 3 voters is in contact, 2 are needed", "late"}},
		"a read is late": {func(f *fakeCluster) { f.read = errors.New("late") }, 3, true, []string{"late"}},
		"a voter lags":   {func(f *fakeCluster) { f.reply.View.Commit = 50_000 }, 0, true, []string{"n1 lags", "n2 lags 49900 entries", "n3 lags"}},
		"a snapshot":     {func(f *fakeCluster) { f.reply.View.Members[1].SnapshotNeeded = true }, 2, true, []string{"n2 lags so far behind that it needs a snapshot"}},
		"little room":    {func(f *fakeCluster) { f.reply.View.Members[2].RoomBytes = 300 << 20 }, 2, true, []string{"n3 has 300 MB of room left"}},
	} {
		f := whole()
		row.change(f)
		h, err := api(f).GetClusterHealth(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if h.Healthy != (len(row.issues) == 0) || h.MembersHealthy != row.healthy || h.QuorumAvailable != row.quorum || len(h.Issues) != len(row.issues) || h.MembersTotal != 3 {
			t.Errorf("%s: %+v", name, h)
			continue
		}
		for i, want := range row.issues {
			if !strings.Contains(h.Issues[i], want) {
				t.Errorf("%s: %q, want %q", name, h.Issues[i], want)
			}
		}
	}
}

// late has no word from its leader when it is asked first.
type late struct {
	*fakeCluster
	silent int // so many questions
}

func (l *late) AskCluster(ctx context.Context, m *messages.ClusterRequest) (ClusterAnswer, error) {
	a, err := l.fakeCluster.AskCluster(ctx, m)
	if l.silent--; l.silent >= 0 {
		a.Before = nil
	}
	return a, err
}

func TestHealthHasPatienceWithANewLeader(t *testing.T) {
	for silent, healthy := range map[int]bool{1: true, wordPolls: true, wordPolls + 1: false} {
		h, err := ClusterAPI{&late{whole(), silent}}.GetClusterHealth(t.Context())
		if err != nil || h.Healthy != healthy {
			t.Errorf("%d times without a word: %+v %v", silent, h, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if h, err := (ClusterAPI{&late{whole(), 1}}).GetClusterHealth(ctx); err != nil || h.Healthy {
		t.Errorf("its time is over first: %+v %v", h, err)
	}
}

func TestHealthNamesTheLeastRoom(t *testing.T) {
	f := whole()
	f.reply.View.Members[2].RoomBytes = 3 << 30
	if h, err := api(f).GetClusterHealth(t.Context()); err != nil || h.LeastRoomID != "n3" || h.LeastRoomBytes != 3<<30 || !h.Healthy {
		t.Errorf("%+v %v", h, err)
	}
}

func TestALearnerOnItsWayIsNoIssue(t *testing.T) {
	f := whole()
	f.reply.View.Members = append(f.reply.View.Members, theCluster().reply.View.Members[3])
	if h, _ := api(f).GetClusterHealth(t.Context()); !h.Healthy || h.MembersHealthy != 4 || h.Slack != 1 {
		t.Errorf("%+v", h)
	}
	f.reply.View.Members[3].Role = "unreachable"
	if h, _ := api(f).GetClusterHealth(t.Context()); h.Healthy || !strings.HasPrefix(h.Issues[0], "n4 (learner) at h:4 is out of contact") {
		t.Errorf("%+v", h)
	}
}

func TestGetNodeStatus(t *testing.T) {
	s, err := api(theCluster()).GetNodeStatus(t.Context())
	if err != nil || s.NodeID != "n2" || s.Address != "h:2" || s.State != "follower" || s.IsLeader || s.LeaderID != "n1" || s.CurrentTerm != 7 ||
		s.CommitIndex != 100 || s.LastApplied != 99 || s.MemberType != TypeVoter || s.RoomBytes != 8<<30 || s.Lacks != "" {
		t.Errorf("%+v %v", s, err)
	}
}

func TestLearnerStatus(t *testing.T) {
	f := theCluster()
	s, err := api(f).GetLearnerStatus(t.Context(), "n4")
	want := LearnerStatus{MatchIndex: 60, LeaderIndex: 100, LagEntries: 40, SnapshotBytesDone: 3, SnapshotBytesTotal: 9, RateEntriesPerS: 100, ETAMs: 400, WaitingFor: "n4 lacks 40 entries"}
	if err != nil || *s != want {
		t.Errorf("%+v %v", s, err)
	}
	if _, err := api(f).GetLearnerStatus(t.Context(), "n1"); messages.CodeOf(err) != messages.Code_INVALID {
		t.Error(err)
	}
	caught := func(name string) bool {
		up, err := api(f).IsLearnerCaughtUp(t.Context(), name)
		if err != nil {
			t.Error(err)
		}
		return up
	}
	if caught("n4") || !caught("n1") {
		t.Error("who is caught up")
	}
	f.reply.View.Members[3].Ready, f.reply.View.Members[3].WaitingFor = true, ""
	if !caught("n4") {
		t.Error("a ready learner is not caught up")
	}
	if _, err := api(f).IsLearnerCaughtUp(t.Context(), "n9"); messages.CodeOf(err) != messages.Code_NOT_FOUND {
		t.Error(err)
	}
}

func TestPendingConfigChange(t *testing.T) {
	f := theCluster()
	under, err := api(f).IsConfigChangeInProgress(t.Context())
	change, err2 := api(f).GetPendingConfigChange(t.Context())
	if under || change != nil || err != nil || err2 != nil {
		t.Error(under, change, err, err2)
	}
	f.reply.View.Operations = []*messages.ClusterOperation{
		{Id: []byte{1}, Kind: messages.OperationKind_ADD, Phase: messages.OperationPhase_COMPLETE, NewNode: "n4"},
		{Id: []byte{2}, Kind: messages.OperationKind_REMOVE, Phase: messages.OperationPhase_REMOVE_OLD, OldNode: "n3", StartedAtMs: 9000},
	}
	under, _ = api(f).IsConfigChangeInProgress(t.Context())
	change, _ = api(f).GetPendingConfigChange(t.Context())
	want := ConfigChange{OperationID: "02", Type: "remove", NodeID: "n3", Address: "h:3", ProposedAt: time.Unix(9, 0).UTC(), Phase: ReplacePhaseRemoveOld}
	if !under || *change != want {
		t.Errorf("%v %+v", under, change)
	}
}

func TestChangesWaitForTheirEnd(t *testing.T) {
	for name, row := range map[string]struct {
		change func(ClusterAPI) error
		want   *messages.ClusterOperation
	}{
		"add":     {func(a ClusterAPI) error { return a.AddLearner(t.Context(), "n5", "h:5", 50, 7) }, &messages.ClusterOperation{Kind: messages.OperationKind_ADD, NewNode: "n5", NewAddress: "h:5", StayLearner: true}},
		"promote": {func(a ClusterAPI) error { return a.PromoteLearner(t.Context(), "n4", 50, 7) }, &messages.ClusterOperation{Kind: messages.OperationKind_PROMOTE, NewNode: "n4"}},
		"remove":  {func(a ClusterAPI) error { return a.RemoveNode(t.Context(), "n3", 50, 7) }, &messages.ClusterOperation{Kind: messages.OperationKind_REMOVE, OldNode: "n3"}},
	} {
		f := theCluster()
		f.steps = []messages.OperationPhase{messages.OperationPhase_PROMOTION, messages.OperationPhase_COMPLETE}
		if err := row.change(api(f)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		asked := f.asked[0]
		got := proto.Clone(asked.GetBegin().GetOperation()).(*messages.ClusterOperation)
		if len(got.Id) != 16 || asked.Configuration != 50 || asked.Term != 7 {
			t.Errorf("%s: asked %s", name, messages.Line(asked))
		}
		if got.Id = nil; !proto.Equal(got, row.want) {
			t.Errorf("%s: asked for %s", name, messages.Line(got))
		}
		if len(f.asked) < 3 {
			t.Errorf("%s: it did not wait", name)
		}
	}
}

func TestChangesThatFail(t *testing.T) {
	f := theCluster()
	f.refuse = &messages.ClusterReply{Code: messages.Code_UNSAFE, Message: "no quorum would be left"}
	if err := api(f).RemoveNode(t.Context(), "n1", 0, 0); messages.CodeOf(err) != messages.Code_UNSAFE {
		t.Error(err)
	}
	f = theCluster()
	f.steps = []messages.OperationPhase{messages.OperationPhase_FAILED}
	if err := api(f).AddLearner(t.Context(), "n5", "h:5", 0, 0); messages.CodeOf(err) != messages.Code_INTERNAL {
		t.Error(err)
	}
	f = theCluster()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err := api(f).AddLearner(ctx, "n5", "h:5", 0, 0)
	if messages.CodeOf(err) != messages.Code_TIMED_OUT || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "is still under way") {
		t.Error(err)
	}
}

func TestReplaceNode(t *testing.T) {
	f := theCluster()
	s, err := api(f).ReplaceNode(t.Context(), "n3", "n5", "h:5")
	if err != nil || s.OldNodeID != "n3" || s.NewNodeID != "n5" || s.NewAddress != "h:5" || s.Phase != ReplacePhaseAddLearner || s.Kind != "replace" {
		t.Fatalf("%+v %v", s, err)
	}
	o := f.reply.View.Operations[0]
	f.reply.View.Waits = []*messages.OperationWait{{Id: o.Id, Why: "n5 has not joined yet", Hint: "start it"}}
	for _, row := range []struct {
		phase, reached messages.OperationPhase
		want           ReplacePhase
		done           [4]bool
	}{
		{messages.OperationPhase_ADD_LEARNER, messages.OperationPhase_PHASE_NONE, ReplacePhaseAddLearner, [4]bool{}},
		{messages.OperationPhase_CATCH_UP, messages.OperationPhase_ADD_LEARNER, ReplacePhaseCatchUp, [4]bool{true}},
		{messages.OperationPhase_PROMOTION, messages.OperationPhase_CATCH_UP, ReplacePhasePromote, [4]bool{true, true}},
		{messages.OperationPhase_REMOVE_OLD, messages.OperationPhase_PROMOTION, ReplacePhaseRemoveOld, [4]bool{true, true, true}},
		{messages.OperationPhase_COMPLETE, messages.OperationPhase_REMOVE_OLD, ReplacePhaseComplete, [4]bool{true, true, true, true}},
		{messages.OperationPhase_FAILED, messages.OperationPhase_ADD_LEARNER, ReplacePhaseFailed, [4]bool{true}},
	} {
		o.Phase, o.Reached, o.Error = row.phase, row.reached, "why"
		p, err := api(f).GetReplaceNodeProgress(t.Context(), "n5")
		if err != nil || p.Phase != row.want || [4]bool{p.LearnerAdded, p.LearnerCaughtUp, p.NewNodePromoted, p.OldNodeRemoved} != row.done {
			t.Errorf("%v: %+v %v", row.phase, p, err)
		}
		if (p.Error != nil) != (row.want == ReplacePhaseFailed) || (p.WaitingFor != "") == p.Phase.Ended() {
			t.Errorf("%v: %+v", row.phase, p)
		}
	}
	if _, err := api(f).GetReplaceNodeProgress(t.Context(), "n9"); messages.CodeOf(err) != messages.Code_NOT_FOUND {
		t.Error(err)
	}
}

func TestPhaseText(t *testing.T) {
	var words, texts []string
	for p := ReplacePhaseAddLearner; p <= ReplacePhaseFailed; p++ {
		text, _ := p.MarshalText()
		words, texts = append(words, p.String()), append(texts, string(text))
	}
	if !slices.Equal(words, []string{"AddLearner", "CatchUp", "Promote", "RemoveOld", "Complete", "Failed"}) ||
		!slices.Equal(texts, []string{"add_learner", "catch_up", "promote", "remove_old", "complete", "failed"}) {
		t.Error(words, texts)
	}
	if s := ReplacePhase(9).String(); s != "ReplacePhase(9)" {
		t.Error(s)
	}
}

func TestTransferLeadership(t *testing.T) {
	f := theCluster()
	if err := api(f).TransferLeadership(t.Context(), "n2", 50, 7); err != nil {
		t.Error(err)
	}
	if m, _ := api(f).GetLeader(t.Context()); m.ID != "n2" {
		t.Errorf("%+v leads", m)
	}
	f.refuse = &messages.ClusterReply{Code: messages.Code_UNSAFE, Message: "n3 is out of contact"}
	if err := api(f).TransferLeadership(t.Context(), "n3", 0, 0); messages.CodeOf(err) != messages.Code_UNSAFE {
		t.Error(err)
	}
	if err := api(f).UpdateAddress(t.Context(), "n3", "h:9", 0, 0); messages.CodeOf(err) != messages.Code_UNSAFE {
		t.Error(err)
	}
}

func TestAwaitCaughtUp(t *testing.T) {
	f := theCluster()
	ctx, cancel := context.WithTimeout(t.Context(), 2*pollEvery)
	defer cancel()
	if err := api(f).AwaitCaughtUp(ctx, "n4"); messages.CodeOf(err) != messages.Code_TIMED_OUT || !strings.Contains(err.Error(), "n4 lacks 40 entries") {
		t.Error(err)
	}
	if err := api(f).AwaitCaughtUp(t.Context(), "n9"); messages.CodeOf(err) != messages.Code_NOT_FOUND {
		t.Error(err)
	}
	f.reply.View.Members[3].Ready, f.reply.View.Members[3].WaitingFor = true, ""
	if err := api(f).AwaitCaughtUp(t.Context(), "n4"); err != nil {
		t.Error(err)
	}
}

func TestAbortAndHealing(t *testing.T) {
	f := theCluster()
	if _, err := api(f).Abort(t.Context(), []byte("one")); err != nil || string(f.asked[0].GetAbort().Id) != "one" {
		t.Errorf("%v, asked %v", err, f.asked)
	}
	if err := api(f).ChangeHealing(t.Context(), &messages.ChangeHealing{AddSpare: "n9"}); err != nil || f.asked[1].GetHealing().AddSpare != "n9" {
		t.Errorf("%v, asked %v", err, f.asked)
	}
	f.refuse = &messages.ClusterReply{Code: messages.Code_CONFLICT, Message: "n2 is a member"}
	if err := api(f).ChangeHealing(t.Context(), &messages.ChangeHealing{AddSpare: "n2"}); messages.CodeOf(err) != messages.Code_CONFLICT {
		t.Error(err)
	}
	if _, err := api(f).ReplaceNode(t.Context(), "n3", "n2", "h:5"); messages.CodeOf(err) != messages.Code_CONFLICT {
		t.Error(err)
	}
}

// What every question says when no node answers it.
func TestQuestionsThatNobodyAnswers(t *testing.T) {
	f := theCluster()
	f.reply.Code, f.reply.Message = messages.Code_STARTING, "it starts"
	a, ctx := api(f), t.Context()
	for name, ask := range map[string]func() error{
		"info":     func() error { _, err := a.GetClusterInfo(ctx); return err },
		"members":  func() error { _, err := a.ListMembers(ctx); return err },
		"member":   func() error { _, err := a.GetMember(ctx, "n1"); return err },
		"leader":   func() error { _, err := a.GetLeader(ctx); return err },
		"health":   func() error { _, err := a.GetClusterHealth(ctx); return err },
		"node":     func() error { _, err := a.GetNodeStatus(ctx); return err },
		"pending":  func() error { _, err := a.GetPendingConfigChange(ctx); return err },
		"progress": func() error { _, err := a.GetReplaceNodeProgress(ctx, "n5"); return err },
		"changing": func() error { _, err := a.IsConfigChangeInProgress(ctx); return err },
		"caught":   func() error { _, err := a.IsLearnerCaughtUp(ctx, "n4"); return err },
		"learner":  func() error { _, err := a.GetLearnerStatus(ctx, "n4"); return err },
		"transfer": func() error { return a.TransferLeadership(ctx, "n2", 0, 0) },
		"plan": func() error {
			_, _, err := a.Plan(ctx, &messages.ClusterOperation{Kind: messages.OperationKind_REMOVE, OldNode: "n2"})
			return err
		},
	} {
		if err := ask(); messages.CodeOf(err) != messages.Code_STARTING {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFindOperation(t *testing.T) {
	f := theCluster()
	f.reply.View.Operations = []*messages.ClusterOperation{{Id: []byte{0xab, 1}}, {Id: []byte{0xab, 2}}}
	a, _ := f.AskCluster(t.Context(), &messages.ClusterRequest{Kind: &messages.ClusterRequest_Query{Query: &messages.ClusterQuery{}}})
	for id, want := range map[string]messages.Code{"ab01": messages.Code_OK, "ab0": messages.Code_INVALID, "cd": messages.Code_NOT_FOUND, "": messages.Code_NOT_FOUND} {
		if _, err := a.FindOperation(id); messages.CodeOf(err) != want {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// TestClusterJSON: the names that scripts rely on.
func TestClusterJSON(t *testing.T) {
	f := theCluster()
	members, _ := api(f).ListMembers(t.Context())
	info, _ := api(f).GetClusterInfo(t.Context())
	health, _ := api(f).GetClusterHealth(t.Context())
	node, _ := api(f).GetNodeStatus(t.Context())
	replace, _ := api(f).ReplaceNode(t.Context(), "n3", "n5", "h:5")
	change, _ := api(f).GetPendingConfigChange(t.Context())
	for _, row := range []struct {
		value any
		names string
	}{
		{members[3], "id raft_id address type state is_leader is_self added_at last_contact learner_status"},
		{members[3].LearnerStatus, "match_index leader_index lag_entries snapshot_bytes_done snapshot_bytes_total rate_entries_per_s eta_ms ready waiting_for"},
		{info, "leader_id current_term members member_count voter_count learner_count quorum healthy timestamp"},
		{health, "least_room_id least_room_bytes healthy leader_present quorum_available members_healthy members_total issues timestamp"},
		{node, "node_id address state is_leader leader_id current_term commit_index last_applied member_type room_bytes lacks timestamp"},
		{change, "operation_id type node_id address proposed_at phase"},
		{replace, "id kind phase old_node_id new_node_id new_address started_at learner_added learner_caught_up new_node_promoted old_node_removed error"},
	} {
		text, err := json.Marshal(row.value)
		if err != nil {
			t.Fatal(err)
		}
		back := reflect.New(reflect.TypeOf(row.value).Elem())
		if err := json.Unmarshal(text, back.Interface()); err != nil {
			t.Errorf("%T: %v", row.value, err)
		}
		if again, _ := json.Marshal(back.Interface()); string(again) != string(text) {
			t.Errorf("%T: it is read back as\n%s\nand not as\n%s", row.value, again, text)
		}
		for _, name := range strings.Fields(row.names) {
			if !strings.Contains(string(text), `"`+name+`":`) {
				t.Errorf("%T has no %s: %s", row.value, name, text)
			}
		}
	}
	if text, _ := json.Marshal(members[3]); !strings.Contains(string(text), `"raft_id":"4"`) || !strings.Contains(string(text), `"added_at":"1970-01-01T00:00:05Z"`) {
		t.Errorf("%s", text)
	}
}

// Through a network, to the actors of nodes.
func TestClusterAPIThroughNodes(t *testing.T) {
	n, nodes := fakes(t, 2)
	for _, node := range nodes {
		node.cluster.reply = theCluster().reply
	}
	nodes[0].cluster.refuse = &messages.ClusterReply{Code: messages.Code_REDIRECT, Leader: &messages.Leader{RaftId: 2, Name: "n2", Address: "n2:1", Term: 9}}
	nodes[1].cluster.steps = []messages.OperationPhase{messages.OperationPhase_COMPLETE}
	c := connected(t, n, Options{Endpoints: []string{"n1:1"}})
	if i, err := c.Cluster().GetClusterInfo(t.Context()); err != nil || i.LeaderID != "n1" {
		t.Fatal(i, err)
	}
	if _, err := c.Cluster().Begin(t.Context(), &messages.ClusterOperation{Id: []byte("0123456789abcdef"), Kind: messages.OperationKind_REMOVE, OldNode: "n3"}, 0, 0); err != nil {
		t.Error(err)
	}
	nodes[1].cluster.mu.Lock()
	defer nodes[1].cluster.mu.Unlock()
	if len(nodes[1].cluster.asked) == 0 {
		t.Error("the change did not reach the leader")
	}
}

// What was under way when the client ended may be done, if it changes something.
func TestAnEndedClientSaysWhatIsUnknown(t *testing.T) {
	c := &Client{desk: &desk{why: messages.Errorf(messages.Code_INVALID, "the client was closed")}}
	begin := BeginRequest(&messages.ClusterOperation{}, 0, 0)
	for _, row := range []struct {
		m    *messages.Submit
		code messages.Code
		hint string
	}{
		{&messages.Submit{Operations: []*messages.Operation{{}}}, messages.Code_OUTCOME_UNKNOWN, hintUnknown},
		{&messages.Submit{Cluster: begin}, messages.Code_OUTCOME_UNKNOWN, hintUnknownChange},
		{&messages.Submit{Cluster: &messages.ClusterRequest{Kind: begin.Kind, DryRun: true}}, messages.Code_INVALID, ""},
		{&messages.Submit{Read: &messages.Read{}}, messages.Code_INVALID, ""},
	} {
		_, err := c.last(make(chan *messages.Done), row.m)
		if e, ok := errors.AsType[*messages.Error](err); !ok || e.Code != row.code || e.Hint != row.hint {
			t.Errorf("%s: %v", messages.Line(row.m), err)
		}
	}
}

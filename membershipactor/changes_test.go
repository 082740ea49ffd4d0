package membershipactor

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/actors/auth"
	"keyval/membershipactor/rules"
	"keyval/membershipactor/saga"
	"keyval/messages"
)

// stand is a leader's changes over a replicated state that is applied when the test says so.
type stand struct {
	t       *testing.T
	c       changes
	k       known
	log     []proto.Message // for raft, not applied yet
	answers []string
	replies []*messages.ClusterReply
	alone   bool // nobody confirms that it leads
}

func newStand(t *testing.T) *stand {
	conf := &raftpb.ConfState{Voters: []uint64{1, 2, 3}}
	s := &stand{t: t, c: changes{self: 1}}
	s.k = known{node: "node1", leader: &messages.Leader{RaftId: 1, Name: "node1", Address: "h1:7000", Term: 5}}
	s.k.View = rules.View{
		Configuration: rules.Configuration{Index: 1, ConfState: conf, NextRaftID: 4}, Self: 1, TickMS: 50, NowMS: 77,
		Replication: &messages.Replication{Leader: 1, Term: 5, LastIndex: 9, Settled: true},
	}
	for id := uint64(1); id <= 3; id++ {
		s.k.Members = append(s.k.Members, &messages.Member{RaftId: id, Name: fmt.Sprintf("node%d", id), Address: fmt.Sprintf("h%d:7000", id),
			Incarnation: append(make([]byte, messages.IncarnationSize-1), byte(id))})
	}
	s.refresh()
	return s
}

// refresh has all members in contact and caught up.
func (s *stand) refresh() {
	r := proto.Clone(s.k.Replication).(*messages.Replication)
	r.Progress, s.k.Following = nil, rules.Following{}
	for _, m := range s.k.Members {
		if m.RaftId != s.k.Self {
			r.Progress = append(r.Progress, &messages.Progress{RaftId: m.RaftId, Match: 9, State: messages.ProgressState_REPLICATING})
			s.k.Following[m.RaftId] = rules.Follow{Match: 9, Last: 9, Close: true, CloseTicks: rules.ReadyTicks}
		}
	}
	s.k.Replication = r
}

func (s *stand) ask(m *messages.ClusterRequest) {
	s.c.onRequest(s.k, asker{"client/1", "a"}, m)
	s.gather()
}

func (s *stand) tick(n uint64) {
	s.c.onTick(s.k, n)
	s.gather()
}

func (s *stand) gather() {
	for _, a := range s.c.take() {
		if read, is := a.message.(*messages.ReadIndex); is {
			if !s.alone {
				s.c.onRead(&messages.ReadReply{Request: read.Read.Request, Code: messages.Code_NOT_FOUND})
				s.tick(0)
			}
			continue
		}
		if a.to == (asker{}) {
			s.log = append(s.log, a.message)
			continue
		}
		if r, is := a.message.(*messages.InvitationAnswer); is {
			s.answers = append(s.answers, strings.TrimSpace(fmt.Sprintf("%v %s%s", r.Code, r.Message, r.Sealed)))
			continue
		}
		r := a.message.(*messages.ClusterReply)
		s.replies = append(s.replies, r)
		s.answers = append(s.answers, strings.TrimSpace(fmt.Sprintf("%v %s", r.Code, r.Message)))
	}
}

// apply is what machines make of the log.
func (s *stand) apply() {
	for _, m := range s.log {
		var data []byte
		switch m := m.(type) {
		case *messages.Propose:
			data = m.Command
		case *messages.ProposeChange:
			data = m.Command
		case *messages.TransferLead:
			s.lead(m.To)
			continue
		}
		c := &messages.Command{}
		if err := proto.Unmarshal(data, c); err != nil || len(c.Operations) != 1 || len(c.Session) != 0 {
			s.t.Fatalf("%v: %v", c, err)
		}
		s.carryOut(c.Operations[0])
	}
	s.log = nil
	s.refresh()
}

func (s *stand) carryOut(o *messages.Operation) {
	switch k := o.Kind.(type) {
	case *messages.Operation_RecordOperation:
		if ops, err := rules.Record(s.k.Operations, k.RecordOperation, 1); err == nil {
			s.k.Operations = ops
		}
	case *messages.Operation_NoteBackup:
		if jobs, err := rules.NoteBackup(s.k.Backups, k.NoteBackup); err == nil {
			s.k.Backups = jobs
		}
	case *messages.Operation_WriteInvitations:
		if next, err := auth.WriteInvitations(s.k.Invitations, k.WriteInvitations); err == nil {
			s.k.Invitations = next
		}
	case *messages.Operation_UpdateMember:
		if next, err := s.k.Update(k.UpdateMember, s.k.Index+1); err == nil {
			s.k.Configuration = next
		}
	case *messages.Operation_SetHealing:
		if next := k.SetHealing.Healing; rules.CheckHealing(s.k.Healing, next, s.k.Members) == nil {
			s.k.Healing = next
		}
	case *messages.Operation_ChangeMembers:
		m := k.ChangeMembers
		next, _, err := s.k.Change(m, s.k.Index+1, m.GetRecord().GetOperation().GetId())
		if err != nil {
			return
		}
		if m.Record != nil {
			ops, err := rules.Record(s.k.Operations, m.Record, 1)
			if err != nil {
				return
			}
			s.k.Operations = ops
		}
		for _, one := range next.Members { // whoever is added is heard at once
			if len(one.Incarnation) == 0 {
				next, _ = next.Bind(&messages.BindIncarnation{RaftId: one.RaftId, Incarnation: append(make([]byte, messages.IncarnationSize-1), byte(one.RaftId))})
			}
		}
		s.k.Configuration = next
	}
}

// lead makes another lead; 0: nobody is known to.
func (s *stand) lead(id uint64) {
	s.k.Replication = &messages.Replication{Leader: id, Term: 6}
	s.k.leader = nil
	if m := s.k.Member(id); m != nil {
		s.k.leader = &messages.Leader{RaftId: id, Name: m.Name, Address: m.Address, Term: 6}
	}
}

// spoken are the messages for raft, by their kind.
func (s *stand) spoken() (kinds []string) {
	for _, m := range s.log {
		kinds = append(kinds, string(m.ProtoReflect().Descriptor().Name()))
	}
	return kinds
}

func (s *stand) expect(answers ...string) {
	s.t.Helper()
	if len(s.answers) != len(answers) {
		s.t.Fatalf("answers %q, want %q", s.answers, answers)
	}
	for i, want := range answers {
		if !strings.HasPrefix(s.answers[i], want) {
			s.t.Errorf("%q, want %q", s.answers[i], want)
		}
	}
	s.answers = nil
}

func opID(n byte) []byte { return append(make([]byte, messages.OperationIDSize-1), n) }

func beginning(n byte, kind messages.OperationKind, old, name, address string) *messages.ClusterRequest {
	return &messages.ClusterRequest{Request: uint64(n), Kind: &messages.ClusterRequest_Begin{Begin: &messages.BeginOperation{
		Operation: &messages.ClusterOperation{Id: opID(n), Kind: kind, OldNode: old, NewNode: name, NewAddress: address}}}}
}

func aborting(n byte) *messages.ClusterRequest {
	return &messages.ClusterRequest{Request: 100, Kind: &messages.ClusterRequest_Abort{Abort: &messages.AbortOperation{Id: opID(n)}}}
}

func transferring(to string) *messages.ClusterRequest {
	return &messages.ClusterRequest{Request: 101, Kind: &messages.ClusterRequest_Transfer{Transfer: &messages.TransferLeadership{To: to}}}
}

func moving(name, address string) *messages.ClusterRequest {
	return &messages.ClusterRequest{Request: 102, Kind: &messages.ClusterRequest_Address{Address: &messages.ChangeAddress{Name: name, Address: address}}}
}

func healing(m *messages.ChangeHealing) *messages.ClusterRequest {
	return &messages.ClusterRequest{Request: 103, Kind: &messages.ClusterRequest_Healing{Healing: m}}
}

const (
	kindAdd     = messages.OperationKind_ADD
	kindRemove  = messages.OperationKind_REMOVE
	kindReplace = messages.OperationKind_REPLACE
)

// An operation is answered once its record is in the log, and goes on by itself to its end.
func TestOperationsBeginInTheLog(t *testing.T) {
	s := newStand(t)
	s.ask(beginning(1, kindReplace, "node2", "node4", "h4:7000"))
	s.expect()
	if got := s.spoken(); !slices.Equal(got, []string{"Propose"}) {
		t.Fatal(got)
	}
	s.apply()
	s.tick(0)
	s.expect("OK")
	r := s.replies[0]
	if r.Operation.GetPhase() != messages.OperationPhase_ADD_LEARNER || r.Operation.StartedAtMs != 77 || r.Request != 1 || r.Node != "node1" ||
		r.Before == nil || r.After == nil || r.Meanwhile == nil {
		t.Errorf("%s", messages.Line(r))
	}
	for range 10 {
		s.apply()
		s.tick(1)
	}
	if o := s.k.Operations[0]; o.Phase != messages.OperationPhase_COMPLETE || s.k.Named("node2") != nil || s.k.Named("node4").GetType() != messages.MemberType_VOTER {
		t.Errorf("%s", messages.Line(o))
	}
	s.ask(beginning(1, kindReplace, "node2", "node4", "h4:7000")) // again
	s.expect("OK")
	s.ask(beginning(1, kindReplace, "node3", "node5", "h5:7000"))
	s.expect("CONFLICT operation 00000000000000000000000000000001 is another one: replace node2 by node4")
}

// What a request is answered, and what it proposes meanwhile.
func TestRequests(t *testing.T) {
	dry := func(m *messages.ClusterRequest) *messages.ClusterRequest { m.DryRun = true; return m }
	upon := func(m *messages.ClusterRequest, configuration, term uint64) *messages.ClusterRequest {
		m.Configuration, m.Term = configuration, term
		return m
	}
	replacing := func(s *stand) {
		s.ask(beginning(9, kindReplace, "node2", "node4", "h4:7000"))
		s.apply()
		s.tick(0)
		s.log, s.answers = nil, nil
	}
	spare := func(s *stand) {
		s.k.Healing = &messages.Healing{Version: 1, Mode: messages.HealingMode_HEALING_DRY, AfterMs: rules.HealAfterMS, Spares: []string{"node9"}}
	}
	swapped := func(s *stand) {
		replacing(s)
		for s.k.Operations[0].Phase != messages.OperationPhase_REMOVE_OLD {
			s.tick(saga.RetryTicks)
			s.apply()
		}
	}
	for name, row := range map[string]struct {
		before func(*stand)
		ask    *messages.ClusterRequest
		want   string // "": it waits for the log
		spoken string
	}{
		"begin":                     {nil, beginning(1, kindRemove, "node2", "", ""), "", "Propose"},
		"begin, dry":                {nil, dry(beginning(1, kindRemove, "node2", "", "")), "OK", ""},
		"begin, dry and refused":    {nil, dry(beginning(1, kindRemove, "node9", "", "")), "NOT_FOUND", ""},
		"begin: refused":            {nil, beginning(1, kindRemove, "node9", "", ""), "NOT_FOUND no member is called", ""},
		"begin: no id":              {nil, &messages.ClusterRequest{Kind: &messages.ClusterRequest_Begin{Begin: &messages.BeginOperation{}}}, "INVALID the id", ""},
		"begin: in the way":         {replacing, beginning(1, kindRemove, "node2", "", ""), "CONFLICT operation 00000000000000000000000000000009", ""},
		"begin: a stale view":       {nil, upon(beginning(1, kindRemove, "node2", "", ""), 0, 4), "CONFLICT the view is stale", ""},
		"begin: this view":          {nil, upon(beginning(1, kindRemove, "node2", "", ""), 1, 5), "", "Propose"},
		"begin: a view from ahead":  {nil, upon(beginning(1, kindRemove, "node2", "", ""), 7, 0), "BUSY", ""},
		"begin: stale, and begun":   {replacing, upon(beginning(9, kindReplace, "node2", "node4", "h4:7000"), 1, 4), "OK", ""},
		"begin: stale, in its turn": {swapped, upon(beginning(9, kindReplace, "node2", "node4", "h4:7000"), 1, 0), "OK", ""},
		"begin, dry: a stale view":  {swapped, dry(upon(beginning(1, kindRemove, "node3", "", ""), 1, 0)), "CONFLICT the view is stale", ""},
		"begin: another leads":      {func(s *stand) { s.lead(2) }, beginning(1, kindRemove, "node2", "", ""), "REDIRECT node2 leads", ""},
		"begin: nobody leads":       {func(s *stand) { s.lead(0) }, beginning(1, kindRemove, "node2", "", ""), "NO_LEADER", ""},
		"begin: just elected":       {func(s *stand) { s.k.Replication = nil }, beginning(1, kindRemove, "node2", "", ""), "BUSY", ""},
		"begin: not settled":        {func(s *stand) { s.k.Replication.Settled = false }, beginning(1, kindRemove, "node2", "", ""), "", ""},
		"begin: one that waits":     {func(s *stand) { s.k.Waiting = []*messages.WaitingNode{{Name: "node4", Address: "h4:7000"}} }, beginning(1, kindAdd, "", "node4", ""), "", "Propose"},
		"abort":                     {replacing, aborting(9), "", "Propose"},
		"abort, dry":                {replacing, dry(aborting(9)), "OK", ""},
		"abort: unknown":            {nil, aborting(9), "NOT_FOUND", ""},
		"abort: behind the swap":    {swapped, aborting(9), "CONFLICT operation 00000000000000000000000000000009 only goes forward", ""},
		"transfer":                  {nil, transferring("node3"), "", "TransferLead"},
		"transfer to the best":      {nil, transferring(""), "", "TransferLead"},
		"transfer, dry":             {nil, dry(transferring("")), "OK node2", ""},
		"transfer to the leader":    {nil, transferring("node1"), "OK node1", ""},
		"transfer to nobody":        {nil, transferring("node9"), "NOT_FOUND", ""},
		"update":                    {nil, moving("node2", "h9:7000"), "", "Propose"},
		"update, dry":               {nil, dry(moving("node2", "h9:7000")), "OK", ""},
		"update: there already":     {nil, moving("node2", "h2:7000"), "OK", ""},
		"update: another's address": {nil, moving("node2", "h3:7000"), "CONFLICT", ""},
		"spare":                     {nil, healing(&messages.ChangeHealing{AddSpare: "node9"}), "", "Propose"},
		"spare, dry":                {nil, dry(healing(&messages.ChangeHealing{AddSpare: "node9"})), "OK", ""},
		"spare: a member":           {nil, healing(&messages.ChangeHealing{AddSpare: "node2"}), "CONFLICT node2 is a member", ""},
		"spare: there already":      {spare, healing(&messages.ChangeHealing{AddSpare: "node9"}), "OK", ""},
		"what is that":              {nil, &messages.ClusterRequest{}, "UNSUPPORTED", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t)
			if row.before != nil {
				row.before(s)
				s.log = nil
			}
			s.ask(row.ask)
			if row.want == "" {
				s.expect()
			} else {
				s.expect(row.want)
			}
			if got := strings.Join(s.spoken(), " "); got != row.spoken {
				t.Errorf("to raft: %q, want %q", got, row.spoken)
			}
		})
	}
}

// How requests that wait for the log are answered.
func TestWaitingRequests(t *testing.T) {
	for name, row := range map[string]struct {
		ask  *messages.ClusterRequest
		then func(*stand)
		want string
	}{
		"begun":         {beginning(1, kindRemove, "node2", "", ""), func(s *stand) { s.apply() }, "OK"},
		"another leads": {beginning(1, kindRemove, "node2", "", ""), func(s *stand) { s.lead(3) }, "REDIRECT node3 leads"},
		"others are members now": {func() *messages.ClusterRequest {
			m := beginning(1, kindRemove, "node2", "", "")
			m.Configuration = 1
			return m
		}(), func(s *stand) { s.c.waiting[0].proposed, s.c.waiting[0].record, s.k.Index = false, nil, 2; s.tick(0) }, "CONFLICT the view is stale"},
		"time is over":           {beginning(1, kindRemove, "node2", "", ""), func(s *stand) { s.tick(requestTicks) }, "OUTCOME_UNKNOWN operation 00000000000000000000000000000001"},
		"nobody leads, in vain":  {beginning(1, kindRemove, "node2", "", ""), func(s *stand) { s.lead(0); s.tick(requestTicks) }, "OUTCOME_UNKNOWN"},
		"the address is changed": {moving("node2", "h9:7000"), func(s *stand) { s.apply() }, "OK"},
		"the address, in vain":   {moving("node2", "h9:7000"), func(s *stand) { s.tick(requestTicks) }, "OUTCOME_UNKNOWN it is not known"},
		"the spare is known":     {healing(&messages.ChangeHealing{AddSpare: "node9"}), func(s *stand) { s.apply() }, "OK"},
		"the spare, in vain":     {healing(&messages.ChangeHealing{AddSpare: "node9"}), func(s *stand) { s.tick(requestTicks) }, "OUTCOME_UNKNOWN it is not known"},
		"another spare was faster": {healing(&messages.ChangeHealing{AddSpare: "node9"}), func(s *stand) {
			s.k.Healing = &messages.Healing{Version: 1, Mode: messages.HealingMode_HEALING_DRY, AfterMs: rules.HealAfterMS, Spares: []string{"node8"}}
			s.log = nil
			s.tick(0)
			s.apply()
			if len(s.k.Healing.Spares) != 2 {
				s.t.Errorf("spares %v", s.k.Healing.Spares)
			}
		}, "OK"},
		"the lead went there":     {transferring("node3"), func(s *stand) { s.lead(3) }, "OK node3"},
		"the lead went elsewhere": {transferring("node3"), func(s *stand) { s.lead(2) }, "CONFLICT node2 leads now, and not node3"},
		"the lead stays":          {transferring("node3"), func(s *stand) { s.tick(requestTicks) }, "OUTCOME_UNKNOWN"},
		"lost, and again": {beginning(1, kindRemove, "node2", "", ""), func(s *stand) {
			s.log = nil
			s.tick(saga.RetryTicks)
			s.apply()
		}, "OK"},
		"somebody was faster": {beginning(1, kindRemove, "node2", "", ""), func(s *stand) {
			s.k.Operations = []*messages.ClusterOperation{{Id: opID(7), Version: 1, Kind: kindRemove, OldNode: "node2", OldRaftId: 2, Phase: messages.OperationPhase_REMOVE_OLD}}
		}, "CONFLICT operation 00000000000000000000000000000007 was faster"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t)
			s.ask(row.ask)
			s.expect()
			row.then(s)
			s.tick(0)
			s.expect(row.want)
			if len(s.c.waiting) != 0 {
				t.Error("it still waits")
			}
		})
	}
}

// A voter that is lost is replaced by the spare that waits, once, and not while something
// stands in the way; people are told either way.
func TestALostVoterIsReplaced(t *testing.T) {
	s := newStand(t)
	s.k.Healing = &messages.Healing{Version: 1, Mode: messages.HealingMode_HEALING_ON, AfterMs: rules.HealAfterMinMS, Spares: []string{"node9"}}
	s.k.Waiting = []*messages.WaitingNode{{Name: "node9", Address: "h9:7000", Incarnation: append(make([]byte, messages.IncarnationSize-1), 9)}}
	s.k.Replication.Progress[1].SilentTicks = 1000
	s.k.Operations = []*messages.ClusterOperation{{Id: opID(7), Version: 1, Kind: kindAdd, NewNode: "node9", NewAddress: "h9:7000"}}
	s.tick(1)
	if len(s.k.Operations) != 1 || !strings.Contains(s.c.heals, "node3 is out of contact since 50s: it is replaced by node9, but not now: operation") {
		t.Errorf("%q, to raft %v", s.c.heals, s.spoken())
	}
	s.k.Operations, s.log = nil, nil
	s.tick(1)
	s.tick(1) // it was proposed just now
	if got := s.spoken(); !slices.Equal(got, []string{"Propose"}) {
		t.Fatalf("to raft %v: %s", got, s.c.heals)
	}
	s.apply()
	if o := s.k.Operations; len(o) != 1 || o[0].Kind != kindReplace || o[0].OldNode != "node3" || o[0].NewNode != "node9" {
		t.Errorf("operations %v", o)
	}
}

// Two that ask for the same node at once: the second is refused before the first is in the
// log. Two that ask with one id are one.
func TestTwoAskAtOnce(t *testing.T) {
	s := newStand(t)
	s.ask(beginning(1, kindRemove, "node2", "", ""))
	s.ask(beginning(2, kindReplace, "node2", "node4", "h4:7000"))
	s.expect("CONFLICT operation 00000000000000000000000000000001 is under way: remove node2")
	s.ask(beginning(1, kindRemove, "node2", "", ""))
	s.apply()
	s.tick(0)
	s.expect("OK", "OK")
	if len(s.k.Operations) != 1 {
		t.Errorf("%d operations", len(s.k.Operations))
	}
}

// An abort that loses against the swap is told so.
func TestAbortRacesTheSwap(t *testing.T) {
	s := newStand(t)
	s.ask(beginning(1, kindReplace, "node2", "node4", "h4:7000"))
	s.apply()
	for s.k.Operations[0].Phase != messages.OperationPhase_PROMOTION {
		s.tick(1)
		s.apply()
	}
	s.tick(1) // the swap is proposed
	s.answers = nil
	s.ask(aborting(1))
	s.expect()
	s.apply()
	s.tick(0)
	s.expect("CONFLICT operation 00000000000000000000000000000001 only goes forward")
}

// A new leader does not know yet how far the others are, and does not refuse at once.
func TestTransferHasPatience(t *testing.T) {
	for name, row := range map[string]struct {
		catchesUp bool
		want      string
	}{"it has caught up": {true, "OK node3"}, "it has not": {false, "UNSAFE node3 lacks"}} {
		s := newStand(t)
		far := s.k.Following[3]
		s.k.Following[3] = rules.Follow{Last: 9}
		s.ask(transferring("node3"))
		s.tick(patienceTicks - 1)
		s.expect()
		if row.catchesUp {
			s.k.Following[3] = far
		}
		s.tick(1)
		s.apply()
		s.tick(0)
		t.Log(name)
		s.expect(row.want)
	}
}

// A node that was stopped just now still counts as in contact, and its place is asked for.
func TestBeginHasPatience(t *testing.T) {
	s := newStand(t)
	s.ask(beginning(1, kindReplace, "node3", "node3", "h3:7000"))
	s.tick(rules.ContactTicksMax)
	s.expect()
	s.k.Replication.Progress[1].SilentTicks = rules.ContactTicksMax + 1
	s.tick(1)
	s.apply()
	s.tick(0)
	s.expect("OK")
	s = newStand(t)
	s.ask(beginning(1, kindReplace, "node3", "node3", "h3:7000"))
	s.tick(patienceTicks)
	s.expect("CONFLICT node3 answers at h3:7000 itself")
}

// A client asks again when an answer takes long. All that it asked has one answer, and what was
// refused does not begin when it could, after that.
func TestAskedAgainHasOneAnswer(t *testing.T) {
	s := newStand(t)
	for range 3 {
		s.ask(beginning(1, kindReplace, "node3", "node3", "h3:7000"))
		s.tick(patienceTicks / 3)
	}
	s.tick(patienceTicks)
	same := "CONFLICT node3 answers at h3:7000 itself"
	s.expect(same, same, same)
	s.k.Replication.Progress[1].SilentTicks = rules.ContactTicksMax + 1
	s.tick(1)
	s.apply()
	s.tick(requestTicks)
	if s.expect(); len(s.k.Operations) > 0 || len(s.c.waiting) > 0 {
		t.Errorf("it begins all the same: %v", s.k.Operations)
	}
}

// So many requests wait, and no more.
func TestRequestsAreBounded(t *testing.T) {
	s := newStand(t)
	s.k.Replication.Settled = false
	for n := range requestsMax + 1 {
		s.ask(beginning(byte(n), kindRemove, "node2", "", ""))
	}
	s.expect("BUSY 64 requests wait")
	s.tick(requestTicks)
	if len(s.answers) != requestsMax || !strings.HasPrefix(s.answers[0], "BUSY") || len(s.c.waiting) != 0 {
		t.Errorf("%d answers, first %q", len(s.answers), s.answers[0])
	}
}

// Why an operation waits is told, with what somebody can do.
func TestWaitsAreTold(t *testing.T) {
	s := newStand(t)
	s.ask(beginning(1, kindAdd, "", "node4", "h4:7000"))
	s.apply()
	s.tick(1)
	s.apply()
	s.k.Member(4).Incarnation = nil
	s.tick(1)
	all := s.c.waits(s.k)
	if len(all) != 1 || all[0].Why != "node4 has not joined yet" ||
		all[0].Hint != "start it: kvctl serve --join h1:7000,h2:7000,h3:7000 --name node4 --listen h4:7000 --data DIR" {
		t.Errorf("%v", all)
	}
}

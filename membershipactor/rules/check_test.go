package rules

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
)

// cluster is a view of node1 to node5 at h1:7000 to h5:7000. node1 leads; alter makes it the
// one that a row needs.
func cluster(voters, learners []uint64, alter ...func(*View)) View {
	c := &raftpb.ConfState{Voters: voters, Learners: learners}
	v := View{
		Self: 1, TickMS: 50,
		Configuration: Configuration{Index: 9, ConfState: c, NextRaftID: 6},
		Replication:   &messages.Replication{Leader: 1, Term: 3, LastIndex: 100, Settled: true},
		Following:     Following{},
	}
	ids := append(slices.Clone(voters), learners...)
	slices.Sort(ids)
	v.Members = named(ids...)
	for _, m := range v.Members {
		if slices.Contains(learners, m.RaftId) {
			m.Type = messages.MemberType_LEARNER
		}
		if m.RaftId != v.Self {
			v.Replication.Progress = append(v.Replication.Progress, &messages.Progress{RaftId: m.RaftId, Match: 100, State: messages.ProgressState_REPLICATING})
			v.Following[m.RaftId] = Follow{Match: 100, Last: 100, Close: true, CloseTicks: ReadyTicks}
		}
	}
	for _, f := range alter {
		f(&v)
	}
	return v
}

func dead(ids ...uint64) func(*View) {
	return func(v *View) {
		for _, p := range v.Replication.Progress {
			if slices.Contains(ids, p.RaftId) {
				p.SilentTicks = ContactTicksMax + 1
				v.Following[p.RaftId] = Follow{Match: 50, Last: 100}
			}
		}
	}
}

func silentFor(id, ticks uint64) func(*View) {
	return progress(id, func(p *messages.Progress, _ *Follow) { p.SilentTicks = ticks })
}

func progress(id uint64, alter func(*messages.Progress, *Follow)) func(*View) {
	return func(v *View) {
		f := v.Following[id]
		alter(v.progress(id), &f)
		v.Following[id] = f
	}
}

func under(way ...*messages.ClusterOperation) func(*View) {
	return func(v *View) { v.Operations = way }
}

var (
	voters3 = []uint64{1, 2, 3}
	opOther = &messages.ClusterOperation{Id: []byte{0xab, 0xcd}, Kind: messages.OperationKind_REPLACE, Phase: messages.OperationPhase_CATCH_UP,
		OldNode: "node2", NewNode: "node4", NewAddress: "h4:7000"}
)

func opAdd(name, address string) *messages.ClusterOperation {
	return &messages.ClusterOperation{Id: []byte{1}, Kind: messages.OperationKind_ADD, NewNode: name, NewAddress: address}
}

func opPromote(name string) *messages.ClusterOperation {
	return &messages.ClusterOperation{Id: []byte{1}, Kind: messages.OperationKind_PROMOTE, NewNode: name}
}

func opRemove(name string) *messages.ClusterOperation {
	return &messages.ClusterOperation{Id: []byte{1}, Kind: messages.OperationKind_REMOVE, OldNode: name}
}

func opReplace(old, name, address string) *messages.ClusterOperation {
	return &messages.ClusterOperation{Id: []byte{1}, Kind: messages.OperationKind_REPLACE, OldNode: old, NewNode: name, NewAddress: address}
}

const (
	ok        = messages.Code_OK
	invalid   = messages.Code_INVALID
	notFound  = messages.Code_NOT_FOUND
	conflict  = messages.Code_CONFLICT
	unsafe    = messages.Code_UNSAFE
	noLeader  = messages.Code_NO_LEADER
	busy      = messages.Code_BUSY
	snapshots = messages.ProgressState_SNAPSHOT
)

func TestCheck(t *testing.T) {
	outside := func(v *View) { v.Self = 7 }
	waits := func(v *View) { v.Waiting = []*messages.WaitingNode{{Name: "node4"}} }
	refused := func(v *View) {
		v.Waiting = []*messages.WaitingNode{{Name: "node4", Address: "h4:7000", Refused: "its software is old"}}
	}
	unbound := func(v *View) { v.Member(4).Incarnation = nil }
	shipped := func(v *View) { v.Shipments = map[uint64]Shipment{4: {Done: 4, Total: 10}} }
	crowded := func(v *View) { v.Members = append(v.Members, make([]*messages.Member, messages.MembersMax)...) }
	ended := &messages.ClusterOperation{Id: []byte{2}, Phase: messages.OperationPhase_COMPLETE, OldNode: "node2"}
	for name, row := range map[string]struct {
		view View
		op   *messages.ClusterOperation
		code messages.Code
		says string // in message, hint or warnings
	}{
		"add":                          {cluster(voters3, nil), opAdd("node4", "h4:7000"), ok, "4 voters survive no more losses than 3"},
		"add with a dead member":       {cluster(voters3, nil, dead(2)), opAdd("node4", "h4:7000"), ok, ""},
		"add to a single voter":        {cluster([]uint64{1}, nil), opAdd("node2", "h2:7000"), ok, "two voters stop when either is lost"},
		"add beside another":           {cluster(voters3, nil), opAdd("node4", "h2:7100"), ok, "node2 and node4 are on one host, h2"},
		"add, another ended":           {cluster(voters3, nil, under(ended)), opAdd("node4", "h4:7000"), ok, ""},
		"add: no name":                 {cluster(voters3, nil), opAdd("", "h4:7000"), invalid, "the name"},
		"add: no address":              {cluster(voters3, nil), opAdd("node4", "h4"), invalid, "HOST:PORT"},
		"add: a used name":             {cluster(voters3, nil), opAdd("node3", "h4:7000"), conflict, "kvctl cluster replace node3 node3 h4:7000"},
		"add: a learner":               {cluster(voters3, []uint64{4}), opAdd("node4", "h5:7000"), conflict, "kvctl cluster promote node4"},
		"add: a used address":          {cluster(voters3, nil), opAdd("node4", "h3:7000"), conflict, "the address of node3"},
		"add: another one's node":      {cluster(voters3, nil, under(opOther)), opAdd("node4", "h5:7000"), conflict, "kvctl ops abort abcd"},
		"add: another one's address":   {cluster(voters3, nil, under(opOther)), opAdd("node5", "h4:7000"), conflict, "abcd is under way: replace node2 by node4"},
		"add: as many as may be":       {cluster(voters3, nil, crowded), opAdd("node4", "h4:7000"), busy, "remove one first"},
		"add: its software is old":     {cluster(voters3, nil, refused), opAdd("node4", "h4:7000"), unsafe, "node4 is not let in: its software is old"},
		"add: an old one elsewhere":    {cluster(voters3, nil, refused), opAdd("node4", "h5:7000"), ok, ""},
		"add: no leader":               {cluster(voters3, nil, outside), opAdd("node4", "h4:7000"), noLeader, "does not lead"},
		"add: no quorum":               {cluster(voters3, nil, dead(2, 3)), opAdd("node4", "h4:7000"), noLeader, "start node2 or node3: that makes a quorum"},
		"promote":                      {cluster(voters3, []uint64{4}), opPromote("node4"), ok, "4 voters"},
		"promote with a dead member":   {cluster(voters3, []uint64{4}, dead(2)), opPromote("node4"), ok, ""},
		"promote: unknown":             {cluster(voters3, nil), opPromote("node9"), notFound, "the members are node1, node2 and node3"},
		"promote: it only waits":       {cluster(voters3, nil, waits), opPromote("node4"), notFound, "node4 waits to be added"},
		"promote: a voter":             {cluster(voters3, nil), opPromote("node2"), conflict, "a voter already"},
		"promote: never heard":         {cluster(voters3, []uint64{4}, unbound, dead(4)), opPromote("node4"), unsafe, "kvctl serve --join h1:7000,h2:7000,h3:7000 --name node4 --listen h4:7000"},
		"promote: its software is old": {cluster(voters3, []uint64{4}, unbound, dead(4), refused), opPromote("node4"), unsafe, "not let in: its software is old; start node4 with the version"},
		"promote: out of contact":      {cluster(voters3, []uint64{4}, dead(4)), opPromote("node4"), unsafe, "out of contact since 1.05s"},
		"promote: within a snapshot":   {cluster(voters3, []uint64{4}, shipped, progress(4, func(p *messages.Progress, _ *Follow) { p.State = snapshots })), opPromote("node4"), unsafe, "40 % of it"},
		"promote: lags":                {cluster(voters3, []uint64{4}, progress(4, func(_ *messages.Progress, f *Follow) { f.Close, f.Match, f.Rate = false, 0, 10 })), opPromote("node4"), unsafe, "lacks 100 entries, for about 550ms"},
		"promote: its disk stands":     {cluster(voters3, []uint64{4}, progress(4, func(_ *messages.Progress, f *Follow) { f.Match, f.StuckTicks = 0, 80 })), opPromote("node4"), unsafe, "none of 100 entries for 4s"},
		"promote: close just now":      {cluster(voters3, []uint64{4}, progress(4, func(_ *messages.Progress, f *Follow) { f.CloseTicks = 4 })), opPromote("node4"), unsafe, "caught up for 200ms, 500ms are wanted"},
		"remove":                       {cluster(voters3, nil), opRemove("node2"), ok, "2 voters survive no more losses than 1"},
		"remove the leader":            {cluster(voters3, nil), opRemove("node1"), ok, ""},
		"remove a dead one":            {cluster(voters3, nil, dead(3)), opRemove("node3"), ok, ""},
		"remove a learner":             {cluster([]uint64{1}, []uint64{2}), opRemove("node2"), ok, ""},
		"remove the last voter":        {cluster([]uint64{1}, []uint64{2}), opRemove("node1"), unsafe, "the last voter"},
		"remove: unknown":              {cluster(voters3, nil), opRemove("node9"), notFound, "node9"},
		"remove: a quorum lost":        {cluster(voters3, nil, dead(2)), opRemove("node3"), unsafe, "no quorum: 1 of 2 voters is in contact, 2 are needed"},
		"remove: whose return helps":   {cluster(voters3, nil, dead(2)), opRemove("node3"), unsafe, "start node2 first"},
		"remove: it is being replaced": {cluster(voters3, nil, under(opOther)), opRemove("node2"), conflict, "operation abcd"},
		"replace":                      {cluster(voters3, nil), opReplace("node2", "node4", "h4:7000"), ok, ""},
		"replace a dead one":           {cluster(voters3, nil, dead(2)), opReplace("node2", "node4", "h4:7000"), ok, ""},
		"replace the leader":           {cluster(voters3, nil), opReplace("node1", "node4", "h4:7000"), ok, ""},
		"replace the last voter":       {cluster([]uint64{1}, nil), opReplace("node1", "node4", "h4:7000"), ok, ""},
		"replace a learner":            {cluster(voters3, []uint64{4}), opReplace("node4", "node5", "h5:7000"), ok, ""},
		"replace an emptied one":       {cluster(voters3, nil, dead(2)), opReplace("node2", "node2", "h2:7000"), ok, ""},
		"replace: it is not emptied":   {cluster(voters3, nil), opReplace("node2", "node2", "h2:7000"), conflict, "node2 answers at h2:7000 itself"},
		"replace: unknown":             {cluster(voters3, nil), opReplace("node9", "node4", "h4:7000"), notFound, "node9"},
		"replace: the new one is old":  {cluster(voters3, nil, refused), opReplace("node2", "node4", "h4:7000"), unsafe, "node4 is not let in: its software is old"},
		"replace: a used name":         {cluster(voters3, nil), opReplace("node2", "node3", "h4:7000"), conflict, "node3 is a member already"},
		"replace: two at once":         {cluster(voters3, nil, under(opOther)), opReplace("node3", "node5", "h5:7000"), conflict, "operation abcd"},
		"replace: one alive of two":    {cluster([]uint64{1, 2, 3, 4}, nil, dead(3)), opReplace("node2", "node5", "h5:7000"), ok, ""},
		"what is that":                 {cluster(voters3, nil), &messages.ClusterOperation{}, messages.Code_UNSUPPORTED, "upgrade"},
	} {
		t.Run(name, func(t *testing.T) {
			d := Check(row.view, row.op)
			said := strings.Join(d.Warnings, "; ")
			code := messages.Code_OK
			if d.Err != nil {
				code, said = d.Err.Code, d.Err.Message+"; "+d.Err.Hint
				if d.Err.Hint == "" {
					t.Errorf("it does not say what would make it possible: %s", said)
				}
			}
			if code != row.code || !strings.Contains(said, row.says) {
				t.Errorf("%v: %s", code, said)
			}
			if d.Err == nil && (d.Before == nil || d.After == nil || !d.After.Available) {
				t.Errorf("budgets: %v, then %v", d.Before, d.After)
			}
			if (row.code == conflict) != (d.InTheWay != nil) && strings.Contains(said, "operation") {
				t.Errorf("in the way: %v", d.InTheWay)
			}
		})
	}
}

func TestCheckReplaceSaysTheBudgetOfEachPhase(t *testing.T) {
	d := Check(cluster(voters3, nil, dead(2)), opReplace("node2", "node4", "h4:7000"))
	for _, row := range []struct {
		got  *messages.FaultBudget
		want string
	}{
		{d.Before, "budget 0: the loss of node1 or node3 stops writes"},
		{d.Meanwhile, "budget 0: the loss of node1 or node3 stops writes, that of node4 does not"},
		{d.After, "survives the loss of node1, node3 or node4, not of two"},
	} {
		if got := Words(row.got); got != row.want {
			t.Errorf("%s, want %s", got, row.want)
		}
	}
}

// Removals and replaces are allowed exactly where a quorum lives before and afterwards: for
// all sets of up to five voters, whoever is dead.
func TestVerdictsAreWhatCountingSays(t *testing.T) {
	for set := 1; set < 1<<voterBits; set += 2 { // node1 leads
		for alive := range 1 << voterBits {
			alive |= 1
			v := cluster(idsOf(set), nil, dead(idsOf(set&^alive)...))
			now := commits([]int{set}, alive)
			for _, id := range idsOf(set) {
				bit, name := 1<<(id-1), fmt.Sprintf("node%d", id)
				may := now && bits.OnesCount(uint(set)) > 1 && commits([]int{set &^ bit}, alive)
				if d := Check(v, opRemove(name)); (d.Err == nil) != may {
					t.Fatalf("voters %v, alive %v: removing %s: %v", idsOf(set), idsOf(alive), name, d.Err)
				}
				d := Check(v, opReplace(name, "node6", "h6:7000"))
				if may := now && commits([]int{set&^bit | 1<<voterBits}, alive|1<<voterBits); (d.Err == nil) != may {
					t.Fatalf("voters %v, alive %v: replacing %s: %v", idsOf(set), idsOf(alive), name, d.Err)
				}
				if d.Err == nil && d.After.Alive < d.Before.Alive {
					t.Fatalf("voters %v, alive %v: replacing %s leaves fewer alive", idsOf(set), idsOf(alive), name)
				}
			}
			d := Check(v, opAdd("node6", "h6:7000"))
			if may := now && commits([]int{set | 1<<voterBits}, alive|1<<voterBits); (d.Err == nil) != may {
				t.Fatalf("voters %v, alive %v: adding: %v", idsOf(set), idsOf(alive), d.Err)
			}
		}
	}
}

func TestCheckStale(t *testing.T) {
	for name, row := range map[string]struct {
		configuration, term uint64
		code                messages.Code
	}{
		"any": {0, 0, ok}, "this": {9, 3, ok}, "an older configuration": {8, 3, conflict}, "an older term": {9, 2, conflict},
		"a newer configuration": {10, 0, busy}, "a newer term": {0, 4, busy},
	} {
		err := CheckStale(&messages.ClusterRequest{Configuration: row.configuration, Term: row.term}, 9, 3)
		if code := codeOf(err); code != row.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func codeOf(err *messages.Error) messages.Code {
	if err == nil {
		return ok
	}
	return err.Code
}

func leaving(id uint64) func(*View) {
	return under(&messages.ClusterOperation{Id: []byte{3}, Kind: messages.OperationKind_REMOVE, Phase: messages.OperationPhase_REMOVE_OLD, OldRaftId: id})
}

func TestCheckTransfer(t *testing.T) {
	ahead := func(id, match uint64) func(*View) {
		return progress(id, func(_ *messages.Progress, f *Follow) { f.Match = match })
	}
	outgoing := func(v *View) { v.Member(2).Type = messages.MemberType_OUTGOING }
	for name, row := range map[string]struct {
		view View
		to   string
		id   uint64
		code messages.Code
	}{
		"to a voter":         {cluster(voters3, nil), "node3", 3, ok},
		"to the leader":      {cluster(voters3, nil), "node1", 0, ok},
		"to the best":        {cluster(voters3, nil, ahead(2, 99)), "", 3, ok},
		"to the first":       {cluster(voters3, nil), "", 2, ok},
		"the other is dead":  {cluster(voters3, nil, dead(2)), "", 3, ok},
		"nobody else":        {cluster([]uint64{1}, []uint64{2}), "", 0, unsafe},
		"to a learner":       {cluster(voters3, []uint64{4}), "node4", 0, unsafe},
		"to a dead one":      {cluster(voters3, nil, dead(2)), "node2", 0, unsafe},
		"to one that lags":   {cluster(voters3, nil, progress(2, func(_ *messages.Progress, f *Follow) { f.Close = false })), "node2", 0, unsafe},
		"to one that leaves": {cluster(voters3, nil, outgoing), "node2", 0, unsafe},
		"the best is to go":  {cluster(voters3, nil, ahead(3, 99), leaving(2)), "", 3, ok},
		"all others are":     {cluster([]uint64{1, 2}, nil, leaving(2)), "", 2, ok},
		"to nobody known":    {cluster(voters3, nil), "node9", 0, notFound},
		"while it goes":      {cluster(voters3, nil, func(v *View) { v.Replication.TransferringTo = 2 }), "node2", 0, busy},
		"without a quorum":   {cluster(voters3, nil, dead(2, 3)), "", 0, noLeader},
	} {
		id, passes, err := CheckTransfer(row.view, row.to)
		if strings.HasPrefix(name, "to one that lags") != passes && row.code == unsafe && row.to != "" {
			t.Errorf("%s: passes: %v", name, passes)
		}
		if id != row.id || codeOf(err) != row.code {
			t.Errorf("%s: %d, %v", name, id, err)
		}
	}
}

func TestCheckUpdate(t *testing.T) {
	for name, row := range map[string]struct {
		view          View
		node, address string
		code          messages.Code
	}{
		"elsewhere":             {cluster(voters3, nil), "node2", "h9:7000", ok},
		"where it is":           {cluster(voters3, nil), "node2", "h2:7000", ok},
		"where another is":      {cluster(voters3, nil), "node2", "h3:7000", conflict},
		"nowhere":               {cluster(voters3, nil), "node2", "h3", invalid},
		"nobody":                {cluster(voters3, nil), "node9", "h9:7000", notFound},
		"it is being replaced":  {cluster(voters3, nil, under(opOther)), "node2", "h9:7000", conflict},
		"where another will be": {cluster(voters3, nil, under(opOther)), "node3", "h4:7000", conflict},
		"without a quorum":      {cluster(voters3, nil, dead(2, 3)), "node2", "h9:7000", noLeader},
	} {
		m, d := CheckUpdate(row.view, row.node, row.address)
		if codeOf(d.Err) != row.code || (m == nil) != (d.Err != nil) {
			t.Errorf("%s: %v", name, d.Err)
		}
	}
}

func TestGuards(t *testing.T) {
	lags := progress(4, func(_ *messages.Progress, f *Follow) { f.Close = false })
	silent := progress(2, func(p *messages.Progress, _ *Follow) { p.Match = 0 })
	behind := progress(2, func(_ *messages.Progress, f *Follow) { f.Close = false })
	for name, row := range map[string]struct {
		why  Why
		want Kind
	}{
		"steady":                          {cluster(voters3, nil).Steady(), Nothing},
		"a new leader":                    {cluster(voters3, nil, func(v *View) { v.Replication.Settled = false }).Steady(), Unsettled},
		"raft has not come to the change": {cluster(voters3, nil, func(v *View) { v.Replication.ConfState = &raftpb.ConfState{Voters: []uint64{1, 2}} }).Steady(), Unsettled},
		"raft has the same, in its order": {cluster(voters3, nil, func(v *View) { v.Replication.ConfState = &raftpb.ConfState{Voters: []uint64{3, 2, 1}} }).Steady(), Nothing},
		"no quorum":                       {cluster(voters3, nil, dead(2, 3)).Steady(), NoQuorum},
		"swap":                            {cluster(voters3, []uint64{4}).GuardSwap(4, 2), Nothing},
		"swap, the old one dead":          {cluster(voters3, []uint64{4}, dead(2)).GuardSwap(4, 2), Nothing},
		"swap, the new one lags":          {cluster(voters3, []uint64{4}, lags).GuardSwap(4, 2), Lag},
		"swap, too few of the rest close": {cluster(voters3, []uint64{4}, dead(3), behind).GuardSwap(4, 3), Behind},
		"swap, a quorum dead":             {cluster(voters3, []uint64{4}, dead(2, 3)).GuardSwap(4, 2), Behind},
		"removal leaves too few":          {cluster(voters3, nil, dead(2)).GuardVoters(0, 3), TooFewAfter},
		"removal, too few have answered":  {cluster(voters3, nil, silent).GuardVoters(0, 3), TooFewAfter},
		"promotion":                       {cluster(voters3, []uint64{4}).GuardVoters(4, 0), Nothing},
		"promotion, a heartbeat was lost": {cluster(voters3, []uint64{4}, silentFor(4, 5)).GuardVoters(4, 0), Nothing},
		"promotion of one fallen silent":  {cluster(voters3, []uint64{4}, silentFor(4, 6)).GuardVoters(4, 0), Unreachable},
	} {
		if row.why.Kind != row.want {
			t.Errorf("%s: %d: %v", name, row.why.Kind, row.why)
		}
	}
}

func TestEveryReasonHasWords(t *testing.T) {
	for k := Unsettled; k <= Writing; k++ {
		if (Why{Kind: k}).String() == "" {
			t.Errorf("reason %d says nothing", k)
		}
		if messages.WaitReason_name[int32(k)] == "" || len(messages.WaitReason_name) != int(Writing)+1 {
			t.Errorf("reason %d is none of messages.WaitReason", k)
		}
	}
	if s := (Why{}).String() + (Why{}).Hint(); s != "" {
		t.Error(s)
	}
}

// A follower's way from a snapshot to readiness, a word of raft's a row, each four ticks
// after the one before.
func TestFollowing(t *testing.T) {
	const probing, replicating = messages.ProgressState_PROBING, messages.ProgressState_REPLICATING
	var f Following
	for i, row := range []struct {
		last, match, silent uint64
		state               messages.ProgressState
		close               bool
		closeTicks, stuck   uint64
	}{
		{1000, 0, 0, probing, false, 0, 0},
		{1000, 0, 0, snapshots, false, 0, 0}, // its disk is not slow for that
		{1000, 0, 0, probing, false, 0, 4},
		{1100, 900, 0, replicating, true, 4, 0}, // 112 a tick: what it lacks takes two
		{1500, 1000, 0, replicating, false, 0, 0},
		{1600, 1400, 0, replicating, true, 4, 0},
		{1600, 1600, 0, replicating, true, 8, 0},
		{1601, 1600, 0, replicating, true, 12, 4},
		{1601, 1601, 0, replicating, true, 16, 0},
		{1601, 1601, ContactTicksMax + 1, replicating, false, 0, 0},
		{1601, 1601, 0, replicating, true, 4, 0},
		{1602, 1601, 0, replicating, true, 8, 4},
		{1602, 1601, 0, replicating, true, 12, 8},
		{1602, 1601, 0, replicating, false, 0, 12}, // it answers, and takes nothing
	} {
		f = f.After(&messages.Replication{LastIndex: row.last, Progress: []*messages.Progress{{RaftId: 4, Match: row.match, SilentTicks: row.silent, State: row.state}}}, 4)
		if got := f[4]; got.Close != row.close || got.CloseTicks != row.closeTicks || got.StuckTicks != row.stuck {
			t.Errorf("row %d: %+v", i, got)
		}
	}
	if f = f.After(&messages.Replication{}, 4); len(f) != 0 {
		t.Error("nobody is forgotten")
	}
	if eta := (Follow{Last: 100, Rate: 10, Growth: 5}).ETATicks(); eta != 21 {
		t.Errorf("%d ticks", eta)
	}
	if eta := (Follow{Last: 100, Rate: 5, Growth: 5}).ETATicks(); eta != 0 {
		t.Errorf("%d ticks", eta)
	}
}

// Under the same name on an empty disk: the learner has the name and the address of the one
// whose place it takes, and nobody else's.
func TestAnHeirHasItsNameAndAddress(t *testing.T) {
	c := three()
	first := c.Members[0]
	ask := func(name, address string, record *messages.ClusterOperation) *messages.Error {
		m := changes(add(c.NextRaftID, func(a *messages.AddLearner) { a.Name, a.Address = name, address }))
		m.Configuration = c.Index
		if record != nil {
			m.Record = &messages.RecordOperation{Operation: record}
		}
		_, _, err := c.Change(m, c.Index+1, nil)
		return err
	}
	replace := &messages.ClusterOperation{Kind: messages.OperationKind_REPLACE, OldRaftId: first.RaftId}
	for name, row := range map[string]struct {
		name, address string
		record        *messages.ClusterOperation
		code          messages.Code
	}{
		"of a replace":               {first.Name, first.Address, replace, ok},
		"of no operation":            {first.Name, first.Address, nil, conflict},
		"of an add":                  {first.Name, first.Address, &messages.ClusterOperation{Kind: messages.OperationKind_ADD, OldRaftId: first.RaftId}, conflict},
		"another one's name":         {c.Members[1].Name, first.Address, replace, conflict},
		"another one's address":      {first.Name, c.Members[1].Address, replace, conflict},
		"a new name, an old address": {"fresh", first.Address, replace, ok},
	} {
		if err := ask(row.name, row.address, row.record); codeOf(err) != row.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

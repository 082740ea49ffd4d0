package client

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"keyval/messages"
)

// What the cluster is, in the words of programs. All of it is derived from one
// ClusterReply, and every node can give that.

// NodeState is what a node does: "leader", "follower", "candidate", "learner", "starting",
// "unreachable", or "unknown" where the node that answers has no word of it.
type NodeState string

const (
	stateLeader      NodeState = "leader"
	stateLearner     NodeState = "learner"
	stateUnreachable NodeState = "unreachable"
	stateUnknown     NodeState = "unknown"
)

// inContact reports whether a node is known to be there.
func (s NodeState) inContact() bool { return s != stateUnreachable && s != stateUnknown }

// Types of members.
const (
	TypeVoter    = "voter"
	TypeLearner  = "learner"
	TypeIncoming = "incoming" // it becomes a voter with the end of a swap
	TypeOutgoing = "outgoing" // it leaves with the end of a swap
)

// ClusterInfo is the cluster as one node knows it.
type ClusterInfo struct {
	ClusterID          string        `json:"cluster_id"`
	LeaderID           string        `json:"leader_id"` // empty: none is known
	CurrentTerm        uint64        `json:"current_term,string"`
	ConfigurationIndex uint64        `json:"configuration_index,string"`
	CommitIndex        uint64        `json:"commit_index,string"`
	Members            []*MemberInfo `json:"members"`
	MemberCount        int           `json:"member_count"`
	VoterCount         int           `json:"voter_count"` // of the half that has more, while two are in force
	LearnerCount       int           `json:"learner_count"`
	Quorum             int           `json:"quorum"`
	Healthy            bool          `json:"healthy"` // as GetClusterHealth says, without its read
	FaultBudget        string        `json:"fault_budget"`
	Waiting            []WaitingInfo `json:"waiting"` // nodes that wait to be added
	Timestamp          time.Time     `json:"timestamp"`
}

// MemberInfo is one member.
type MemberInfo struct {
	ID            string         `json:"id"`
	RaftID        uint64         `json:"raft_id,string"`
	Address       string         `json:"address"`
	Type          string         `json:"type"` // TypeVoter and so on
	State         NodeState      `json:"state"`
	IsLeader      bool           `json:"is_leader"`
	IsSelf        bool           `json:"is_self"` // it is the node that answered
	AddedAt       time.Time      `json:"added_at,omitzero"`
	LastContact   *time.Time     `json:"last_contact"` // nil: not known
	LearnerStatus *LearnerStatus `json:"learner_status"`
	Version       string         `json:"version"`
	LagEntries    uint64         `json:"lag_entries,string"` // that it has yet to hold, of what is committed
	RoomBytes     uint64         `json:"room_bytes"`         // free on its disk; 0: not known
	Lacks         string         `json:"lacks"`              // what it has too little of, for people; empty: nothing
}

// LearnerStatus is how far a learner is on its way to be a voter.
type LearnerStatus struct {
	MatchIndex         uint64 `json:"match_index,string"` // it holds the log up to here
	LeaderIndex        uint64 `json:"leader_index,string"`
	LagEntries         uint64 `json:"lag_entries,string"`
	SnapshotBytesDone  uint64 `json:"snapshot_bytes_done"`
	SnapshotBytesTotal uint64 `json:"snapshot_bytes_total"` // about; 0: it gets none
	RateEntriesPerS    uint64 `json:"rate_entries_per_s,string"`
	ETAMs              uint64 `json:"eta_ms"` // 0: not known
	Ready              bool   `json:"ready"`
	WaitingFor         string `json:"waiting_for"` // empty: nothing
}

// WaitingInfo is a node that waits to be added.
type WaitingInfo struct {
	ID          string    `json:"id"`
	Address     string    `json:"address"`
	Version     string    `json:"version"`
	LastContact time.Time `json:"last_contact"`
	Refused     string    `json:"refused"` // why it is not let in; empty: it can be added
}

// ClusterHealth says whether the cluster does its work, and what is not as it should be.
type ClusterHealth struct {
	Healthy         bool      `json:"healthy"`
	LeaderPresent   bool      `json:"leader_present"`
	QuorumAvailable bool      `json:"quorum_available"`
	MembersHealthy  int       `json:"members_healthy"`
	MembersTotal    int       `json:"members_total"`
	Slack           int       `json:"slack"`         // so many further voters may be lost, whichever they are
	LeastRoomID     string    `json:"least_room_id"` // the member with the least room on its disk; empty: not known
	LeastRoomBytes  uint64    `json:"least_room_bytes"`
	FaultBudget     string    `json:"fault_budget"`
	Issues          []string  `json:"issues"`
	Backups         []Backup  `json:"backups"` // what backup jobs have said last
	Timestamp       time.Time `json:"timestamp"`
}

// Backup is what a backup job has said of itself last. Its times are of its machine's clock.
type Backup struct {
	Name       string     `json:"name"`   // where it keeps its backups
	Backup     string     `json:"backup"` // the newest that was read again and found whole
	VerifiedAt *time.Time `json:"verified_at,omitempty"`
	AgeMs      int64      `json:"age_ms"` // since then
	EveryMs    int64      `json:"every_ms"`
	Revision   uint64     `json:"revision,string"`
	Bytes      uint64     `json:"bytes"`
	Hash       string     `json:"hash"`
	FailedAt   *time.Time `json:"failed_at,omitempty"` // the last try, if that failed
	Error      string     `json:"error,omitempty"`
	Overdue    bool       `json:"overdue"`
}

// NodeStatus is what the node that answered knows of itself.
type NodeStatus struct {
	NodeID      string    `json:"node_id"`
	Address     string    `json:"address"`
	State       NodeState `json:"state"`
	IsLeader    bool      `json:"is_leader"`
	LeaderID    string    `json:"leader_id"`
	CurrentTerm uint64    `json:"current_term,string"`
	CommitIndex uint64    `json:"commit_index,string"`
	LastApplied uint64    `json:"last_applied,string"`
	MemberType  string    `json:"member_type"`
	RoomBytes   uint64    `json:"room_bytes"` // free on its disk; 0: not known
	Lacks       string    `json:"lacks"`      // what it has too little of, for people; empty: nothing
	Timestamp   time.Time `json:"timestamp"`
}

// ConfigChange is a change of the members that is under way.
type ConfigChange struct {
	OperationID string       `json:"operation_id"`
	Type        string       `json:"type"` // add, promote, remove, replace
	NodeID      string       `json:"node_id"`
	Address     string       `json:"address"`
	ProposedAt  time.Time    `json:"proposed_at"`
	Phase       ReplacePhase `json:"phase"`
}

// ReplacePhase is what an operation does now. Other operations than a replacement go through
// those of its phases that they need, in the same order.
type ReplacePhase int

const (
	ReplacePhaseAddLearner ReplacePhase = iota // the new node becomes a learner
	ReplacePhaseCatchUp                        // it gets the state and the log
	ReplacePhasePromote                        // it becomes a voter
	ReplacePhaseRemoveOld                      // the old node leaves
	ReplacePhaseComplete
	ReplacePhaseFailed // nothing of it is left behind
)

var phaseNames = [...]string{"AddLearner", "CatchUp", "Promote", "RemoveOld", "Complete", "Failed"}

func (p ReplacePhase) String() string {
	if p < 0 || int(p) >= len(phaseNames) {
		return fmt.Sprintf("ReplacePhase(%d)", int(p))
	}
	return phaseNames[p]
}

// MarshalText is the phase in JSON: add_learner, catch_up, promote, remove_old, complete, failed.
func (p ReplacePhase) MarshalText() ([]byte, error) {
	var b strings.Builder
	for i, r := range p.String() {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return []byte(strings.ToLower(b.String())), nil
}

// UnmarshalText reads what MarshalText writes.
func (p *ReplacePhase) UnmarshalText(text []byte) error {
	for i := range phaseNames {
		if own, _ := ReplacePhase(i).MarshalText(); string(own) == string(text) {
			*p = ReplacePhase(i)
			return nil
		}
	}
	return fmt.Errorf("%.40q is no phase", text)
}

// Ended reports whether nothing more will be done.
func (p ReplacePhase) Ended() bool { return p == ReplacePhaseComplete || p == ReplacePhaseFailed }

// ReplaceNodeStatus is the record of an operation, and how far it has come. Kinds other than
// "replace" leave out what they do not do.
type ReplaceNodeStatus struct {
	ID              string
	Kind            string // add, promote, remove, replace
	OldNodeID       string
	NewNodeID       string
	NewAddress      string
	Phase           ReplacePhase
	StartedAt       time.Time
	LearnerAdded    bool
	LearnerCaughtUp bool
	NewNodePromoted bool
	OldNodeRemoved  bool
	StaysLearner    bool   // of an add
	Aborting        bool   // what was done is being undone
	WaitingFor      string // why it does not go on; empty: it does
	Hint            string // what somebody can do about that
	Error           error  // why it failed: a *messages.Error
}

// replaceJSON is a ReplaceNodeStatus in JSON: the error is its message.
type replaceJSON struct {
	ID              string       `json:"id"`
	Kind            string       `json:"kind"`
	Phase           ReplacePhase `json:"phase"`
	OldNodeID       string       `json:"old_node_id"`
	NewNodeID       string       `json:"new_node_id"`
	NewAddress      string       `json:"new_address"`
	StartedAt       time.Time    `json:"started_at"`
	LearnerAdded    bool         `json:"learner_added"`
	LearnerCaughtUp bool         `json:"learner_caught_up"`
	NewNodePromoted bool         `json:"new_node_promoted"`
	OldNodeRemoved  bool         `json:"old_node_removed"`
	StaysLearner    bool         `json:"stays_learner"`
	Aborting        bool         `json:"aborting"`
	WaitingFor      string       `json:"waiting_for"`
	Error           string       `json:"error"`
}

// MarshalJSON writes the error as its message.
func (s *ReplaceNodeStatus) MarshalJSON() ([]byte, error) {
	reason := ""
	if s.Error != nil {
		reason = s.Error.Error()
	}
	return json.Marshal(replaceJSON{s.ID, s.Kind, s.Phase, s.OldNodeID, s.NewNodeID, s.NewAddress, s.StartedAt, s.LearnerAdded, s.LearnerCaughtUp,
		s.NewNodePromoted, s.OldNodeRemoved, s.StaysLearner, s.Aborting, s.WaitingFor, reason})
}

// UnmarshalJSON reads what MarshalJSON writes; of an error that is the message, and of the
// hint nothing.
func (s *ReplaceNodeStatus) UnmarshalJSON(text []byte) error {
	var r replaceJSON
	if err := json.Unmarshal(text, &r); err != nil {
		return err
	}
	*s = ReplaceNodeStatus{ID: r.ID, Kind: r.Kind, OldNodeID: r.OldNodeID, NewNodeID: r.NewNodeID, NewAddress: r.NewAddress, Phase: r.Phase,
		StartedAt: r.StartedAt, LearnerAdded: r.LearnerAdded, LearnerCaughtUp: r.LearnerCaughtUp, NewNodePromoted: r.NewNodePromoted,
		OldNodeRemoved: r.OldNodeRemoved, StaysLearner: r.StaysLearner, Aborting: r.Aborting, WaitingFor: r.WaitingFor}
	if r.Error != "" {
		s.Error = messages.Errorf(messages.Code_INTERNAL, "%s", r.Error)
	}
	return nil
}

// ClusterAnswer is what one node says of the cluster, or of a change of it.
type ClusterAnswer struct {
	*messages.ClusterReply
	At                  time.Time // when it came
	Endpoint, RequestID string
}

// Members are all members, by RaftID.
func (a ClusterAnswer) Members() []*MemberInfo {
	all := []*MemberInfo{}
	for _, m := range a.GetView().GetMembers() {
		all = append(all, a.member(m))
	}
	return all
}

func (a ClusterAnswer) member(m *messages.MemberView) *MemberInfo {
	commit := a.View.Commit
	info := &MemberInfo{
		ID: m.Member.Name, RaftID: m.Member.RaftId, Address: m.Member.Address, Type: strings.ToLower(m.Member.Type.String()),
		State: NodeState(m.Role), IsLeader: NodeState(m.Role) == stateLeader, IsSelf: m.Member.Name == a.Node,
		Version: m.Version, RoomBytes: m.RoomBytes, Lacks: m.Lacks,
	}
	if m.Member.AddedAtMs > 0 {
		info.AddedAt = time.UnixMilli(m.Member.AddedAtMs).UTC()
	}
	if m.ContactKnown {
		at := a.At.Add(-time.Duration(m.SilentMs) * time.Millisecond).UTC()
		info.LastContact = &at
	}
	if held := max(m.Match, m.Applied); held > 0 && commit > held {
		info.LagEntries = commit - held
	}
	if m.Member.Type == messages.MemberType_LEARNER {
		info.LearnerStatus = &LearnerStatus{
			MatchIndex: m.Match, LeaderIndex: max(commit, m.Match), LagEntries: max(commit, m.Match) - m.Match,
			SnapshotBytesDone: m.SnapshotBytesDone, SnapshotBytesTotal: m.SnapshotBytesTotal,
			RateEntriesPerS: m.Rate, ETAMs: m.EtaMs, Ready: m.Ready, WaitingFor: m.WaitingFor,
		}
		if !m.Ready && m.WaitingFor == "" {
			info.LearnerStatus.WaitingFor = "the leader has not said yet"
		}
	}
	return info
}

// Member finds a member by its name: NOT_FOUND if there is none.
func (a ClusterAnswer) Member(name string) (*MemberInfo, error) {
	var names []string
	for _, m := range a.Members() {
		if m.ID == name {
			return m, nil
		}
		names = append(names, m.ID)
	}
	err := messages.Errorf(messages.Code_NOT_FOUND, "no member is called %q", name)
	for _, w := range a.GetView().GetWaiting() {
		if w.Name == name {
			err.Message = fmt.Sprintf("%s waits to be added, and is no member", name)
		}
	}
	return nil, err.WithHint("the members are %s", strings.Join(names, ", ")).At(a.Endpoint, a.RequestID)
}

// LeaderMember is the member that leads: NO_LEADER if none is known to.
func (a ClusterAnswer) LeaderMember() (*MemberInfo, error) {
	for _, m := range a.Members() {
		if m.IsLeader {
			return m, nil
		}
	}
	return nil, messages.Errorf(messages.Code_NO_LEADER, "%s knows no leader now", a.Node).At(a.Endpoint, a.RequestID).
		WithHint("try again in a moment; kvctl cluster health says what is missing")
}

// Info is the cluster as the node that answered knows it.
func (a ClusterAnswer) Info() *ClusterInfo {
	v := a.GetView()
	info := &ClusterInfo{
		ClusterID: hex.EncodeToString(v.GetClusterId()), CurrentTerm: v.GetTerm(), ConfigurationIndex: v.GetConfigurationIndex(), CommitIndex: v.GetCommit(),
		Members: a.Members(), Waiting: []WaitingInfo{}, Timestamp: a.At.UTC(), FaultBudget: BudgetText(a.Before),
	}
	if leader, err := a.LeaderMember(); err == nil {
		info.LeaderID = leader.ID
	}
	info.MemberCount = len(info.Members)
	counts := map[string]int{}
	for _, m := range info.Members {
		counts[m.Type]++
	}
	info.LearnerCount = counts[TypeLearner]
	info.VoterCount = counts[TypeVoter] + max(counts[TypeIncoming], counts[TypeOutgoing])
	info.Quorum = info.VoterCount/2 + 1
	info.Healthy = a.Health(nil).Healthy
	for _, w := range v.GetWaiting() {
		info.Waiting = append(info.Waiting, WaitingInfo{w.Name, w.Address, w.Version, a.At.Add(-time.Duration(w.SilentMs) * time.Millisecond).UTC(), w.Refused})
	}
	return info
}

// FindOperation is an operation by its id, in hex, or by the beginning of it that no other has;
// NOT_FOUND if there is none.
func (a ClusterAnswer) FindOperation(id string) (*ReplaceNodeStatus, error) {
	var found []*ReplaceNodeStatus
	for _, o := range a.Operations() {
		if strings.HasPrefix(o.ID, id) && id != "" {
			found = append(found, o)
		}
	}
	switch len(found) {
	case 0:
		return nil, messages.Errorf(messages.Code_NOT_FOUND, "there is no operation %q", id).At(a.Endpoint, a.RequestID).
			WithHint("kvctl ops ls lists them; those that ended long ago are forgotten")
	case 1:
		return found[0], nil
	}
	return nil, messages.Errorf(messages.Code_INVALID, "%d operations begin with %q", len(found), id).At(a.Endpoint, a.RequestID).
		WithHint("write more of it: kvctl ops ls")
}

// Operations are all that are remembered, in the order in which they began.
func (a ClusterAnswer) Operations() []*ReplaceNodeStatus {
	var all []*ReplaceNodeStatus
	for _, o := range a.GetView().GetOperations() {
		s := OperationStatus(o)
		for _, w := range a.View.Waits {
			if string(w.Id) == string(o.Id) && !s.Phase.Ended() {
				s.WaitingFor, s.Hint = w.Why, w.Hint
			}
		}
		all = append(all, s)
	}
	return all
}

// Pending is the oldest operation that has not ended; nil: there is none.
func (a ClusterAnswer) Pending() *ReplaceNodeStatus {
	for _, o := range a.Operations() {
		if !o.Phase.Ended() {
			return o
		}
	}
	return nil
}

// OperationStatus is a record in the words of programs.
func OperationStatus(o *messages.ClusterOperation) *ReplaceNodeStatus {
	s := &ReplaceNodeStatus{
		ID: hex.EncodeToString(o.Id), Kind: strings.ToLower(o.Kind.String()), OldNodeID: o.OldNode, NewNodeID: o.NewNode, NewAddress: o.NewAddress,
		StartedAt: time.UnixMilli(o.StartedAtMs).UTC(), StaysLearner: o.StayLearner, Aborting: o.Aborting,
	}
	s.Phase = map[messages.OperationPhase]ReplacePhase{
		messages.OperationPhase_CATCH_UP: ReplacePhaseCatchUp, messages.OperationPhase_PROMOTION: ReplacePhasePromote,
		messages.OperationPhase_REMOVE_OLD: ReplacePhaseRemoveOld, messages.OperationPhase_COMPLETE: ReplacePhaseComplete,
		messages.OperationPhase_FAILED: ReplacePhaseFailed,
	}[o.Phase]
	done := func(phase messages.OperationPhase) bool {
		return o.Phase == messages.OperationPhase_COMPLETE || o.Reached >= phase && o.Reached != messages.OperationPhase_FAILED
	}
	adds := o.Kind == messages.OperationKind_ADD || o.Kind == messages.OperationKind_REPLACE
	promotes := o.Kind == messages.OperationKind_PROMOTE || adds && !o.StayLearner
	s.LearnerAdded = adds && done(messages.OperationPhase_ADD_LEARNER)
	s.LearnerCaughtUp = adds && !o.StayLearner && done(messages.OperationPhase_CATCH_UP)
	s.NewNodePromoted = promotes && done(messages.OperationPhase_PROMOTION)
	s.OldNodeRemoved = (o.Kind == messages.OperationKind_REMOVE || o.Kind == messages.OperationKind_REPLACE) && done(messages.OperationPhase_REMOVE_OLD)
	if o.Phase == messages.OperationPhase_FAILED {
		code := o.Code
		if code == messages.Code_OK {
			code = messages.Code_INTERNAL
		}
		s.Error = messages.Errorf(code, "%s", o.Error)
	}
	return s
}

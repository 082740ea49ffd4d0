package client

import (
	"context"
	"crypto/rand"
	"time"

	"keyval/messages"
)

// ClusterAsker is what a ClusterAPI asks; a Client is one.
type ClusterAsker interface {
	// AskCluster sends a question or a change, and returns one node's answer to it, which
	// may hold more than the error.
	AskCluster(context.Context, *messages.ClusterRequest) (ClusterAnswer, error)
	// Newest is a linearizable read.
	Newest(context.Context) (uint64, error)
}

// AskCluster sends a question about the cluster to the node in use, or a change to the
// leader. A change that is asked for again, by the same operation id, is the same.
func (c *Client) AskCluster(ctx context.Context, m *messages.ClusterRequest) (ClusterAnswer, error) {
	d, err := c.call(ctx, &messages.Submit{Cluster: m})
	return ClusterAnswer{ClusterReply: d.GetCluster(), At: time.Now(), Endpoint: d.GetEndpoint(), RequestID: d.GetRequestId()}, err
}

// Cluster is the API of the cluster: its members, its health, and changes of it.
func (c *Client) Cluster() ClusterAPI { return ClusterAPI{c} }

// ClusterAPI asks about the cluster, and for changes of it. Questions are answered by any
// node, from memory. Changes go to the leader, and are done in several steps, which the
// cluster carries on whatever becomes of who asked.
//
// index and term name the configuration and the term that the caller saw
// (ClusterInfo.ConfigurationIndex, CurrentTerm); 0 stands for any. If they are older than
// those in force, nothing is changed, and the error is CONFLICT. A change that the rules
// forbid is UNSAFE or CONFLICT, and says what would make it possible.
type ClusterAPI struct{ ClusterAsker }

// Query is one node's answer about all of the cluster.
func (a ClusterAPI) Query(ctx context.Context) (ClusterAnswer, error) {
	return a.AskCluster(ctx, &messages.ClusterRequest{Kind: &messages.ClusterRequest_Query{Query: &messages.ClusterQuery{}}})
}

// GetClusterInfo is the cluster as the node in use knows it.
func (a ClusterAPI) GetClusterInfo(ctx context.Context) (*ClusterInfo, error) {
	return from(a, ctx, func(r ClusterAnswer) (*ClusterInfo, error) { return r.Info(), nil })
}

// ListMembers is all members, by RaftID.
func (a ClusterAPI) ListMembers(ctx context.Context) ([]*MemberInfo, error) {
	return from(a, ctx, func(r ClusterAnswer) ([]*MemberInfo, error) { return r.Members(), nil })
}

// GetMember is one member: NOT_FOUND if none is called so.
func (a ClusterAPI) GetMember(ctx context.Context, nodeID string) (*MemberInfo, error) {
	return from(a, ctx, func(r ClusterAnswer) (*MemberInfo, error) { return r.Member(nodeID) })
}

// GetLeader is the member that leads: NO_LEADER if the node in use knows of none.
func (a ClusterAPI) GetLeader(ctx context.Context) (*MemberInfo, error) {
	return from(a, ctx, ClusterAnswer.LeaderMember)
}

// GetClusterHealth asks a node what it knows of the members, and reads linearizably within
// the deadline of ctx: that the cluster answers is seen, not assumed. A node that follows a leader
// of just now is asked once more: it hears of the others within a moment.
func (a ClusterAPI) GetClusterHealth(ctx context.Context) (*ClusterHealth, error) {
	r, err := a.Query(ctx)
	for n := 0; n < wordPolls && err == nil && r.Before == nil && r.led() && pause(ctx, pollEvery) == nil; n++ {
		r, err = a.Query(ctx)
	}
	if err != nil {
		return nil, err
	}
	_, read := a.Newest(ctx)
	h := r.Health(read)
	h.QuorumAvailable = h.QuorumAvailable || read == nil // it was seen
	return h, nil
}

func (a ClusterAnswer) led() bool { _, leaderless := a.LeaderMember(); return leaderless == nil }

// GetNodeStatus is what the node in use knows of itself.
func (a ClusterAPI) GetNodeStatus(ctx context.Context) (*NodeStatus, error) {
	return from(a, ctx, func(r ClusterAnswer) (*NodeStatus, error) {
		s := &NodeStatus{NodeID: r.Node, CurrentTerm: r.GetView().GetTerm(), CommitIndex: r.GetView().GetCommit(), Timestamp: r.At.UTC(), State: stateUnknown}
		for i, m := range r.Members() {
			if m.IsLeader {
				s.LeaderID = m.ID
			}
			if m.IsSelf {
				s.Address, s.State, s.IsLeader, s.MemberType, s.LastApplied = m.Address, m.State, m.IsLeader, m.Type, r.View.Members[i].Applied
				s.RoomBytes, s.Lacks = m.RoomBytes, m.Lacks
			}
		}
		return s, nil
	})
}

// IsConfigChangeInProgress reports whether an operation that changes the members is under way.
func (a ClusterAPI) IsConfigChangeInProgress(ctx context.Context) (bool, error) {
	return from(a, ctx, func(r ClusterAnswer) (bool, error) { return r.Pending() != nil, nil })
}

// GetPendingConfigChange is the oldest operation that is under way; nil: there is none.
func (a ClusterAPI) GetPendingConfigChange(ctx context.Context) (*ConfigChange, error) {
	return from(a, ctx, func(r ClusterAnswer) (*ConfigChange, error) {
		o := r.Pending()
		if o == nil {
			return nil, nil
		}
		c := &ConfigChange{OperationID: o.ID, Type: o.Kind, NodeID: o.NewNodeID, Address: o.NewAddress, ProposedAt: o.StartedAt, Phase: o.Phase}
		if c.NodeID == "" {
			c.NodeID = o.OldNodeID
			if m, err := r.Member(c.NodeID); err == nil {
				c.Address = m.Address
			}
		}
		return c, nil
	})
}

// IsLearnerCaughtUp reports whether a learner could be promoted now. A voter is caught up.
func (a ClusterAPI) IsLearnerCaughtUp(ctx context.Context, nodeID string) (bool, error) {
	return from(a, ctx, func(r ClusterAnswer) (bool, error) {
		m, err := r.Member(nodeID)
		return err == nil && (m.LearnerStatus == nil || m.LearnerStatus.Ready), err
	})
}

// GetLearnerStatus is how far a learner is: INVALID for a member that is none.
func (a ClusterAPI) GetLearnerStatus(ctx context.Context, nodeID string) (*LearnerStatus, error) {
	return from(a, ctx, func(r ClusterAnswer) (*LearnerStatus, error) {
		m, err := r.Member(nodeID)
		if err == nil && m.LearnerStatus == nil {
			err = messages.Errorf(messages.Code_INVALID, "%s is no learner: it is a %s", nodeID, m.Type).At(r.Endpoint, r.RequestID).
				WithHint("GetMember says how a voter is")
		}
		if err != nil {
			return nil, err
		}
		return m.LearnerStatus, nil
	})
}

// AwaitCaughtUp waits until a learner can be promoted. NOT_FOUND and INVALID: as in
// GetLearnerStatus. When ctx ends first, the error is TIMED_OUT and says what it waits for.
func (a ClusterAPI) AwaitCaughtUp(ctx context.Context, nodeID string) error {
	for waitingFor := ""; ; {
		s, err := a.GetLearnerStatus(ctx, nodeID)
		switch {
		case err == nil && s.Ready:
			return nil
		case err == nil:
			waitingFor = s.WaitingFor
		case waitingFor == "" || ctx.Err() == nil:
			return err
		}
		if pause(ctx, pollEvery) != nil {
			return messages.Errorf(messages.Code_TIMED_OUT, "%s has not caught up yet: %s", nodeID, waitingFor).WithHint("look at it: kvctl cluster member %s", nodeID)
		}
	}
}

// AddLearner makes a node a member that does not vote, and returns when it is one. The node
// need not run yet.
func (a ClusterAPI) AddLearner(ctx context.Context, nodeID, address string, index, term uint64) error {
	return a.change(ctx, &messages.ClusterOperation{
		Kind: messages.OperationKind_ADD, NewNode: nodeID, NewAddress: address, StayLearner: true,
	}, index, term)
}

// PromoteLearner makes a learner a voter, and returns when it is one.
func (a ClusterAPI) PromoteLearner(ctx context.Context, nodeID string, index, term uint64) error {
	return a.change(ctx, &messages.ClusterOperation{Kind: messages.OperationKind_PROMOTE, NewNode: nodeID}, index, term)
}

// RemoveNode takes a member out of the cluster, and returns when it has left.
func (a ClusterAPI) RemoveNode(ctx context.Context, nodeID string, index, term uint64) error {
	return a.change(ctx, &messages.ClusterOperation{Kind: messages.OperationKind_REMOVE, OldNode: nodeID}, index, term)
}

// change begins an operation and waits for its end.
func (a ClusterAPI) change(ctx context.Context, o *messages.ClusterOperation, index, term uint64) error {
	begun, err := a.Begin(ctx, o, index, term)
	if err != nil {
		return err
	}
	_, err = a.Await(ctx, OperationStatus(begun.Operation).ID)
	return err
}

// ReplaceNode has a new node take the place of an old one, which may be dead. It returns
// when that is under way; GetReplaceNodeProgress and Await follow it.
func (a ClusterAPI) ReplaceNode(ctx context.Context, oldNodeID, newNodeID, newAddress string) (*ReplaceNodeStatus, error) {
	r, err := a.Begin(ctx, &messages.ClusterOperation{
		Kind: messages.OperationKind_REPLACE, OldNode: oldNodeID, NewNode: newNodeID, NewAddress: newAddress,
	}, 0, 0)
	if err != nil {
		return nil, err
	}
	return OperationStatus(r.Operation), nil
}

// GetReplaceNodeProgress is the last replacement by a node of this name: NOT_FOUND if there
// was none lately.
func (a ClusterAPI) GetReplaceNodeProgress(ctx context.Context, newNodeID string) (*ReplaceNodeStatus, error) {
	return from(a, ctx, func(r ClusterAnswer) (*ReplaceNodeStatus, error) {
		var last *ReplaceNodeStatus
		for _, o := range r.Operations() {
			if o.Kind == "replace" && o.NewNodeID == newNodeID {
				last = o
			}
		}
		if last == nil {
			return nil, messages.Errorf(messages.Code_NOT_FOUND, "no node is being replaced by %q", newNodeID).At(r.Endpoint, r.RequestID).
				WithHint("kvctl ops ls lists what is under way, and what ended lately")
		}
		return last, nil
	})
}

// TransferLeadership hands the lead to a voter, or with an empty name to the best one. It
// returns when that one leads.
func (a ClusterAPI) TransferLeadership(ctx context.Context, nodeID string, index, term uint64) error {
	before, err := a.Query(ctx)
	if err != nil {
		return err
	}
	old := before.GetLeader().GetRaftId()
	if _, err := a.AskCluster(ctx, &messages.ClusterRequest{Configuration: index, Term: term, Kind: &messages.ClusterRequest_Transfer{
		Transfer: &messages.TransferLeadership{To: nodeID},
	}}); err != nil {
		return err
	}
	for {
		r, err := a.Query(ctx)
		leader, leaderless := r.LeaderMember()
		switch {
		case err != nil && ctx.Err() == nil:
			return err
		case err == nil && leaderless == nil && (leader.ID == nodeID || nodeID == "" && leader.RaftID != old):
			return nil
		}
		if err := pause(ctx, pollEvery); err != nil {
			return messages.Errorf(messages.Code_TIMED_OUT, "the lead was not handed over in time").At(r.Endpoint, "").
				WithHint("look at it: kvctl cluster leader")
		}
	}
}

// UpdateAddress says where a member is reached from now on.
func (a ClusterAPI) UpdateAddress(ctx context.Context, nodeID, address string, index, term uint64) error {
	_, err := a.AskCluster(ctx, &messages.ClusterRequest{Configuration: index, Term: term, Kind: &messages.ClusterRequest_Address{
		Address: &messages.ChangeAddress{Name: nodeID, Address: address},
	}})
	return err
}

// Begin begins an operation. Its id is chosen here if it has none.
func (a ClusterAPI) Begin(ctx context.Context, o *messages.ClusterOperation, index, term uint64) (ClusterAnswer, error) {
	if len(o.Id) == 0 {
		id, err := NewOperationID()
		if err != nil {
			return ClusterAnswer{}, err
		}
		o.Id = id
	}
	r, err := a.AskCluster(ctx, BeginRequest(o, index, term))
	if err == nil && r.Operation == nil {
		r.ClusterReply.Operation = o
	}
	return r, err
}

// BeginRequest asks for an operation.
func BeginRequest(o *messages.ClusterOperation, index, term uint64) *messages.ClusterRequest {
	return &messages.ClusterRequest{Configuration: index, Term: term, Kind: &messages.ClusterRequest_Begin{Begin: &messages.BeginOperation{Operation: o}}}
}

// NewOperationID is 16 random bytes.
func NewOperationID() ([]byte, error) {
	id := make([]byte, messages.ClientIDSize)
	if _, err := rand.Read(id); err != nil {
		return nil, messages.Errorf(messages.Code_INTERNAL, "read randomness: %v", err)
	}
	return id, nil
}

// Abort gives an operation up, by its id in bytes. What was done of it is undone; it cannot
// be after the swap of a replacement.
func (a ClusterAPI) Abort(ctx context.Context, id []byte) (ClusterAnswer, error) {
	return a.AskCluster(ctx, &messages.ClusterRequest{Kind: &messages.ClusterRequest_Abort{Abort: &messages.AbortOperation{Id: id}}})
}

const pollEvery = 100 * time.Millisecond

// wordPolls is how often a node is asked again that has had no word from its leader: the first
// comes a tenth of a second after an election.
const wordPolls = 5

// Await waits for the end of an operation. One that failed is an error, with its code. When
// ctx ends first, the error is TIMED_OUT, and the operation goes on.
func (a ClusterAPI) Await(ctx context.Context, id string) (*ReplaceNodeStatus, error) {
	var last *ReplaceNodeStatus
	for asked := 0; ; asked++ {
		r, err := a.Query(ctx)
		if err == nil {
			var o *ReplaceNodeStatus
			if o, err = r.FindOperation(id); err == nil {
				last = o
			}
		}
		switch code := messages.CodeOf(err); {
		case ctx.Err() == nil && code == messages.Code_NOT_FOUND && asked < 50: // the node in use lags
		case ctx.Err() == nil && err != nil:
			return last, err
		case last != nil && last.Phase == ReplacePhaseFailed:
			return last, last.Error
		case last != nil && last.Phase == ReplacePhaseComplete:
			return last, nil
		}
		if pause(ctx, pollEvery) != nil {
			why := ""
			if last != nil && last.WaitingFor != "" {
				why = ": " + last.WaitingFor
			}
			return last, &unfinished{messages.Errorf(messages.Code_TIMED_OUT, "operation %s is still under way%s", id, why).
				WithHint("follow it: kvctl ops follow %s; or give it up: kvctl ops abort %s", id, id), context.Cause(ctx)}
		}
	}
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// from is what follows from one answer.
func from[T any](a ClusterAPI, ctx context.Context, take func(ClusterAnswer) (T, error)) (T, error) {
	r, err := a.Query(ctx)
	if err != nil {
		var none T
		return none, err
	}
	return take(r)
}

// ChangeHealing changes how the cluster heals itself: which nodes are spares, and whether the
// leader replaces a voter by one that it has not heard for long. It returns when that is so.
func (a ClusterAPI) ChangeHealing(ctx context.Context, m *messages.ChangeHealing) error {
	_, err := a.AskCluster(ctx, HealingRequest(m))
	return err
}

// NoteBackup tells the cluster how a backup job fares, or to forget it. It returns when that is
// known. NOT_FOUND: there is none to forget.
func (a ClusterAPI) NoteBackup(ctx context.Context, m *messages.NoteBackup) error {
	_, err := a.AskCluster(ctx, &messages.ClusterRequest{Kind: &messages.ClusterRequest_Backup{Backup: m}})
	return err
}

// HealingRequest: see ChangeHealing.
func HealingRequest(m *messages.ChangeHealing) *messages.ClusterRequest {
	return &messages.ClusterRequest{Kind: &messages.ClusterRequest_Healing{Healing: m}}
}

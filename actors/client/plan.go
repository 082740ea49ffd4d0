package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"keyval/membershipactor/rules"
	"keyval/messages"
)

// A plan is a change of the members that was weighed and not begun. Its id is all of it, so
// no node keeps plans: the operation, the index of the configuration that it was weighed upon,
// the cluster, and a checksum. Carried out twice it is one operation, since the operation's
// id follows from the plan's.

// ChangePlan says what a change would do, step by step.
type ChangePlan struct {
	ID                 string // for CarryOut
	Change             string // "replace node2 by node4"
	ConfigurationIndex uint64 // the members that it was weighed upon
	Before             *messages.FaultBudget
	Steps              []PlanStep
	Warnings           []string
}

// PlanStep is one phase of an operation, and who may be lost while it lasts.
type PlanStep struct {
	Phase  ReplacePhase
	Text   string
	Budget *messages.FaultBudget
}

const (
	planPrefix  = "plan:" // no name has a colon
	planCluster = 4       // bytes of the cluster's id in a plan's
	planNonce   = 4       // random bytes, so that a plan that came to nothing can be made again
	planSum     = 4       // bytes of CRC-32
)

var planText = base32.StdEncoding.WithPadding(base32.NoPadding)

// IsPlan reports whether a word looks like the id of a plan.
func IsPlan(word string) bool { return strings.HasPrefix(word, planPrefix) }

// planHead is the beginning of a cluster's id.
func planHead(cluster []byte) []byte {
	head := make([]byte, planCluster)
	copy(head, cluster)
	return head
}

// planID is the id of a plan: prefix, and in base32 the operation, the configuration, the
// cluster and the checksum.
func planID(cluster []byte, configuration uint64, nonce []byte, o *messages.ClusterOperation) (string, error) {
	asked := &messages.ClusterOperation{Kind: o.Kind, OldNode: o.OldNode, NewNode: o.NewNode, NewAddress: o.NewAddress, StayLearner: o.StayLearner}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(BeginRequest(asked, configuration, 0))
	if err != nil {
		return "", messages.Errorf(messages.Code_INVALID, "make a plan: %v", err)
	}
	data = slices.Concat(planHead(cluster), nonce, data)
	data = binary.BigEndian.AppendUint32(data, crc32.ChecksumIEEE(data))
	return planPrefix + strings.ToLower(planText.EncodeToString(data)), nil
}

// ParsePlan reads the id of a plan: the request that carries it out, and the beginning of the
// id of the cluster that it is for. INVALID: it is none, or not whole.
func ParsePlan(id string) (m *messages.ClusterRequest, cluster []byte, err error) {
	bad := messages.Errorf(messages.Code_INVALID, "%q is no plan, or not all of one", id).WithHint("copy all of its id, or make another: --plan")
	data, decodeErr := planText.DecodeString(strings.ToUpper(strings.TrimPrefix(id, planPrefix)))
	if !strings.HasPrefix(id, planPrefix) || decodeErr != nil || len(data) < planCluster+planNonce+planSum {
		return nil, nil, bad
	}
	body := data[:len(data)-planSum]
	m = &messages.ClusterRequest{}
	if crc32.ChecksumIEEE(body) != binary.BigEndian.Uint32(data[len(body):]) || proto.Unmarshal(body[planCluster+planNonce:], m) != nil ||
		m.GetBegin().GetOperation() == nil || m.Configuration == 0 {
		return nil, nil, bad
	}
	sum := sha256.Sum256(body)
	m.GetBegin().Operation.Id = sum[:messages.OperationIDSize]
	return m, body[:planCluster], nil
}

// Plan weighs an operation without beginning it. An error says why it may not begin, and the
// answer, who may be lost.
func (a ClusterAPI) Plan(ctx context.Context, o *messages.ClusterOperation) (*ChangePlan, ClusterAnswer, error) {
	seen, err := a.Query(ctx)
	if err != nil {
		return nil, seen, err
	}
	nonce := make([]byte, planNonce)
	if _, err := rand.Read(nonce); err != nil {
		return nil, seen, messages.Errorf(messages.Code_INTERNAL, "read randomness: %v", err)
	}
	at := seen.GetView().GetConfigurationIndex()
	asked := proto.Clone(o).(*messages.ClusterOperation)
	asked.Id = make([]byte, messages.OperationIDSize) // of no operation
	m := BeginRequest(asked, at, 0)
	m.DryRun = true
	r, err := a.AskCluster(ctx, m)
	if err != nil {
		return nil, r, err
	}
	if asked.NewAddress == "" && asked.Kind != messages.OperationKind_PROMOTE && asked.Kind != messages.OperationKind_REMOVE { // a node that waits to be added said where it is
		asked.NewAddress = r.Operation.GetNewAddress()
	}
	id, err := planID(seen.GetView().GetClusterId(), at, nonce, asked)
	if err != nil {
		return nil, r, err
	}
	return &ChangePlan{
		ID: id, Change: rules.Title(asked), ConfigurationIndex: at, Before: r.Before, Warnings: r.Warnings, Steps: planSteps(asked, seen, r.ClusterReply),
	}, r, nil
}

// CheckPlan returns the request that carries a plan out. CONFLICT: it was made for another
// cluster than that of the node in use, or for members that are not those any more. The last
// word has the leader, when it is asked.
func (a ClusterAPI) CheckPlan(ctx context.Context, id string) (*messages.ClusterRequest, error) {
	m, cluster, err := ParsePlan(id)
	if err != nil {
		return nil, err
	}
	seen, err := a.Query(ctx)
	if err != nil {
		return nil, err
	}
	begun := slices.ContainsFunc(seen.GetView().GetOperations(), func(o *messages.ClusterOperation) bool { return bytes.Equal(o.Id, m.GetBegin().Operation.Id) })
	switch now := seen.GetView().GetConfigurationIndex(); {
	case !bytes.Equal(planHead(seen.GetView().GetClusterId()), cluster):
		return nil, messages.Errorf(messages.Code_CONFLICT, "the plan is for another cluster, %x...", cluster).At(seen.Endpoint, seen.RequestID).
			WithHint("name its nodes with --endpoints, or make a plan for this one")
	case now > m.Configuration && !begun:
		return nil, messages.Errorf(messages.Code_CONFLICT, "the plan was made for configuration %d, and it is %d now: the members have changed since", m.Configuration, now).
			At(seen.Endpoint, seen.RequestID).WithHint("look at them, and make another plan: --plan")
	}
	return m, nil
}

// CarryOut begins what a plan says. CONFLICT: the members are not those any more that it was
// made for; nothing has changed. What was begun already is not begun again.
func (a ClusterAPI) CarryOut(ctx context.Context, id string) (ClusterAnswer, error) {
	m, err := a.CheckPlan(ctx, id)
	if err != nil {
		return ClusterAnswer{}, err
	}
	return a.AskCluster(ctx, m)
}

// planSteps are the phases that an operation goes through, with the budgets that the leader
// told.
func planSteps(o *messages.ClusterOperation, seen ClusterAnswer, r *messages.ClusterReply) []PlanStep {
	leaves, learner := "", false
	if old, err := seen.Member(o.OldNode); err == nil {
		learner = old.Type == TypeLearner
		leaves = o.OldNode + " leaves the cluster"
		if old.IsLeader {
			leaves = o.OldNode + " hands the lead over, and leaves the cluster"
		}
	}
	join := []PlanStep{
		{ReplacePhaseAddLearner, fmt.Sprintf("%s at %s becomes a learner, without a vote", o.NewNode, o.NewAddress), r.Before},
		{ReplacePhaseCatchUp, o.NewNode + " gets the state and the log", r.Before},
	}
	promoted := PlanStep{ReplacePhasePromote, o.NewNode + " becomes a voter", r.After}
	removed := PlanStep{ReplacePhaseRemoveOld, leaves, r.After}
	switch {
	case o.Kind == messages.OperationKind_ADD && o.StayLearner:
		return join[:1]
	case o.Kind == messages.OperationKind_ADD:
		return append(join, promoted)
	case o.Kind == messages.OperationKind_PROMOTE:
		return []PlanStep{promoted}
	case o.Kind == messages.OperationKind_REMOVE:
		return []PlanStep{removed}
	case learner:
		return append(join, removed)
	}
	swap := PlanStep{ReplacePhasePromote, fmt.Sprintf("%s takes over the vote of %s: a majority with and one without %s is needed", o.NewNode, o.OldNode, o.OldNode), r.Meanwhile}
	return append(join, swap, removed)
}

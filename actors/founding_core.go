package actors

import (
	"bytes"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/mutant"
)

// foundingAskTicks is how often a founder asks those it still waits for.
const foundingAskTicks = 4

// founding is how the first nodes agree that they are one cluster. The danger is a
// founder whose directory was emptied: if it could found again, what it acknowledged
// would be lost. So every founder makes a random incarnation durable before it sends
// anything, and a cluster is made of incarnations: a founder that knows those of all
// computes the cluster id from them. One that is initialised answers with what was
// agreed. An empty directory has another incarnation, and is refused.
type founding struct {
	self      messages.RaftID
	token     string
	founders  []*messages.Founder // those of the identity, with the incarnations heard so far
	clusterID []byte              // nil until it is known; then it never changes
	ticks     uint32              // since the others were asked
}

type (
	// tellFounder sends this node's state to another.
	tellFounder struct {
		To    messages.RaftID
		State *messages.FounderState
	}
	// founded: all founders agree.
	founded struct{ *messages.Founded }
	// cannotFound ends the process: the founders do not fit together.
	cannotFound struct{ *messages.Error }
)

// newFounding starts from an identity. clusterID is nil unless the node is initialised.
func newFounding(self messages.RaftID, identity *messages.Identity, clusterID []byte) *founding {
	f := &founding{self: self, token: identity.Token, clusterID: clusterID}
	for _, founder := range identity.Founders {
		founder = proto.Clone(founder).(*messages.Founder)
		if founder.RaftId == self {
			founder.Incarnation = identity.Incarnation
		}
		f.founders = append(f.founders, founder)
	}
	return f
}

// waitingFor lists the founders whose incarnation is not known yet.
func (f *founding) waitingFor() string {
	var names []string
	for _, founder := range f.founders {
		if len(founder.Incarnation) == 0 {
			names = append(names, fmt.Sprintf("%s (%s)", founder.Name, founder.Address))
		}
	}
	return strings.Join(names, ", ")
}

// onTick asks every other founder for its state, also one whose incarnation is known:
// it may have been initialised since. A cluster of one is complete without asking.
func (f *founding) onTick(elapsed uint32) []any {
	if f.clusterID != nil {
		return nil
	}
	if done := f.complete(); done != nil {
		return done
	}
	f.ticks += elapsed
	if f.ticks < foundingAskTicks {
		return nil
	}
	f.ticks = 0
	var out []any
	for _, founder := range f.founders {
		if founder.RaftId != f.self {
			out = append(out, tellFounder{founder.RaftId, f.state(false)})
		}
	}
	return out
}

// onState handles the state of another founder. The link has verified who sent it.
func (f *founding) onState(from messages.RaftID, m *messages.FounderState) []any {
	if f.clusterID != nil {
		if m.Answer {
			return nil
		}
		return []any{tellFounder{from, f.state(true)}}
	}
	if err := f.compare(from, m); err != nil {
		return []any{cannotFound{err}}
	}
	if len(m.ClusterId) > 0 {
		return f.adopt(from, m)
	}
	f.learn(from, m)
	var out []any
	if !m.Answer {
		out = append(out, tellFounder{from, f.state(true)})
	}
	return append(out, f.complete()...)
}

func (f *founding) state(isAnswer bool) *messages.FounderState {
	s := &messages.FounderState{Answer: isAnswer, RaftId: f.self, Token: f.token, ClusterId: f.clusterID}
	for _, founder := range f.founders {
		s.Founders = append(s.Founders, proto.Clone(founder).(*messages.Founder))
	}
	return s
}

// compare returns an error if the other founder was started with another token or with
// other founders.
func (f *founding) compare(from messages.RaftID, m *messages.FounderState) *messages.Error {
	if m.Token != f.token {
		return messages.Errorf(messages.Code_CONFLICT, "%s was started with another --cluster-token", f.name(from)).
			WithHint("start all founders with the same --cluster-token and --initial-cluster")
	}
	ours, theirs := foundersText(f.founders), foundersText(m.Founders)
	if ours != theirs {
		return messages.Errorf(messages.Code_CONFLICT, "%s lists other founders: %s; this node lists %s", f.name(from), theirs, ours).
			WithHint("start all founders with the same --initial-cluster, each on an empty directory")
	}
	return nil
}

func foundersText(founders []*messages.Founder) string {
	var parts []string
	for _, founder := range founders {
		parts = append(parts, founder.Name+"="+founder.Address)
	}
	return strings.Join(parts, ",")
}

func (f *founding) name(id messages.RaftID) string {
	for _, founder := range f.founders {
		if founder.RaftId == id {
			return founder.Name
		}
	}
	return fmt.Sprintf("replica %d", id)
}

func (f *founding) learn(from messages.RaftID, m *messages.FounderState) {
	for _, theirs := range m.Founders {
		for _, ours := range f.founders {
			if theirs.RaftId == from && ours.RaftId == from && len(theirs.Incarnation) == messages.IncarnationSize {
				ours.Incarnation = theirs.Incarnation
			}
		}
	}
}

// adopt joins the cluster of a founder that is initialised already. If that cluster
// knows this node by another incarnation, this directory is not the one that it had.
func (f *founding) adopt(from messages.RaftID, m *messages.FounderState) []any {
	for _, theirs := range m.Founders {
		for _, ours := range f.founders {
			if theirs.RaftId == f.self && ours.RaftId == f.self && !bytes.Equal(theirs.Incarnation, ours.Incarnation) && !mutant.WipedAdopted {
				return []any{cannotFound{messages.Errorf(messages.Code_CONFLICT,
					"cluster %x knows %s with other data: this directory is empty, but %s is a member already", m.ClusterId, ours.Name, ours.Name).
					WithHint("start it on its old data directory; if that is lost, leave the node off: the others serve on without it")}}
			}
		}
	}
	if !bytes.Equal(messages.ClusterID(m.Token, m.Founders), m.ClusterId) {
		return []any{cannotFound{messages.Errorf(messages.Code_CONFLICT, "%s is initialised as cluster %x, which its founders do not make", f.name(from), m.ClusterId)}}
	}
	f.founders = m.Founders
	return f.complete()
}

func (f *founding) complete() []any {
	for _, founder := range f.founders {
		if len(founder.Incarnation) == 0 {
			return nil
		}
	}
	f.clusterID = messages.ClusterID(f.token, f.founders)
	return []any{founded{&messages.Founded{ClusterId: f.clusterID, Founders: f.state(true).Founders}}}
}

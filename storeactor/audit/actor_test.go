package audit

import (
	"errors"
	"strings"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/actortest"
	"keyval/storeactor/disk"
)

// condemnable is a Disk that can be condemned, and fail to.
type condemnable struct {
	disk.Disk
	err     error
	reasons chan string
	unread  error // of Lineage
}

func (d *condemnable) Condemn(reason string) error {
	d.reasons <- reason
	return d.err
}

func (d *condemnable) Lineage() (*messages.Lineage, error) {
	return &messages.Lineage{}, d.unread
}

// abroad is the way to other nodes: what goes there is what the test sees.
type abroad chan proto.Message

func (a abroad) SendUserMessage(_ *actor.PID, message any) {
	_, body, _ := actor.UnwrapEnvelope(message)
	a <- body.(proto.Message)
}
func (a abroad) SendSystemMessage(*actor.PID, any) {}
func (a abroad) Stop(*actor.PID)                   {}

// The conversations of an audit, and its end, which the next start must find on the
// disk; if it cannot be left there, people are told not to start again.
func TestAuditActor(t *testing.T) {
	for _, row := range []struct {
		name  string
		fails error
		says  string
	}{
		{"recorded", nil, "this node holds other rows of all keys at revision 7 than n2 and n3: its disk altered or lost what was written"},
		{"not recorded", errors.New("no space left"), "cannot be recorded in its directory: no space left"},
	} {
		s := actortest.NewStage(t)
		s.System.ProcessRegistry.Address = messages.NodeAddress(1)
		out := make(abroad, 100)
		s.System.ProcessRegistry.RegisterAddressResolver(func(*actor.PID) (actor.Process, bool) { return out, true })
		peer := func(id messages.RaftID) *actor.PID {
			return actor.NewPID(messages.NodeAddress(id), messages.ActorAudit)
		}
		machine, membership, ticker := s.Probe(messages.ActorMachine), s.Probe(messages.ActorMembership), s.Probe(messages.ActorTicker)
		disk, meter := &condemnable{err: row.fails, reasons: make(chan string, 1)}, prometheus.NewRegistry()
		audit := s.Spawn(messages.ActorAudit, New(Config{
			Self: 1, Machine: machine.PID, Membership: membership.PID, Peer: peer, Disk: disk, Meter: meter, Fatal: s.OnFatal, Ticks: 2,
		}))
		from := func(id messages.RaftID, m proto.Message) { s.System.Root.RequestWithCustomSender(audit, m, peer(id)) }
		own := func(hash string) {
			read := actortest.Take[*messages.ReadAt](machine).Reads[0]
			if read.Session != messages.ActorAudit || read.Read.Consistency != messages.Consistency_STALE {
				t.Fatalf("%s: asked the machine %v", row.name, read)
			}
			s.System.Root.Send(audit, &messages.ReadReply{Request: read.Read.Request, Revision: 7, Digest: &messages.RangeDigest{Hash: []byte(hash), Rows: 3}})
		}
		actortest.Take[*messages.Introduce](membership)
		s.System.Root.Send(audit, &messages.MembersChanged{Members: []*messages.Member{{RaftId: 1, Name: "n1"}, {RaftId: 2, Name: "n2"}, {RaftId: 3, Name: "n3"}}})
		s.System.Root.Send(audit, &messages.LeaderChanged{Leader: 2})

		from(2, &messages.AuditAsk{Round: 5, Revision: 7, Limit: 4})
		own("altered")
		if a := (<-out).(*messages.AuditAnswer); a.Round != 5 || a.Code != messages.Code_OK || string(a.Digest.Hash) != "altered" {
			t.Fatalf("%s: answered %v", row.name, a)
		}
		s.System.Root.Send(audit, &messages.AuditAsk{Round: 5}) // of nobody
		from(2, &messages.AuditVerdict{Revision: 7})
		s.System.Root.RequestWithCustomSender(audit, &messages.Tick{Elapsed: 1}, ticker.PID)
		actortest.Take[*messages.Ticked](ticker)
		own("altered")
		for id := messages.RaftID(2); id <= 3; id++ {
			from(id, &messages.AuditAnswer{Round: (<-out).(*messages.AuditAsk).Round, Digest: &messages.RangeDigest{Hash: []byte("written"), Rows: 3}})
		}
		if reason := <-disk.reasons; !strings.Contains(reason, "at revision 7 than n2 and n3") {
			t.Errorf("%s: condemned for %s", row.name, reason)
		}
		err := <-s.Fatal
		var e *messages.Error
		if !errors.As(err, &e) || e.Code != messages.Code_DAMAGED || !strings.Contains(e.Message, row.says) || e.Hint == "" {
			t.Errorf("%s: ended with %v", row.name, err)
		}
		if n := actortest.Counted(t, meter, "keyval_audit_questions_total"); n != 2 {
			t.Errorf("%s: %d questions are counted, two members were asked", row.name, n)
		}
		s.Stop(audit)
	}
}

// A node that cannot read from whom its state comes is no witness: it ends, and says nothing.
func TestWithoutALineageNothingIsSaid(t *testing.T) {
	s := actortest.NewStage(t)
	s.System.ProcessRegistry.Address = messages.NodeAddress(1)
	out := make(abroad, 100)
	s.System.ProcessRegistry.RegisterAddressResolver(func(*actor.PID) (actor.Process, bool) { return out, true })
	peer := func(id messages.RaftID) *actor.PID {
		return actor.NewPID(messages.NodeAddress(id), messages.ActorAudit)
	}
	machine, membership := s.Probe(messages.ActorMachine), s.Probe(messages.ActorMembership)
	unread := errors.New("input/output error")
	audit := s.Spawn(messages.ActorAudit, New(Config{
		Self: 1, Machine: machine.PID, Membership: membership.PID, Peer: peer, Disk: &condemnable{unread: unread}, Fatal: s.OnFatal,
	}))
	s.System.Root.RequestWithCustomSender(audit, &messages.AuditAsk{Round: 5, Revision: 7, Limit: 4}, peer(2))
	read := actortest.Take[*messages.ReadAt](machine).Reads[0]
	s.System.Root.Send(audit, &messages.ReadReply{Request: read.Read.Request, Revision: 7, Digest: &messages.RangeDigest{Hash: []byte("h"), Rows: 3}})
	if err := <-s.Fatal; !errors.Is(err, unread) {
		t.Errorf("it ended with %v", err)
	}
	s.Stop(audit)
	if len(out) > 0 {
		t.Errorf("it said %s", messages.Line(<-out))
	}
}

package membershipactor

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"keyval/membershipactor/saga"
	"keyval/messages"
)

func invitationID(n byte) []byte { return bytes.Repeat([]byte{n}, messages.InvitationIDSize) }

// inviting asks for an invitation of n4.
func inviting(request uint64, id byte) *messages.ClusterRequest {
	proof := sha256.Sum256([]byte("proof"))
	return &messages.ClusterRequest{Request: request, Principal: "root", Kind: &messages.ClusterRequest_Invitation{Invitation: &messages.ChangeInvitation{
		Kind: &messages.ChangeInvitation_Add{Add: &messages.NewInvitation{Id: invitationID(id), Node: "n4", TtlMs: 5000, Proof: proof[:], Sealed: []byte("sealed")}}}}}
}

func uninviting(request uint64, id byte) *messages.ClusterRequest {
	return &messages.ClusterRequest{Request: request, Kind: &messages.ClusterRequest_Invitation{Invitation: &messages.ChangeInvitation{
		Kind: &messages.ChangeInvitation_Remove{Remove: invitationID(id)}}}}
}

func redeeming(request uint64, taker byte) *messages.InvitationAsk {
	return &messages.InvitationAsk{Request: request, Id: invitationID(1), Proof: []byte("proof"), Taker: invitationID(taker), Node: "n4"}
}

// redeem has one of several clients ask with a token.
func (s *stand) redeem(client byte, m *messages.InvitationAsk) {
	s.c.onInvitationAsk(s.k, asker{fmt.Sprintf("client/%d", client), "a"}, m)
	s.gather()
}

func TestInvitationsAreMadeAndRemoved(t *testing.T) {
	s := newStand(t)
	s.ask(inviting(1, 1))
	s.ask(inviting(2, 2)) // both are version 1
	s.ask(inviting(1, 1)) // asked again
	if len(s.log) != 2 {
		t.Fatalf("%d are proposed", len(s.log))
	}
	s.apply()
	s.tick(1)
	s.apply()
	s.tick(1)
	s.expect("OK", "OK", "OK")
	if is := s.k.Invitations; len(is.All) != 2 || is.All[0].By != "root" || is.All[0].Request == "" || is.All[0].ExpiresMs != s.k.NowMS+5000 {
		t.Errorf("%v", is)
	}
	if told := s.replies[0].Invitations; len(told) != 1 || told[0].ExpiresMs == 0 || told[0].Proof != nil || len(told[0].Sealed) != 1 {
		t.Errorf("he who asked is told %v", told)
	}
	for _, m := range []*messages.ClusterRequest{uninviting(4, 2), uninviting(5, 9)} {
		s.ask(m)
		s.apply()
		s.tick(1)
	}
	s.ask(inviting(6, 1)) // by a leader that does not know that it was asked for
	dry := inviting(7, 7)
	dry.DryRun = true
	s.ask(dry)
	s.ask(&messages.ClusterRequest{Request: 8, Kind: inviting(8, 8).Kind, Configuration: 99})
	s.expect("OK", "OK", "OK", "OK", "BUSY")
	if len(s.log) != 0 || len(s.k.Invitations.All) != 1 {
		t.Errorf("%d are proposed, %v", len(s.log), s.k.Invitations)
	}
	s.lead(2)
	s.ask(inviting(9, 9))
	s.expect("REDIRECT")
}

// TestKeysAreGivenOnce: to one taker, who may ask again, also another leader.
func TestKeysAreGivenOnce(t *testing.T) {
	made := func(t *testing.T) *stand {
		s := newStand(t)
		s.ask(inviting(1, 1))
		s.apply()
		s.tick(1)
		s.expect("OK")
		return s
	}
	done := redeeming(3, 7)
	done.Done = true
	wrong := redeeming(4, 7)
	wrong.Proof = []byte("prove")
	for name, c := range map[string]struct {
		run  func(s *stand)
		want []string
	}{
		"one": {func(s *stand) {
			s.redeem(1, redeeming(1, 7))
			s.apply()
			s.tick(1)
			s.redeem(1, redeeming(2, 7))
			s.redeem(1, done)
			s.apply()
			s.tick(1)
			s.redeem(1, redeeming(5, 7))
		}, []string{"OK sealed", "OK sealed", "OK", "CONFLICT the token was used already"}},
		"the same ask again": {func(s *stand) {
			s.redeem(1, redeeming(1, 7))
			s.redeem(1, redeeming(1, 7))
			s.apply()
			s.tick(1)
		}, []string{"OK sealed", "OK sealed"}},
		"the same number, without the token": {func(s *stand) {
			s.redeem(1, redeeming(1, 7))
			guess := redeeming(1, 7)
			guess.Proof = []byte("prove")
			s.redeem(1, guess)
			s.apply()
			s.tick(1)
		}, []string{"NOT_FOUND", "OK sealed"}},
		"two at a time": {func(s *stand) {
			s.redeem(1, redeeming(1, 7))
			s.redeem(2, redeeming(1, 8))
			s.apply()
			s.tick(1)
		}, []string{"OK sealed", "CONFLICT the token was used already"}},
		"proposed twice": {func(s *stand) {
			s.redeem(1, redeeming(1, 7))
			s.tick(requestTicks / 2)
			if len(s.log) < 2 {
				s.t.Error("what got lost on its way to the log is not proposed again")
			}
			s.apply()
			s.tick(1)
			s.redeem(2, redeeming(1, 8))
		}, []string{"OK sealed", "CONFLICT the token was used already"}},
		"removed before it was taken": {func(s *stand) {
			s.redeem(1, redeeming(1, 7))
			taking := s.log
			s.log = nil
			s.ask(uninviting(2, 1))
			s.log = append(s.log, taking...)
			s.apply()
			s.tick(1)
		}, []string{"NOT_FOUND this cluster knows no such token", "OK"}},
		"another leads before it is in the log": {func(s *stand) {
			s.redeem(1, redeeming(1, 7))
			late := s.log
			s.log = nil
			s.lead(2)
			s.tick(1) // this one leads no more
			s.c, s.k.Self = changes{self: 2}, 2
			s.k.Replication.Settled = false
			s.redeem(1, redeeming(2, 7))
			s.k.Replication.Settled = true
			s.redeem(1, redeeming(3, 7))
			s.log = append(s.log, late...) // both come to be
			s.apply()
			s.tick(1)
			s.redeem(2, redeeming(4, 8))
		}, []string{"REDIRECT node2 leads", "BUSY this node has just begun", "OK sealed", "CONFLICT the token was used"}},
		"nobody leads":               {func(s *stand) { s.lead(0); s.redeem(1, redeeming(1, 7)) }, []string{"NO_LEADER"}},
		"of a follower":              {func(s *stand) { s.lead(2); s.redeem(1, redeeming(1, 7)); s.redeem(1, wrong) }, []string{"REDIRECT node2 leads", "NOT_FOUND"}},
		"nothing comes into the log": {func(s *stand) { s.redeem(1, redeeming(1, 7)); s.tick(requestTicks) }, []string{"OUTCOME_UNKNOWN"}},
		"strangers do not wait": {func(s *stand) {
			for i := range byte(2) {
				s.redeem(i, wrong)
			}
			if len(s.c.waiting) != 0 {
				s.t.Errorf("%d wait", len(s.c.waiting))
			}
		}, []string{"NOT_FOUND", "NOT_FOUND"}},
		"not of a leader that nobody confirms": {func(s *stand) {
			s.redeem(1, redeeming(1, 7))
			s.apply()
			s.tick(1) // here nobody has been told yet that it is his
			s.alone = true
			s.redeem(1, redeeming(2, 7))
			s.redeem(1, done)
			s.redeem(1, wrong)
			s.redeem(2, redeeming(5, 8))
			s.ask(uninviting(6, 9))
			s.ask(inviting(7, 1))
			if s.lead(2); len(s.c.waiting) != 6 {
				s.t.Errorf("%d wait", len(s.c.waiting))
			}
			s.tick(1)
		}, []string{"OK sealed", "REDIRECT", "REDIRECT", "NOT_FOUND", "REDIRECT", "REDIRECT", "REDIRECT"}},
		"strangers wait a few at a time": {func(s *stand) {
			s.alone = true
			for i := range byte(strangersMax + 1) {
				s.redeem(i, wrong)
			}
			if len(s.c.waiting) != strangersMax {
				s.t.Errorf("%d wait", len(s.c.waiting))
			}
		}, []string{"NOT_FOUND"}},
		"what is refused is asked again": {func(s *stand) {
			s.alone = true
			s.redeem(1, wrong)
			s.alone = false
			s.tick(saga.RetryTicks)
		}, []string{"NOT_FOUND"}},
		"expired": {func(s *stand) { s.k.NowMS += 5000; s.redeem(1, redeeming(1, 7)) }, []string{"NOT_ALLOWED the token expired"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := made(t)
			c.run(s)
			s.expect(c.want...)
		})
	}
}

// TestInvitationAnswers: only a leader's word is the last, and who leads those alone hear who have
// the token.
func TestInvitationAnswers(t *testing.T) {
	s := newStand(t)
	s.ask(inviting(1, 1))
	s.apply()
	s.tick(1)
	ask := func(m *messages.InvitationAsk) *messages.InvitationAnswer {
		s.c.onInvitationAsk(s.k, asker{"client/1", "a"}, m)
		for {
			acts := s.c.take()
			if len(acts) == 0 {
				return nil
			}
			for _, a := range acts {
				switch m := a.message.(type) {
				case *messages.InvitationAnswer:
					return m
				case *messages.ReadIndex:
					s.c.onRead(&messages.ReadReply{Request: m.Read.Request})
					s.c.onTick(s.k, 0)
				}
			}
		}
	}
	wrong := redeeming(2, 7)
	wrong.Proof = nil
	if a := ask(wrong); !a.Final || a.Leader != nil {
		t.Errorf("%v", a)
	}
	s.lead(2)
	if a := ask(wrong); a.Final || a.Leader != nil || a.Code != messages.Code_NOT_FOUND {
		t.Errorf("%v", a)
	}
	if a := ask(redeeming(3, 7)); a.Final || a.Leader.GetAddress() != "h2:7000" {
		t.Errorf("%v", a)
	}
}

// TestInvitationNews: who made, took and removed one stands in every member's log.
func TestInvitationNews(t *testing.T) {
	open := &messages.Invitation{Id: invitationID(1), Node: "n4", By: "root", Request: "12345678-9", ExpiresMs: 10, Sealed: []byte("s")}
	taken := proto.Clone(open).(*messages.Invitation)
	taken.Taker, taken.TakenFrom = make([]byte, 32), "10.0.0.9"
	state := func(version uint64, all ...*messages.Invitation) *messages.MembersChanged {
		return &messages.MembersChanged{Invitations: &messages.Invitations{Version: version, All: all}}
	}
	for want, c := range map[string][2]*messages.MembersChanged{
		"[{a node is invited [invitation 01010101010101010101010101010101 member n4 expires 1970-01-01T00:00:00Z by root request 12345678-9]}]": {{}, state(1, open)},
		"[{the keys of an invited node are given away [invitation 01010101010101010101010101010101 member n4 address 10.0.0.9]}]":               {state(1, open), state(2, taken)},
		"[{an invitation is removed [invitation 01010101010101010101010101010101 member n4 used true]}]":                                        {state(2, taken), state(3)},
		"[]": {state(2, taken), state(2, taken)},
	} {
		if got := fmt.Sprint(newsOf(View{}.WithMembers(c[0]), View{}.WithMembers(c[1]))); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

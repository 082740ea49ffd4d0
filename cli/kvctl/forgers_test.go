package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// forgery is what somebody says who is not who he says, well-formed in all.
type forgery struct {
	name string
	as   lawful // in whose name
	lane messages.Lane
	sent *raftpb.Message
}

// forgeries are made of what anybody is told of a node, its leader and its log.
func (s *siege) forgeries(status *messages.StatusReply) (list []forgery) {
	peer := func(id uint64) lawful {
		for _, p := range s.peers {
			if p.id == id {
				return p
			}
		}
		return lawful{id: id, incarnation: noise(random(id), messages.IncarnationSize)}
	}
	leader := peer(status.Leader.RaftId)
	follower := s.peers[0]
	if follower.id == leader.id {
		follower = s.peers[1]
	}
	last, far := status.LastIndex, status.LastIndex+1_000_000
	row := packed(&messages.Commands{Level: 1, LogTimeMs: 1, Proposals: []*messages.Proposal{{Command: packed(&messages.Command{Session: make([]byte, messages.ClientIDSize), Seq: 1, Open: &messages.OpenSession{TtlMs: 60_000, BeforeMs: 1 << 40},
		Operations: []*messages.Operation{{Kind: &messages.Operation_Put{Put: &messages.Put{Key: []byte(hijacked), Value: []byte("x")}}}}})}}})
	for _, term := range []uint64{status.Term, status.Term + 1, status.Term + 7} {
		add := func(as lawful, kind raftpb.MessageType, change func(*raftpb.Message)) {
			lane := messages.Lane_CONTROL
			m := &raftpb.Message{Type: kind.Enum(), From: &as.id, To: &s.node, Term: &term, Index: &last, LogTerm: &status.Term}
			if change(m); kind == raftpb.MsgApp {
				lane = messages.Lane_APPEND
			}
			list = append(list, forgery{fmt.Sprintf("%v of term %d as replica %d", kind, term, as.id), as, lane, m})
		}
		none := func(*raftpb.Message) {}
		forced := func(m *raftpb.Message) { m.Context = []byte("CampaignTransfer") }
		counts := func(m *raftpb.Message) { m.Commit, m.Index, m.LogTerm = &far, nil, nil }
		appends := func(m *raftpb.Message) {
			m.Commit, m.Entries = proto.Uint64(last+2), []*raftpb.Entry{{Index: proto.Uint64(last + 1), Term: &term}, {Index: proto.Uint64(last + 2), Term: &term, Data: row}}
		}
		for _, stranger := range []lawful{peer(99), peer(4)} {
			add(stranger, raftpb.MsgHeartbeat, counts)
			add(stranger, raftpb.MsgHeartbeat, none)
			add(stranger, raftpb.MsgVote, none)
			add(stranger, raftpb.MsgVote, forced)
			add(stranger, raftpb.MsgPreVote, none)
			add(stranger, raftpb.MsgAppResp, none)
			add(stranger, raftpb.MsgHeartbeatResp, func(m *raftpb.Message) { m.Index, m.LogTerm = nil, nil })
			add(stranger, raftpb.MsgApp, appends)
		}
		if leader.id != s.node { // else it would be its own; all of these replay an incarnation that was told
			add(leader, raftpb.MsgHeartbeat, counts)
		}
		add(follower, raftpb.MsgHeartbeat, counts)
		add(follower, raftpb.MsgVote, none)
		add(follower, raftpb.MsgPreVote, none)
		if term == status.Term { // without keys a member of a later term is believed: that is what keys are for
			add(follower, raftpb.MsgApp, appends)
		}
	}
	return list
}

// TestForgeries: heartbeats, votes, answers and appends that nobody has sent, in the names of
// replicas that are no members, and of members with what is known of them, to nodes without keys
// and, with those of a user, to nodes with keys. No process ends or says that it has lost
// anything, no row of theirs is there, and what was acknowledged is on all members alike. With
// keys nobody even hears them, and the term stays.
func TestForgeries(t *testing.T) {
	for name, begin := range map[string]func(*testing.T) *processes{
		"without keys":       func(t *testing.T) *processes { return startCluster(t, 3) },
		"with a user's keys": func(t *testing.T) *processes { return secureCluster(t, 3) },
	} {
		t.Run(name, func(t *testing.T) {
			p := begin(t)
			leader := p.leader()
			c := p.connect(p.endpoints...)
			for _, target := range []int{(leader + 1) % 3, leader} {
				if _, err := c.Put(context.Background(), []byte("k"), []byte("v")); err != nil {
					t.Fatal(err)
				}
				s := newSiege(t, p, target)
				before := p.status(target)
				for _, f := range s.forgeries(before) {
					in, err := s.patiently()
					if err != nil {
						t.Fatal(err)
					}
					_, err = in.hello(s.nodeHello(f.as, f.lane))
					if (err != nil) != (s.keys != nil) {
						t.Errorf("%s: the hello is answered with %v", f.name, err)
					}
					if err == nil {
						_ = in.send(parcel(to(messages.ActorRaft, &messages.RaftMessage{Message: f.sent})))
						p.sameRows(f.name)
					}
					in.hang()
				}
				if after := p.status(target); s.keys != nil && (after == nil || after.Term != before.Term) {
					t.Errorf("the node was %v, and is %v", before, after)
				}
				s.cancel()
			}
			if _, err := c.Put(context.Background(), []byte("k"), []byte("w")); err != nil {
				t.Error(err)
			}
			p.sameRows("all")
			for until := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
				out, said, code := p.kvctl("verify")
				if code == 0 {
					break
				}
				if time.Now().After(until) {
					t.Errorf("verify: %d: %s%s", code, out, said)
					break
				}
			}
			for i, of := range p.running {
				p.vitals(i)
				for _, bad := range []string{"acknowledged data was lost", "no majority holds the same"} {
					if strings.Contains(of.log.String(), bad) {
						t.Errorf("n%d says %q", i+1, bad)
					}
				}
				for _, file := range []string{"SUSPECTED", "CONDEMNED"} {
					if _, err := os.Stat(filepath.Join(p.data(i), file)); err == nil {
						t.Errorf("n%d has a file %s", i+1, file)
					}
				}
			}
		})
	}
}

// sameRows wants no node to hold what a forger wrote, now.
func (p *processes) sameRows(after string) {
	p.t.Helper()
	for i, e := range p.endpoints {
		if got, _, code := p.kvctl("get", hijacked, "--consistency", "stale", "--server", e); code == 0 {
			p.t.Errorf("%s: n%d holds %q", after, i+1, got)
		}
	}
}

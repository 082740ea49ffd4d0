package transport

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"keyval/messages"
)

// codeOf is the code of an error, OK if there is none.
func codeOf(e *messages.Error) messages.Code {
	if e == nil {
		return messages.Code_OK
	}
	return e.Code
}

func TestAdmit(t *testing.T) {
	node := func(change func(*messages.Hello)) *messages.Hello {
		h := HelloTo(nodeLocal(2), 1, messages.Lane_APPEND)
		change(h)
		return h
	}
	client := func(change func(*messages.Hello)) *messages.Hello {
		h := HelloTo(clientLocal(1), 0, messages.Lane_CONTROL)
		change(h)
		return h
	}
	same := func(*messages.Hello) {}
	here := nodeLocal(1)
	founding := here
	founding.ClusterID = nil
	knows := Known{}.With([]*messages.Member{{RaftId: 1}, {RaftId: 2, Incarnation: incarnation(2)}, {RaftId: 4}}, 5).With(nil, 0)

	for _, test := range []struct {
		name  string
		local Local
		hello *messages.Hello
		code  messages.Code // OK: admitted
		text  string
	}{
		{"node", here, node(same), messages.Code_OK, ""},
		{"client", here, client(same), messages.Code_OK, ""},
		{"client of this cluster", here, client(func(h *messages.Hello) { h.ClusterId = clusterA }), messages.Code_OK, ""},
		{"client to this node", here, client(func(h *messages.Hello) { h.To = 1 }), messages.Code_OK, ""},
		{"unknown node", here, node(func(h *messages.Hello) { h.RaftId = 9 }), messages.Code_OK, ""},
		{"founder to founder", founding, node(func(h *messages.Hello) { h.ClusterId = nil }), messages.Code_OK, ""},
		{"founder to member", here, node(func(h *messages.Hello) { h.ClusterId = nil }), messages.Code_OK, ""},
		{"member to founder", founding, node(same), messages.Code_OK, ""},
		{"client to founder", founding, client(same), messages.Code_OK, ""},

		{"no hello", here, nil, messages.Code_INVALID, "starts with a hello"},
		{"empty hello", here, &messages.Hello{}, messages.Code_UNSUPPORTED, "protocol 1, not 0"},
		{"newer protocol", here, node(func(h *messages.Hello) { h.Protocol = 2 }), messages.Code_UNSUPPORTED, "protocol 1, not 2"},
		{"no role", here, node(func(h *messages.Hello) { h.Role = 0 }), messages.Code_INVALID, "no role"},
		{"strange role", here, node(func(h *messages.Hello) { h.Role = 7 }), messages.Code_INVALID, "no role"},
		{"long version", here, node(func(h *messages.Hello) { h.Version = strings.Repeat("v", 129) }), messages.Code_INVALID, "version"},
		{"escape in version", here, client(func(h *messages.Hello) { h.Version = "\x1b[2J" }), messages.Code_INVALID, "version"},
		{"short cluster id", here, node(func(h *messages.Hello) { h.ClusterId = clusterA[:15] }), messages.Code_INVALID, "16 bytes"},
		{"other cluster", here, node(func(h *messages.Hello) { h.ClusterId = clusterB }), messages.Code_CONFLICT,
			"belongs to cluster aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, not to cluster bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"},
		{"client of other cluster", here, client(func(h *messages.Hello) { h.ClusterId = clusterB }), messages.Code_CONFLICT, "not to cluster bbbb"},
		{"client of a cluster to founder", founding, client(func(h *messages.Hello) { h.ClusterId = clusterA }), messages.Code_CONFLICT, "no cluster yet"},
		{"for another node", here, node(func(h *messages.Hello) { h.To = 3 }), messages.Code_CONFLICT, "raft id 1, not 3"},
		{"client for another node", here, client(func(h *messages.Hello) { h.To = 3 }), messages.Code_CONFLICT, "raft id 1, not 3"},
		{"for nobody", here, node(func(h *messages.Hello) { h.To = 0 }), messages.Code_INVALID, "names the node"},
		{"raft id 0", here, node(func(h *messages.Hello) { h.RaftId = 0 }), messages.Code_INVALID, "0 is not the raft id"},
		{"raft's storage", here, node(func(h *messages.Hello) { h.RaftId = math.MaxUint64 }), messages.Code_INVALID, "not the raft id"},
		{"our raft id", here, node(func(h *messages.Hello) { h.RaftId = 1 }), messages.Code_CONFLICT, "raft id 1 itself"},
		{"no incarnation", here, node(func(h *messages.Hello) { h.Incarnation = nil }), messages.Code_INVALID, "incarnation has 16 bytes, this one 0"},
		{"wiped node", here, node(func(h *messages.Hello) { h.Incarnation = incarnation(8) }), messages.Code_NOT_ALLOWED, "a wiped node under its old name"},
		{"removed node", here, node(func(h *messages.Hello) { h.RaftId, h.Incarnation = 3, incarnation(3) }), messages.Code_REMOVED, "raft id 3 was removed"},
		{"member that is not bound", here, node(func(h *messages.Hello) { h.RaftId = 4 }), messages.Code_OK, ""},
		{"node with client address", here, node(func(h *messages.Hello) { h.Address = clientLocal(1).Address }), messages.Code_INVALID, "no client address"},
		{"lane 3", here, node(func(h *messages.Hello) { h.Lane = 3 }), messages.Code_INVALID, "no lane 3"},
		{"lane -1", here, node(func(h *messages.Hello) { h.Lane = -1 }), messages.Code_INVALID, "no lane -1"},
		{"client with node address", here, client(func(h *messages.Hello) { h.Address = "node/2" }), messages.Code_INVALID, `"node/2" is not a client's`},
		{"client without address", here, client(func(h *messages.Hello) { h.Address = "" }), messages.Code_INVALID, "not a client's"},
		{"client with raft id", here, client(func(h *messages.Hello) { h.RaftId = 2 }), messages.Code_INVALID, "neither raft id"},
		{"client on bulk", here, client(func(h *messages.Hello) { h.Lane = messages.Lane_BULK }), messages.Code_INVALID, "no lane"},
	} {
		t.Run(test.name, func(t *testing.T) {
			welcome, refusal := Admit(test.local, knows, Principal{}, test.hello)
			if (welcome == nil) == (refusal == nil) {
				t.Fatalf("welcome %v and refusal %v", welcome, refusal)
			}
			if codeOf(refusal) != test.code || refusal != nil && !strings.Contains(refusal.Message, test.text) {
				t.Fatalf("%v, want %v with %q", refusal, test.code, test.text)
			}
			if welcome != nil && (welcome.RaftId != 1 || welcome.Name != "node1" || !bytes.Equal(welcome.ClusterId, test.local.ClusterID)) {
				t.Errorf("welcome %v", welcome)
			}
		})
	}
}

func TestFoundingIsMarkedBetweenNodesOnly(t *testing.T) {
	here, fresh := nodeLocal(1), nodeLocal(1)
	fresh.ClusterID = nil
	there, new := nodeLocal(2), nodeLocal(2)
	new.ClusterID = nil
	for _, test := range []struct {
		local, dials Local
		founding     bool
	}{
		{here, there, false}, {fresh, there, true}, {here, new, true}, {fresh, new, true},
		{here, clientLocal(1), false}, {fresh, clientLocal(1), false},
	} {
		to := messages.RaftID(1)
		hello := HelloTo(test.dials, to, messages.Lane_CONTROL)
		welcome, refusal := Admit(test.local, Known{}, Principal{}, hello)
		if refusal != nil {
			t.Fatal(refusal)
		}
		from := test.dials.Address
		if test.local.RaftID == 1 && len(test.local.ClusterID) > 0 && test.dials.Role == messages.Role_NODE && len(test.dials.ClusterID) == 0 {
			from = "founder/2" // member 2 may be another
		}
		if c := Accepted(test.local, Principal{}, hello); c.Founding != test.founding || c.Address != from {
			t.Errorf("accepted %+v", c)
		}
		if r := Welcomed(test.dials, Known{}, Principal{}, to, welcome); r != nil {
			t.Fatal(r)
		}
		if c := Reached(test.dials, Principal{}, messages.Lane_CONTROL, welcome); c.Founding != test.founding || c.Address != "node/1" || c.Local != test.dials.RaftID {
			t.Errorf("reached %+v", c)
		}
	}
}

func TestWelcomed(t *testing.T) {
	client, bound := clientLocal(1), clientLocal(1)
	bound.ClusterID = clusterA
	fresh := nodeLocal(2)
	fresh.ClusterID = nil
	knows := Known{}.With([]*messages.Member{{RaftId: 1, Incarnation: incarnation(1)}}, 0)
	for _, test := range []struct {
		name   string
		local  Local
		to     messages.RaftID
		change func(*messages.Welcome)
		code   messages.Code
	}{
		{"node", nodeLocal(2), 1, nil, messages.Code_OK},
		{"founder", fresh, 1, nil, messages.Code_OK},
		{"founding", nodeLocal(2), 1, func(w *messages.Welcome) { w.ClusterId = nil }, messages.Code_OK},
		{"client", client, 0, nil, messages.Code_OK},
		{"client of the cluster", bound, 0, nil, messages.Code_OK},
		{"client of any, founding", client, 0, func(w *messages.Welcome) { w.ClusterId = nil }, messages.Code_OK},
		{"client of a cluster, founding", bound, 0, func(w *messages.Welcome) { w.ClusterId = nil }, messages.Code_CONFLICT},
		{"client of another cluster", bound, 0, func(w *messages.Welcome) { w.ClusterId = clusterB }, messages.Code_CONFLICT},
		{"another cluster", nodeLocal(2), 1, func(w *messages.Welcome) { w.ClusterId = clusterB }, messages.Code_CONFLICT},
		{"protocol", nodeLocal(2), 1, func(w *messages.Welcome) { w.Protocol = 0 }, messages.Code_UNSUPPORTED},
		{"another node", nodeLocal(2), 3, nil, messages.Code_CONFLICT},
		{"ourselves", nodeLocal(1), 0, nil, messages.Code_CONFLICT},
		{"nobody", client, 0, func(w *messages.Welcome) { w.RaftId = 0 }, messages.Code_INVALID},
		{"cluster id size", client, 0, func(w *messages.Welcome) { w.ClusterId = []byte{1} }, messages.Code_INVALID},
		{"incarnation size", nodeLocal(2), 1, func(w *messages.Welcome) { w.Incarnation = []byte{1} }, messages.Code_INVALID},
		{"unreadable name", client, 0, func(w *messages.Welcome) { w.Name = "\x1b[2J" }, messages.Code_INVALID},
		{"wiped", nodeLocal(2), 1, func(w *messages.Welcome) { w.Incarnation = incarnation(7) }, messages.Code_NOT_ALLOWED},
	} {
		t.Run(test.name, func(t *testing.T) {
			hello := HelloTo(clientLocal(2), 0, messages.Lane_CONTROL)
			if test.local.Role == messages.Role_NODE {
				hello = HelloTo(nodeLocal(3), 1, messages.Lane_CONTROL)
			}
			w, _ := Admit(nodeLocal(1), Known{}, Principal{}, hello)
			if test.local.Role == messages.Role_CLIENT && (w.Incarnation != nil || w.Starts != nil) {
				t.Errorf("a client is told an incarnation: %v", w)
			}
			if test.change != nil {
				test.change(w)
			}
			if r := Welcomed(test.local, knows, Principal{}, test.to, w); codeOf(r) != test.code {
				t.Errorf("%v, want %v", r, test.code)
			}
		})
	}
	if r := Welcomed(client, Known{}, Principal{}, 0, nil); codeOf(r) != messages.Code_UNREACHABLE {
		t.Errorf("%v", r)
	}
}

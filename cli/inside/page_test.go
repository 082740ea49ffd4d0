package inside

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"keyval/actors/transport"
	"keyval/messages"
)

// fake is a node that says what it is told to say.
type fake struct {
	status  *messages.StatusReply
	cluster *messages.ClusterReply
	err     error

	mu      sync.Mutex
	auth    *messages.Auth
	entries int   // that it was asked for
	hangs   error // what it says when it is asked for rights
	denied  []*messages.Denied
}

func (n *fake) Status(context.Context) (*messages.StatusReply, error)   { return n.status, n.err }
func (n *fake) Cluster(context.Context) (*messages.ClusterReply, error) { return n.cluster, n.err }

func (n *fake) Entry(context.Context) (transport.Entry, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.entries++
	return transport.EntryOf(&messages.MembersChanged{ClusterId: clusterID, NextRaftId: 4, Members: []*messages.Member{{RaftId: 1, Name: "n1"}}, Auth: n.auth}), n.hangs
}

var clusterID = make([]byte, messages.ClusterIDSize)

func (n *fake) Deny(d *messages.Denied) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.denied = append(n.denied, d)
}

// has changes who may do what, or has the node hang.
func (n *fake) has(a *messages.Auth, hangs error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.auth, n.hangs = a, hangs
}

// asked is how often it was asked who may come and do what.
func (n *fake) asked() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.entries
}

// healthy is the first of three members, all in contact, which leads.
func healthy() *fake {
	n := &fake{
		status: &messages.StatusReply{
			Name: "node1", RaftId: 1, Role: "leader", Term: 3, Commit: 70, Applied: 70, LastIndex: 70, LogFirstIndex: 11, Revision: 60, Version: "v1",
			Level: 1, LevelMax: 2, Leader: &messages.Leader{RaftId: 1, Name: "node1"}, RoomBytes: 5 << 30,
		},
		cluster: &messages.ClusterReply{
			Node: "node1", View: &messages.ClusterView{Term: 3, Leader: 1, Commit: 70, PulseKnown: true},
			Before: &messages.FaultBudget{Voters: 3, Quorum: 2, Alive: 3, Slack: 1, Available: true, Survives: []string{"node1", "node2", "node3"}},
		},
	}
	for i, role := range []string{"leader", "follower", "follower"} {
		n.cluster.View.Members = append(n.cluster.View.Members, &messages.MemberView{
			Member: &messages.Member{RaftId: uint64(i + 1), Name: "node" + string(rune('1'+i))}, Role: role, Match: 70, Applied: 70, ContactKnown: true,
		})
	}
	return n
}

func TestChecks(t *testing.T) {
	for _, row := range []struct {
		name, fails string // of /readyz, by name
		dead        bool   // /livez fails
		harm        func(*fake)
	}{
		{name: "all is well", harm: func(*fake) {}},
		{name: "it founds or joins", fails: "serving member leader quorum lag room certificates", harm: func(n *fake) {
			n.err = messages.Errorf(messages.Code_STARTING, "the node serves nobody yet")
		}},
		{name: "it is stuck", fails: "serving member leader quorum lag room certificates", dead: true, harm: func(n *fake) {
			n.err = messages.Errorf(messages.Code_TIMED_OUT, "the actor gateway has not answered")
		}},
		{name: "too many ask", fails: "serving", harm: func(n *fake) { n.status.Code = messages.Code_BUSY }},
		{name: "it was removed", fails: "member", harm: func(n *fake) { n.status.Name = "node4" }},
		{name: "no leader", fails: "leader quorum", harm: func(n *fake) { n.status.Leader, n.cluster.Before = nil, nil }},
		{name: "no quorum", fails: "quorum", harm: func(n *fake) { n.cluster.Before.Available, n.cluster.Before.Alive = false, 1 }},
		{name: "it applies too slowly", fails: "lag", harm: func(n *fake) { n.status.Commit = n.status.Applied + lagMax + 1 }},
		{name: "it lags a little", harm: func(n *fake) { n.status.Commit = n.status.Applied + lagMax }},
		{name: "its keys have expired", fails: "certificates", harm: func(n *fake) {
			n.status.Keys = &messages.Keys{ExpiresMs: time.Now().Add(-time.Second).UnixMilli(), ExpiresWhat: "its certificate"}
		}},
		{name: "its keys expire soon", harm: func(n *fake) { n.status.Keys = &messages.Keys{ExpiresMs: time.Now().Add(time.Hour).UnixMilli()} }},
		{name: "its disk is full", fails: "room", harm: func(n *fake) { n.status.Lacks = "9 MB of 200 MB are free" }},
	} {
		n := healthy()
		row.harm(n)
		f := gather(context.Background(), n)
		var fails []string
		for _, c := range ready(f) {
			if c.fail != "" {
				fails = append(fails, c.name)
			}
		}
		if got := strings.Join(fails, " "); got != row.fails {
			t.Errorf("%s: %q fail, want %q", row.name, got, row.fails)
		}
		if dead := alive(f)[0].fail != ""; dead != row.dead {
			t.Errorf("%s: dead is %t", row.name, dead)
		}
	}
}

// serving is a page over a node.
func serving(t *testing.T, n Node, o Options) (*Page, string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := Open(listener, o)
	t.Cleanup(p.Close)
	if n != nil {
		p.Running(n)
	}
	return p, "http://" + listener.Addr().String()
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

func TestPages(t *testing.T) {
	full := healthy()
	full.status.Lacks = "9 MB of 200 MB are free"
	_, well := serving(t, healthy(), Options{Version: "v1", Profile: true})
	_, ill := serving(t, full, Options{})
	_, young := serving(t, nil, Options{})
	for _, row := range []struct {
		at     string
		status int
		holds  []string
	}{
		{well + "/livez", 200, []string{"ok\n"}},
		{well + "/readyz", 200, []string{"ok\n"}},
		{well + "/readyz?verbose", 200, []string{"[+] serving\n[+] member\n[+] leader\n[+] quorum\n[+] lag\n[+] room\n[+] certificates\nok\n"}},
		{well + "/readyz?exclude=rom", 200, []string{`there are no checks ["rom"] to exclude`}},
		{ill + "/readyz", 503, []string{"[-] room: too little room: 9 MB of 200 MB are free\nfailed\n"}},
		{ill + "/readyz?exclude=room&verbose", 200, []string{"[+] lag\n[+] certificates\nok\n"}},
		{ill + "/debug/pprof/", 404, nil},
		{well + "/debug/pprof/", 200, nil},
		{young + "/livez", 200, []string{"ok\n"}},
		{young + "/readyz", 503, []string{"[-] serving: not known: the node has not started yet"}},
		{young + "/metrics", 200, []string{"\nkeyval_up 0\n", "\ngo_goroutines "}},
		{young + "/state", 200, []string{`"serves":false,"why":"the node has not started yet"`}},
		{well + "/version", 200, []string{`{"version":"v1"}`}},
		{well + "/", 200, []string{"<title>KeyVal</title>"}},
		{well + "/nothing", 404, nil},
		{well + "/metrics", 200, []string{"\nkeyval_up 1\n", "\nkeyval_fault_budget 1\n", "\nkeyval_has_leader 1\n", "\nkeyval_log_entries 60\n",
			`keyval_members{type="voter"} 3`, `keyval_member_reachable{member="node2"} 1`, `keyval_build_info{level="2",version="v1"} 1`,
			`keyval_operations{kind="replace",phase="catch_up"} 0`}},
	} {
		status, body := get(t, row.at)
		if status != row.status {
			t.Errorf("%s: status %d, want %d: %s", row.at, status, row.status, body)
		}
		for _, part := range row.holds {
			if !strings.Contains(body, part) {
				t.Errorf("%s: it does not hold %q: %s", row.at, part, body)
			}
		}
	}
}

// TestNothingChangesByLooking: what would change something is refused.
func TestNothingChangesByLooking(t *testing.T) {
	_, at := serving(t, healthy(), Options{})
	for _, path := range []string{"/", "/state", "/metrics", "/livez", "/readyz", "/version"} {
		r, err := http.Post(at+path, "text/plain", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: status %d", path, r.StatusCode)
		}
	}
}

// TestStateTellsOperations: what the page shows of them.
func TestStateTellsOperations(t *testing.T) {
	n := healthy()
	n.cluster.View.Operations = []*messages.ClusterOperation{{
		Id: []byte{1, 2}, Kind: messages.OperationKind_REPLACE, OldNode: "node2", NewNode: "node4", Phase: messages.OperationPhase_CATCH_UP,
	}}
	n.cluster.View.Waits = []*messages.OperationWait{{Id: []byte{1, 2}, Why: "node4 is out of contact", Hint: "start it", Reason: messages.WaitReason_OUT_OF_CONTACT}}
	n.cluster.View.Backups = []*messages.BackupJob{{Name: "a", EveryMs: 1000, VerifiedAtMs: 1_600_000_000_000}, {Name: "b", VerifiedAtMs: 1_700_000_000_000}}
	n.status.Keys = &messages.Keys{ExpiresMs: 1_900_000_000_000}
	n.status.LastIndex, n.status.CompactedRevision, n.cluster.View.Members[2].EtaMs = 72, 10, 4000
	n.status.Events = []*messages.Event{{AtMs: 1000, Level: "warn", Text: "nobody leads term=3"}}
	_, at := serving(t, n, Options{})
	_, body := get(t, at+"/state")
	if want := `"events":[{"at":"1970-01-01T00:00:01Z","level":"warn","text":"nobody leads term=3"}]`; !strings.Contains(body, want) {
		t.Errorf("the state lacks %s: %s", want, body)
	}
	var s struct {
		Node       string
		Operations []struct {
			Kind, Phase string
			WaitingFor  string `json:"waiting_for"`
		}
	}
	if err := json.Unmarshal([]byte(body), &s); err != nil || s.Node != "node1" || len(s.Operations) != 1 {
		t.Fatalf("%v: %s", err, body)
	}
	if o := s.Operations[0]; o.Kind != "replace" || o.Phase != "catch_up" || o.WaitingFor != "node4 is out of contact" {
		t.Errorf("%+v", o)
	}
	_, metrics := get(t, at+"/metrics")
	for _, line := range []string{`keyval_operations{kind="replace",phase="catch_up"} 1`, "keyval_operations_waiting 1",
		`keyval_operations_blocked{reason="out_of_contact"} 1`, `keyval_operations_blocked{reason="lags"} 0`, `keyval_backup_jobs{state="overdue"} 1`,
		`keyval_backup_jobs{state="fresh"} 1`, "keyval_backup_verified_timestamp_seconds 1.7e+09", "keyval_certificate_expires_timestamp_seconds 1.9e+09",
		"keyval_uncommitted_entries 2", "keyval_history_revisions 50", `keyval_member_eta_seconds{member="node3"} 4`} {
		if !strings.Contains(metrics, "\n"+line+"\n") {
			t.Errorf("the metrics lack %s", line)
		}
	}
}

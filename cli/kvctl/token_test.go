//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"keyval/actors/transport"
	"keyval/actors/transport/keys"
	"keyval/messages"
)

// machine is a new one: it has a token, and no keys.
type machine struct {
	*process
	p              *processes
	name, at, home string
	or             int // what may be in place of an exit code
}

func (p *processes) machine(name string) *machine {
	return &machine{p: p, name: name, at: freeAddresses(p.t, 1)[0], home: filepath.Join(p.t.TempDir(), name)}
}

func (m *machine) certs() string { return filepath.Join(m.home, "certs") }

// serves starts a node there, with a token on its standard input.
func (m *machine) serves(token string, known ...string) {
	m.p.t.Helper()
	m.process = &process{ended: make(chan struct{})}
	m.Cmd = exec.Command(binary, "serve", "--name", m.name, "--listen", m.at, "--data", filepath.Join(m.home, "data"),
		"--join", strings.Join(known, ","), "--certs-dir", m.certs(), "--join-token-file", "-")
	m.Stdin, m.Stderr = strings.NewReader(token), &m.log
	m.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.Start(); err != nil {
		m.p.t.Fatal(err)
	}
	c := m.process
	go func() {
		c.err = c.Wait()
		close(c.ended)
	}()
	m.p.t.Cleanup(func() { c.Process.Kill(); <-c.ended })
}

// says waits until its log holds a text.
func (m *machine) says(text string) {
	m.p.t.Helper()
	for until := time.Now().Add(30 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		if strings.Contains(m.log.String(), text) {
			return
		}
	}
	m.p.t.Fatalf("%s does not say %q:\n%s", m.name, text, &m.log)
}

// refused wants it to end with a code, or another, to say something, and to have no keys.
func (m *machine) refused(code int, says, token string, known ...string) {
	m.p.t.Helper()
	m.serves(token, known...)
	select {
	case <-m.ended:
	case <-time.After(40 * time.Second):
		m.p.t.Fatalf("%s is not refused:\n%s", m.name, &m.log)
	}
	if got := m.ProcessState.ExitCode(); got != code && got != m.or || !strings.Contains(m.log.String(), says) {
		m.p.t.Errorf("exit code %d, and not %d with %q:\n%s", got, code, says, &m.log)
	}
	if _, err := os.Stat(filepath.Join(m.certs(), "node.key")); err == nil {
		m.p.t.Errorf("%s has a key", m.name)
	}
}

// invite makes a token.
func (p *processes) invite(name string, ttl string) string {
	p.t.Helper()
	out, said, code := p.kvctl("cluster", "token", "create", name, "127.0.0.1", "--ttl", ttl, "--dir", p.authority.Dir)
	if code != 0 || !strings.HasPrefix(out, "keyval-join-1.") || !strings.Contains(said, "--join-token-file") {
		p.t.Fatalf("%d: %s%s", code, out, said)
	}
	return out
}

// tokens are the states of all tokens, by node.
func (p *processes) tokens() map[string]string {
	p.t.Helper()
	out, said, code := p.kvctl("cluster", "token", "list", "--json")
	var rows []struct{ ID, Node, State string }
	if err := json.Unmarshal([]byte(out), &rows); err != nil || code != 0 {
		p.t.Fatalf("%v, %d: %s%s", err, code, out, said)
	}
	all := map[string]string{}
	for _, r := range rows {
		all[r.Node], all[r.Node+" id"] = r.State, r.ID
	}
	return all
}

// awaitTokens waits until the list says so: any node answers, and one may lag.
func (p *processes) awaitTokens(want map[string]string) {
	p.t.Helper()
	var got map[string]string
	for until := time.Now().Add(15 * time.Second); time.Now().Before(until); time.Sleep(100 * time.Millisecond) {
		same := true
		got = p.tokens()
		for node, state := range want {
			same = same && got[node] == state
		}
		if same {
			return
		}
	}
	p.t.Errorf("the tokens are %v, and not %v", got, want)
}

// TestANodeComesByAToken: two commands on two machines, and a machine without any keys is a member.
// A token that was used, has expired or was removed is of no use to anybody, and another cluster's
// neither.
func TestANodeComesByAToken(t *testing.T) {
	p := secureCluster(t, 3, "--log-level", "info")
	leader := p.leader()
	follower := p.listens[(leader+1)%3]
	token := p.invite("n4", "1h")
	p.awaitTokens(map[string]string{"n4": "open"})
	m := p.machine("n4")
	m.serves(token, follower)
	m.says("waiting to be added")
	for file, mode := range map[string]os.FileMode{"": 0o700 | os.ModeDir, "node.key": 0o600} {
		if info, err := os.Stat(filepath.Join(m.certs(), file)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", file, info, err)
		}
	}
	p.runs(0, "n4", "cluster", "add", "n4", m.at)
	p.await("n4 votes", func(v *messages.ClusterView) bool {
		is := member(v, "n4")
		return is != nil && is.Type == messages.MemberType_VOTER
	})
	p.awaitTokens(map[string]string{"n4": "used"})
	m.Process.Kill()
	<-m.ended
	m.serves("none", follower) // it has its keys
	m.says("has keys already: the token is not needed")

	// Nobody is let in any more: only the list knows why.
	p.machine("n4").refused(4, "this cluster has no open token", token, p.listens...)

	brief := p.invite("n5", "1s")
	removed := p.invite("n6", "1h")
	open := p.invite("n7", "1h")
	p.awaitTokens(map[string]string{"n6": "open"})
	p.runs(0, "the token of n6 is removed", "cluster", "token", "remove", p.tokens()["n6 id"][:8])
	p.runs(3, "there is no token of id", "cluster", "token", "remove", "abcdef")
	time.Sleep(1100 * time.Millisecond)
	p.awaitTokens(map[string]string{"n5": "expired", "n6": "", "n7": "open"})
	p.machine("n4").refused(7, "the token was used already", token, p.listens...)
	p.machine("n5").refused(4, "the token expired at", brief, p.listens...)
	p.machine("n6").refused(3, "this cluster knows no such token", removed, p.listens...)
	p.machine("n8").refused(2, "the token is for node n7", open, p.listens...)
	p.machine("n7").refused(2, "altered", open[:30]+string(open[30]^1)+open[31:], p.listens...)
	p.machine("n7").refused(5, "nothing listens", open, freeAddresses(t, 1)...)
	p.logged("a node is invited", "member=n7 ", "by=alice", "the keys of an invited node are given away", "address=127.0.0.1",
		"a request was denied", `principal="a token of n4, from 127.0.0.1"`)
}

// logged wants texts in the log of some node.
func (p *processes) logged(texts ...string) {
	p.t.Helper()
	for _, text := range texts {
		found := false
		for _, c := range p.running {
			found = found || c != nil && strings.Contains(c.log.String(), text)
		}
		if !found {
			p.t.Errorf("no node's log says %q", text)
		}
	}
}

// TestSomebodyInBetween: a process at a member's address that has another authority's keys, or shows
// the certificate of the right one beside its own, hears nothing of the token. Who asks stops at that.
func TestSomebodyInBetween(t *testing.T) {
	p := secureCluster(t, 3)
	p.leader()
	token := p.invite("n4", "1h")
	other := keys.Authority{Dir: filepath.Join(t.TempDir(), "other")}
	if _, err := other.Create(); err != nil {
		t.Fatal(err)
	}
	dir, _, err := other.Issue(transport.Principal{Kind: transport.NodeKey, Name: "n1"}, []string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	own := pairIn(t, dir, transport.NodeKey)
	theirs := pairIn(t, p.authority.Of(transport.Principal{Kind: transport.NodeKey, Name: "n1"}), transport.NodeKey)
	ca, err := tls.LoadX509KeyPair(filepath.Join(p.authority.Dir, "ca.crt"), filepath.Join(p.authority.Dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	beside := tls.Certificate{Certificate: append(own.Certificate[:1:1], theirs.Certificate[0], ca.Certificate[0]), PrivateKey: own.PrivateKey}
	for name, shows := range map[string]tls.Certificate{"its own": own, "another's too": beside} {
		l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{shows}, NextProtos: []string{"h2"}})
		if err != nil {
			t.Fatal(err)
		}
		var heard bytes.Buffer
		var mu sync.Mutex
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func(conn net.Conn) {
					defer conn.Close()
					text, _ := io.ReadAll(conn)
					mu.Lock()
					heard.Write(text)
					mu.Unlock()
				}(conn)
			}
		}()
		p.machine("n4").refused(6, "no node of the cluster that the token is for, or somebody is in between", token, l.Addr().String())
		l.Close()
		mu.Lock()
		if heard.Len() > 0 {
			t.Errorf("whoever shows %s hears %q", name, heard.String())
		}
		mu.Unlock()
	}
	m := p.machine("n4") // the token is as good as before
	m.serves(token, p.listens...)
	m.says("waiting to be added")
}

// TestAMachineThatDiesGoesOn: the new machine is killed while it fetches its keys. The same command
// with the same token goes on, with the same keys.
func TestAMachineThatDiesGoesOn(t *testing.T) {
	p := secureCluster(t, 3)
	p.leader()
	for round, after := range []time.Duration{20, 35, 50, 65, 80, 100, 130, 180} {
		name := "m" + string(rune('1'+round))
		token := p.invite(name, "1h")
		m := p.machine(name)
		m.serves(token, p.listens...)
		time.Sleep(after * time.Millisecond)
		m.Process.Kill()
		<-m.ended
		had, _ := os.ReadFile(filepath.Join(m.certs(), "node.key"))
		m.serves(token, p.listens...)
		m.says("waiting to be added")
		has, err := os.ReadFile(filepath.Join(m.certs(), "node.key"))
		if err != nil || len(had) > 0 && !bytes.Equal(had, has) {
			t.Errorf("%v, or the key is another", err)
		}
		m.Process.Kill()
		<-m.ended
	}
}

// TestTokensWhileLeadersDie: whoever leads is killed while a token is used; it is used once, by the
// machine that began.
func TestTokensWhileLeadersDie(t *testing.T) {
	p := secureCluster(t, 3)
	c := p.connect(p.endpoints...)
	for round, after := range []time.Duration{0, 15 * time.Millisecond, 40 * time.Millisecond, 80 * time.Millisecond} {
		leader := p.leader()
		name := "m" + string(rune('1'+round))
		token := p.invite(name, "1h")
		m := p.machine(name)
		m.serves(token, p.listens...)
		time.Sleep(after)
		p.kill(leader)
		m.says("waiting to be added")
		late := p.machine(name)
		late.or = 7 // while the first has not said yet that it has the keys
		late.refused(4, "token", token, p.listens...)
		p.start(leader)
		if _, err := c.Put(context.Background(), []byte("k"), []byte(name)); err != nil {
			t.Fatal(err)
		}
		p.awaitTokens(map[string]string{name: "used"})
		m.Process.Kill()
		<-m.ended
	}
}

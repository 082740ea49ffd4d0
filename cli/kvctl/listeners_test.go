package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"keyval/actors/transport"
	"keyval/actors/transport/keys"
)

// The listeners of a node, with keys and without.
const (
	securedLink = iota
	securedPage
	openLink
	openPage
	listeners
)

var listenerNames = [listeners]string{"the link", "the page", "the link without keys", "the page without keys"}

// knock is what comes to a listener, and what each of them says to it.
type knock struct {
	name   string
	secure *tls.Config // nil: it comes without TLS
	sent   [listeners]string
	drips  bool              // it goes on with a byte now and then, without end
	says   [listeners]string // what is answered, or how it ends; a pattern
}

// everywhere is the same for all listeners.
func everywhere(text string) (all [listeners]string) {
	for i := range all {
		all[i] = text
	}
	return all
}

// endMax bounds the time until a node has done with whoever gets nowhere: 5 s, and what a busy
// machine takes.
const endMax = 15 * time.Second

// at knocks at an address. What comes back is told as bytes, and behind them how it ended:
// "closed", or what TLS says; "stands" if nobody has ended it in time.
func (k knock) at(address string, sent string) string {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(endMax))
	if k.secure != nil {
		secured := tls.Client(conn, k.secure)
		if err := secured.Handshake(); err != nil {
			return endedBy(err)
		}
		conn = secured
	}
	go func() {
		_, err := io.WriteString(conn, sent)
		for k.drips && err == nil {
			time.Sleep(300 * time.Millisecond)
			_, err = io.WriteString(conn, "x")
		}
	}()
	said, err := io.ReadAll(io.LimitReader(conn, 1<<20))
	return string(said) + endedBy(err)
}

func endedBy(err error) string {
	var late net.Error
	switch {
	case errors.As(err, &late) && late.Timeout():
		return "stands"
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "closed"
	}
	return err.Error()
}

// knocks are all that a table has, with certificates of an authority.
func (p *processes) knocks() []knock {
	foreign := keys.Authority{Dir: filepath.Join(p.t.TempDir(), "foreign")}
	if _, err := foreign.Create(); err != nil {
		p.t.Fatal(err)
	}
	past := keys.Authority{Dir: p.authority.Dir, Now: func() time.Time { return time.Now().Add(-400 * 24 * time.Hour) }}
	of := func(a keys.Authority, name string) *tls.Config {
		who := transport.Principal{Kind: transport.UserKey, Name: name}
		if _, err := os.Stat(a.Of(who)); err != nil {
			if _, _, err := a.Issue(who, nil); err != nil {
				p.t.Fatal(err)
			}
		}
		pair := pairIn(p.t, a.Of(who), transport.UserKey)
		return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}, // whoever is asked for authorities sends this one all the same
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }}
	}
	with := func(c *tls.Config, change func(*tls.Config)) *tls.Config { change(c); return c }
	none := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}}
	alice := of(p.authority, "alice")

	const preface, settings = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "^\x00\x00.\x04\x00\x00\x00\x00\x00"
	get := func(path, more string) string {
		return "GET " + path + " HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n" + more + "\r\n"
	}
	asks := func(path string) [listeners]string {
		return [listeners]string{preface + http2(4, 0, 0, ""), get(path, ""), preface + http2(4, 0, 0, ""), get(path, "")}
	}
	large := preface + http2(4, 0, 0, "") + http2(1, 0, 1, "\x00\x01x\x7f\x81\x7f"+strings.Repeat("x", 16<<8)) + strings.Repeat(http2(9, 0, 1, strings.Repeat("x", 16<<10-1)), 8)
	refused := func(why string) [listeners]string {
		return [listeners]string{why, why, "first record|closed$", "first record|closed$"}
	}
	return []knock{
		{name: "a user's certificate", secure: alice, sent: asks("/metrics"), says: [listeners]string{settings, "^HTTP/1.1 200 (.|\n)*keyval_up", "first record|closed$", "first record|closed$"}},
		{name: "no certificate", secure: none, sent: asks("/metrics"), says: [listeners]string{"certificate required", "^HTTP/1.1 401 (.|\n)*next: curl", "first record|closed$", "first record|closed$"}},
		{name: "no certificate, for health", secure: none, sent: asks("/livez"), says: [listeners]string{"certificate required", "^HTTP/1.1 200 ", "first record|closed$", "first record|closed$"}},
		{name: "a foreign authority's", secure: of(foreign, "alice"), sent: asks("/livez"), says: refused("unknown certificate authority|bad certificate")},
		{name: "an expired one", secure: of(past, "carol"), sent: asks("/livez"), says: refused("expired certificate|bad certificate")},
		{name: "TLS 1.2", secure: with(of(p.authority, "alice"), func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), says: refused("protocol version not supported")},
		{name: "plain HTTP", sent: everywhere(get("/livez", "")), says: [listeners]string{"^closed$", "^HTTP/1.0 400 ", settings + "(.|\n)*closed$", "^HTTP/1.1 200 "}},
		{name: "garbage", sent: everywhere("\x00\x01\x02\xff\xfe SSH-2.0-x\r\n\r\n"), says: [listeners]string{"closed$|unexpected", "closed$|unexpected", "closed$", "^HTTP/1.1 400 "}},
		{name: "a handshake that never ends", sent: everywhere("\x16\x03\x01\x02\x00\x01\x00"), says: [listeners]string{"^closed$", "^closed$", "closed$", "closed$"}},
		{name: "a handshake by single bytes", sent: everywhere("\x16\x03\x01\x40\x00\x01\x00"), drips: true, says: [listeners]string{"closed$", "closed$", "closed$", "closed$|^HTTP/1.1 400"}},
		{name: "nothing", says: everywhere("closed$")},
		{name: "nothing behind a handshake", secure: alice, says: [listeners]string{"closed$", "^closed$", "first record|closed$", "first record|closed$"}},
		{name: "a request by single bytes", secure: alice, drips: true, sent: [listeners]string{preface, "GET /livez HTTP/1.1\r\nX: ", "", ""},
			says: [listeners]string{settings + "(.|\n)*closed$", "closed$", "first record|closed$", "first record|closed$"}},
		{name: "the same without TLS", drips: true, sent: [listeners]string{"", "", preface, "GET /livez HTTP/1.1\r\nX: "}, says: everywhere("closed$")},
		{name: "a large header", secure: alice, sent: [listeners]string{large, get("/livez", "X: "+strings.Repeat("x", 64<<10)+"\r\n"), "", ""},
			says: [listeners]string{settings + "(.|\n)*closed$", "^HTTP/1.1 431 |closed$", "first record|closed$", "first record|closed$"}},
		{name: "the same without TLS", sent: [listeners]string{large, large, large, get("/livez", "X: "+strings.Repeat("x", 64<<10)+"\r\n")},
			says: [listeners]string{"closed$", "closed$", "closed$", "^HTTP/1.1 431 |closed$"}},
	}
}

// TestEveryListener: what each listener of a real node says to whoever knocks, and that nobody who
// gets nowhere stays. The nodes go on, and serve whom they should.
func TestEveryListener(t *testing.T) {
	pages := freeAddresses(t, 2)
	p := secureCluster(t, 1, "--metrics-listen", pages[0])
	open := newCluster(t, freeAddresses(t, 1))
	open.endpoints, open.tuning = open.listens, []string{"--metrics-listen", pages[1]}
	open.found()
	p.leader()
	open.leader()
	addresses := [listeners]string{p.listens[0], pages[0], open.listens[0], pages[1]}
	before := [2]int{p.vitals(0).pid, open.vitals(0).pid}
	var all sync.WaitGroup
	for _, k := range p.knocks() {
		for i, address := range addresses {
			all.Go(func() {
				if got := k.at(address, k.sent[i]); !regexp.MustCompile("(?s)"+k.says[i]).MatchString(got) || strings.HasSuffix(got, "stands") {
					t.Errorf("%s at %s: %.300q, want %q", k.name, listenerNames[i], got, k.says[i])
				}
			})
		}
	}
	all.Wait()
	for i, of := range []*processes{p, open} {
		if _, err := of.connect(of.endpoints...).Put(context.Background(), []byte("k"), []byte("v")); err != nil {
			t.Error(err)
		}
		if now := of.vitals(0).pid; now != before[i] {
			t.Errorf("process %d was %d", now, before[i])
		}
	}
}

// TestPageAndItsKeys: roles count at the page as soon as they are applied, a denial is in the node's
// log, and new keys are used without a new start. What kvctl says to do works with curl.
func TestPageAndItsKeys(t *testing.T) {
	page := freeAddresses(t, 1)[0]
	p := secureCluster(t, 1, "--metrics-listen", page, "--profile", "--log-level", "info")
	p.leader()
	curl := func(user string, path string) (code, body string) {
		t.Helper()
		args := []string{"--silent", "--max-time", "20", "--cacert", filepath.Join(p.authority.Dir, "ca.crt"), "--write-out", "\n%{http_code}"}
		if user != "" {
			p.as(user)
			f := keys.FilesIn(p.authority.Of(p.ring.Principal()), transport.UserKey)
			args = append(args, "--cert", f.Cert, "--key", f.Key)
		}
		out, err := exec.CommandContext(t.Context(), "curl", append(args, "https://"+page+path)...).Output()
		if err != nil {
			t.Fatalf("curl as %q at %s: %v", user, path, err)
		}
		at := strings.LastIndexByte(string(out), '\n')
		return string(out[at+1:]), string(out[:at])
	}
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("there is no curl")
	}
	want := func(user, path, code, says string) {
		t.Helper()
		if got, body := curl(user, path); got != code || !strings.Contains(body, says) {
			t.Errorf("%q at %s: %s, want %s with %q: %s", user, path, got, code, says, body)
		}
	}
	want("", "/metrics", "401", "came without one")
	want("alice", "/metrics", "200", "keyval_up 1")
	want("alice", "/debug/pprof/cmdline", "404", "")
	want("alice", "/debug/pprof/heap?debug=1", "200", "heap profile")
	p.as("root")
	p.runs(0, "admin", "user", "add", "root", "--role", "admin")
	p.runs(0, "enabled", "auth", "enable", "--yes")
	want("alice", "/metrics", "403", "root: kvctl user grant alice viewer")
	want("", "/readyz", "200", "ok")
	p.as("root")
	p.runs(0, "viewer", "user", "add", "alice", "--role", "viewer", "--prefix", "none/")
	want("alice", "/metrics", "200", "keyval_up 1")
	want("alice", "/state", "200", `"node":"n1"`)
	want("alice", "/debug/pprof/heap", "403", "lacks the role operator for the cluster")
	p.as("root")
	p.runs(0, "none", "user", "revoke", "alice", "viewer", "--prefix", "none/")
	want("alice", "/state", "403", "alice lacks the role viewer")
	if log := p.running[0].log.String(); !strings.Contains(log, "a request was denied") || !strings.Contains(log, `request="GET /state from 127.0.0.1"`) {
		t.Errorf("the log does not tell of it:\n%s", log)
	}

	serial := func() string {
		c, err := tls.Dial("tcp", page, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return fmt.Sprint(c.ConnectionState().PeerCertificates[0].SerialNumber)
	}
	before := serial()
	own := p.keyArgs(0)[1]
	if err := os.Rename(own, own+".old"); err != nil {
		t.Fatal(err)
	}
	p.cert("create-node", "n1", "127.0.0.1")
	for deadline := time.Now().Add(20 * time.Second); serial() == before; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the new certificate is not used")
		}
	}
	want("root", "/metrics", "200", "keyval_up 1")
}

// TestPlainPageOfANodeWithKeys: --metrics-plain is for this machine alone, and shows no profiles.
func TestPlainPageOfANodeWithKeys(t *testing.T) {
	page := freeAddresses(t, 1)[0]
	p := secureCluster(t, 1, "--metrics-listen", page, "--metrics-plain")
	p.leader()
	if status, body := pageAt(t, page, "/metrics"); status != http.StatusOK {
		t.Errorf("status %d: %s", status, body)
	}
	p.kill(0)
	p.tuning = nil
	for says, flags := range map[string][]string{
		"--metrics-plain is for this machine":     {"--metrics-listen", "0.0.0.0:9100", "--metrics-plain"},
		"nobody can prove that he is one":         {"--metrics-listen", page, "--metrics-plain", "--profile"},
		"has no meaning without --metrics-listen": {"--metrics-plain"},
	} {
		if said := p.refused(0, flags...); !strings.Contains(said, says) {
			t.Errorf("%v: %s", flags, said)
		}
	}
}

// TestScrapesOfTheManual: Prometheus takes what docs/OPERATIONS.md says to write for it.
func TestScrapesOfTheManual(t *testing.T) {
	if _, err := exec.LookPath("promtool"); err != nil {
		t.Skip("there is no promtool")
	}
	manual, err := os.ReadFile("../../docs/OPERATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	config := regexp.MustCompile("(?s)```yaml\n(rule_files:.*?)```").FindSubmatch(manual)
	if config == nil {
		t.Fatal("it shows none")
	}
	a := keys.Authority{Dir: filepath.Join(t.TempDir(), "certs")}
	if _, err := a.Create(); err != nil {
		t.Fatal(err)
	}
	dir, _, err := a.Issue(transport.Principal{Kind: transport.UserKey, Name: "prometheus"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	rules, err := filepath.Abs("../../monitoring/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "prometheus.yml")
	text := strings.NewReplacer("[alerts.yaml]", "["+rules+"]", "/etc/prometheus/keyval", dir).Replace(string(config[1]))
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "promtool", "check", "config", file).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

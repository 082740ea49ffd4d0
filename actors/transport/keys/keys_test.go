package keys

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyval/actors/transport"
	"keyval/messages"
)

func nodeNamed(name string) transport.Principal {
	return transport.Principal{Kind: transport.NodeKey, Name: name}
}
func userNamed(name string) transport.Principal {
	return transport.Principal{Kind: transport.UserKey, Name: name}
}

func newAuthority(t *testing.T) Authority {
	t.Helper()
	a := Authority{Dir: filepath.Join(t.TempDir(), "certs")}
	if _, err := a.Create(); err != nil {
		t.Fatal(err)
	}
	return a
}

// ringOf makes the keys of a principal and loads them.
func ringOf(t *testing.T, a Authority, p transport.Principal, hosts ...string) *Ring {
	t.Helper()
	dir, _, err := a.Issue(p, hosts)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Load(FilesIn(dir, p.Kind))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// meet shakes hands on loopback, and returns whom each side takes the other for.
func meet(server, client *tls.Config) (atServer, atClient transport.Principal, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return atServer, atClient, err
	}
	defer l.Close()
	b, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return atServer, atClient, err
	}
	defer b.Close()
	a, err := l.Accept()
	if err != nil {
		return atServer, atClient, err
	}
	defer a.Close()
	accepted := make(chan error, 1)
	s, c := tls.Server(a, server), tls.Client(b, client)
	go func() {
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte{1})
		} else {
			a.Close()
		}
		accepted <- err
	}()
	err = c.Handshake()
	if err == nil {
		_, err = c.Read(make([]byte, 1)) // with TLS 1.3 the server's verdict comes after the handshake
	} else {
		b.Close()
	}
	if other := <-accepted; other != nil {
		return transport.Principal{}, transport.Principal{}, errors.Join(other, err)
	}
	return PrincipalOf(s.ConnectionState().PeerCertificates), PrincipalOf(c.ConnectionState().PeerCertificates), err
}

func TestHandshakes(t *testing.T) {
	a, foreign := newAuthority(t), newAuthority(t)
	n1 := ringOf(t, a, nodeNamed("n1"), "127.0.0.1", "n1.example")
	anywhere := ringOf(t, a, nodeNamed("n2"))
	alice := ringOf(t, a, userNamed("alice"))
	past := Authority{Dir: a.Dir, Now: func() time.Time { return time.Now().Add(-leafLife - time.Hour) }}
	dir, _, err := past.Issue(userNamed("late"), nil)
	if err != nil {
		t.Fatal(err)
	}
	late, err := tls.LoadX509KeyPair(FilesIn(dir, transport.UserKey).Cert, FilesIn(dir, transport.UserKey).Key)
	if err != nil {
		t.Fatal(err)
	}
	with := func(own ...tls.Certificate) *tls.Config {
		return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &append(own, tls.Certificate{})[0], nil // whatever the far side says it takes
		}}
	}
	nobody, err := Load(Files{CA: FilesIn(a.Of(nodeNamed("n1")), transport.NodeKey).CA})
	if err != nil {
		t.Fatal(err)
	}
	if p := nobody.Principal(); p.Kind != transport.Nobody {
		t.Errorf("who has no certificate is %v", p)
	}
	eve := ringOf(t, foreign, userNamed("eve")).current.Load().own
	both := serving(t, a, "mallory")
	old := with(alice.current.Load().own)
	old.MaxVersion = tls.VersionTLS12
	for _, test := range []struct {
		name           string
		server, client *tls.Config
		refused        string // empty: both know each other
	}{
		{"user", n1.Server(shut), alice.Client("127.0.0.1"), ""},
		{"node", n1.Server(shut), anywhere.Client("n1.example"), ""},
		{"a node that names no host is good at any", anywhere.Server(shut), alice.Client("10.1.2.3"), ""},
		{"another host", n1.Server(shut), alice.Client("10.1.2.3"), "10.1.2.3"},
		{"no certificate", n1.Server(shut), with(), "certificate"},
		{"foreign authority", n1.Server(shut), with(eve), "unknown authority"},
		{"expired", n1.Server(shut), with(late), "expired"},
		{"a user's in a node's place", &tls.Config{Certificates: []tls.Certificate{alice.current.Load().own}, ClientAuth: tls.RequireAnyClientCert}, alice.Client("127.0.0.1"), "incompatible key usage"},
		{"a node of a foreign authority", ringOf(t, foreign, nodeNamed("n1"), "127.0.0.1").Server(shut), alice.Client("127.0.0.1"), "unknown authority"},
		{"TLS 1.2", n1.Server(shut), old, "version"},
		{"nobody, the door being shut", n1.Server(shut), nobody.Client("127.0.0.1"), "certificate"},
		{"nobody", n1.Server(open), nobody.Client("127.0.0.1"), ""},
		{"user, the door being open", n1.Server(open), alice.Client("127.0.0.1"), ""},
		{"foreign authority, the door being open", n1.Server(open), with(eve), "unknown authority"},
		{"expired, the door being open", n1.Server(open), with(late), "expired"},
		{"nobody, to a foreign authority", ringOf(t, foreign, nodeNamed("n2"), "127.0.0.1").Server(open), nobody.Client("127.0.0.1"), "unknown authority"},
		{"nobody, to a user", &tls.Config{Certificates: []tls.Certificate{both}}, nobody.Client("127.0.0.1"), "not of a node"},
	} {
		t.Run(test.name, func(t *testing.T) {
			atServer, atClient, err := meet(test.server, test.client)
			switch {
			case test.refused == "" && (err != nil || (atServer.Kind == transport.Keyless) != strings.HasPrefix(test.name, "nobody") || atClient.Kind != transport.NodeKey):
				t.Errorf("%v, %v and %v", err, atServer, atClient)
			case test.refused != "" && (err == nil || !strings.Contains(err.Error(), test.refused)):
				t.Errorf("%v, want %q", err, test.refused)
			}
		})
	}
}

// TestPeersHaveAnAuthorityOfTheirOwn: where nodes have, theirs makes no user, and that of users no node.
func TestPeersHaveAnAuthorityOfTheirOwn(t *testing.T) {
	users, nodes := newAuthority(t), newAuthority(t)
	node := func(name string) *Ring {
		t.Helper()
		files, peers := FilesIn(ringOf(t, users, nodeNamed(name)).dir(), transport.NodeKey), FilesIn(ringOf(t, nodes, nodeNamed(name)).dir(), transport.NodeKey)
		files.Peers = &peers
		r, err := Load(files)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	n1, n2 := node("n1"), node("n2")
	forged := ringOf(t, users, nodeNamed("n3"))
	both := FilesIn(forged.dir(), transport.NodeKey)
	both.Peers = &Files{CA: n1.files.Peers.CA, Cert: both.Cert, Key: both.Key}
	if _, err := Load(both); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("a node of the users' authority is loaded for other nodes: %v", err)
	}
	two := n1.files
	two.Peers = n2.files.Peers
	if _, err := Load(two); err == nil || !strings.Contains(err.Error(), "and") || messages.CodeOf(err) != messages.Code_INVALID {
		t.Errorf("a node of two names: %v", err)
	}
	as := func(r *Ring, server string) *tls.Config {
		c := r.Client("127.0.0.1").Clone()
		c.ServerName, c.VerifyConnection = server, nil
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c.Certificates[0], nil } // whatever it takes
		return c
	}
	for _, test := range []struct {
		name    string
		client  *tls.Config
		refused string
	}{
		{"a node", n2.Client("127.0.0.1"), ""},
		{"a user", ringOf(t, users, userNamed("alice")).Client("127.0.0.1"), ""},
		{"a node that the users' authority made", as(forged, serverOfNodes), "unknown authority"},
		{"the same, as a user comes", as(forged, "127.0.0.1"), "bad certificate"},
		{"a user whom the nodes' authority made", as(ringOf(t, nodes, userNamed("eve")), "127.0.0.1"), "unknown authority"},
		{"the same, as a node comes", as(ringOf(t, nodes, userNamed("mallory")), serverOfNodes), "bad certificate"},
	} {
		_, _, err := meet(n1.Server(shut), test.client)
		if (err == nil) != (test.refused == "") || err != nil && !strings.Contains(err.Error(), test.refused) {
			t.Errorf("%s: %v, want %q", test.name, err, test.refused)
		}
	}
	if k := n1.Told(false); len(k.Authorities) != 2 || k.ExpiresMs == 0 {
		t.Errorf("%v", k)
	}
	if err := n1.Stale([]*x509.Certificate{forged.current.Load().leaf}, false); err == nil {
		t.Error("a node of the users' authority stays connected")
	}
	if err := n1.Stale([]*x509.Certificate{n2.current.Load().peers.leaf}, false); err != nil {
		t.Error(err)
	}
}

// dir is where the own keys are.
func (r *Ring) dir() string { return filepath.Dir(r.files.Cert) }

func TestNothingIsOverwritten(t *testing.T) {
	a := newAuthority(t)
	if _, err := a.Create(); messages.CodeOf(err) != messages.Code_CONFLICT {
		t.Error(err)
	}
	ringOf(t, a, nodeNamed("n1"))
	if _, _, err := a.Issue(nodeNamed("n1"), nil); messages.CodeOf(err) != messages.Code_CONFLICT {
		t.Error(err)
	}
	if _, _, err := a.Issue(nodeNamed("../n1"), nil); messages.CodeOf(err) != messages.Code_INVALID {
		t.Error(err)
	}
	if _, _, err := (Authority{Dir: t.TempDir()}).Issue(nodeNamed("n1"), nil); messages.CodeOf(err) != messages.Code_NOT_FOUND {
		t.Error(err)
	}
	for _, file := range []string{a.path(fileCAKey), filepath.Join(a.Of(nodeNamed("n1")), "node.key")} {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	a := newAuthority(t)
	ringOf(t, a, nodeNamed("n1"))
	ringOf(t, newAuthority(t), nodeNamed("n1"))
	good := FilesIn(a.Of(nodeNamed("n1")), transport.NodeKey)
	other := newAuthority(t)
	ringOf(t, other, nodeNamed("n1"))
	foreign := FilesIn(other.Of(nodeNamed("n1")), transport.NodeKey)
	open := filepath.Join(t.TempDir(), "open.key")
	text, _ := os.ReadFile(good.Key)
	if err := os.WriteFile(open, text, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]Files{
		"no such file":      {CA: good.CA, Cert: good.Cert + "x", Key: good.Key},
		"unknown authority": {CA: foreign.CA, Cert: good.Cert, Key: good.Key},
		"not match":         {CA: good.CA, Cert: good.Cert, Key: foreign.Key},
		"chmod 600":         {CA: good.CA, Cert: good.Cert, Key: open},
		"no certificate":    {CA: good.Key, Cert: good.Cert, Key: good.Key},
		"authority's":       {CA: good.Cert, Cert: good.Cert, Key: good.Key},
	} {
		if _, err := Load(f); messages.CodeOf(err) != messages.Code_INVALID || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want %q", err, name)
		}
	}
}

// TestRotation: in each stage, and while some have what a step made and some do not yet,
// everybody reaches everybody; in the end the old authority is no more.
func TestRotation(t *testing.T) {
	a := newAuthority(t)
	n1, n2, alice := ringOf(t, a, nodeNamed("n1"), "127.0.0.1"), ringOf(t, a, nodeNamed("n2")), ringOf(t, a, userNamed("alice"))
	leaf := n1.current.Load().leaf
	all := []*Ring{n1, n2, alice}
	talk := func(stage string) {
		t.Helper()
		for _, server := range []*Ring{n1, n2} {
			for _, client := range all {
				if _, _, err := meet(server.Server(shut), client.Client("127.0.0.1")); err != nil {
					t.Errorf("%s: %v to %v: %v", stage, client.Principal(), server.Principal(), err)
				}
			}
		}
	}
	for _, step := range []struct {
		name string
		take func() error
		then Stage
	}{{"both", a.TrustBoth, Both}, {"leaves", a.SignAnew, Leaves}, {"new", a.TrustNew, Settled}} {
		if err := step.take(); err != nil {
			t.Fatal(step.name, err)
		}
		if is, err := a.Stage(); err != nil || is != step.then {
			t.Fatalf("after %s: %v, %v", step.name, is, err)
		}
		for _, r := range all {
			talk(step.name)
			if changed, err := r.Reload(true); err != nil || !changed {
				t.Fatal(changed, err)
			}
		}
		talk(step.name)
		if err := step.take(); step.name != "new" && messages.CodeOf(err) != messages.Code_CONFLICT {
			t.Errorf("%s again: %v", step.name, err)
		}
		entries, err := a.Inspect()
		for _, e := range entries {
			if e.Problem != "" {
				t.Errorf("after %s: %+v", step.name, e)
			}
		}
		if err != nil || len(entries) < 4 {
			t.Error(entries, err)
		}
	}
	if err := n1.Stale([]*x509.Certificate{leaf}, false); err == nil {
		t.Error("the old leaf is still good")
	}
	if hosts := Hosts(n1.current.Load().leaf); len(hosts) != 1 || hosts[0] != "127.0.0.1" {
		t.Error(hosts)
	}
}

// TestReloadTakesWhatIsGoodOnly: what cannot be loaded, or names another, leaves things as
// they were, and is told.
func TestReloadTakesWhatIsGoodOnly(t *testing.T) {
	a := newAuthority(t)
	n1 := ringOf(t, a, nodeNamed("n1"))
	if changed, err := n1.Reload(false); changed || err != nil {
		t.Fatal(changed, err)
	}
	text, _ := os.ReadFile(n1.files.Cert)
	if err := os.WriteFile(n1.files.Cert, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if changed, err := n1.Reload(false); !changed || err == nil {
		t.Fatal(changed, err)
	}
	if changed, err := n1.Reload(false); changed || err != nil {
		t.Fatal("it is told again", changed, err)
	}
	if k := n1.Told(false); k.Problem == "" || k.Certificate != "keyval://node/n1" {
		t.Error(k)
	}
	if err := os.WriteFile(n1.files.Cert, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if changed, err := n1.Reload(false); !changed || err != nil {
		t.Fatal(changed, err)
	}
	if k := n1.Told(false); k.Problem != "" {
		t.Error(k)
	}
	ringOf(t, a, nodeNamed("n2"))
	n1.files = FilesIn(a.Of(nodeNamed("n2")), transport.NodeKey)
	if _, err := n1.Reload(false); err == nil || !strings.Contains(err.Error(), "that of node n2") {
		t.Error(err)
	}
}

func TestInspectTellsWhatExpires(t *testing.T) {
	a := newAuthority(t)
	ringOf(t, a, nodeNamed("n1"))
	for after, want := range map[time.Duration]string{0: "", leafLife - 20*24*time.Hour: "expires in 20 days", leafLife + time.Hour: "expired"} {
		entries, err := Authority{Dir: a.Of(nodeNamed("n1")), Now: func() time.Time { return time.Now().Add(after + time.Minute) }}.Inspect()
		if after == leafLife-20*24*time.Hour {
			want = "expires in 19 days"
		}
		if err != nil || len(entries) != 2 || !strings.Contains(entries[1].Problem, want) || (want == "") != (entries[1].Problem == "") {
			t.Errorf("%v: %+v, %v", after, entries, err)
		}
	}
}

// Whoever has no certificate is taken by a node whose door is open.
func shut() bool { return false }
func open() bool { return true }

// serving is a user's certificate of an authority that lets everybody serve, as KeyVal's own does not.
func serving(t *testing.T, a Authority, user string) tls.Certificate {
	t.Helper()
	signer, by, err := a.signer()
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: user}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, signer, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
}

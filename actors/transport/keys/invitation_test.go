package keys

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"keyval/actors/transport"
	"keyval/messages"
)

func inviteIn(t *testing.T, a Authority, name string, hosts ...string) (JoinToken, []byte) {
	t.Helper()
	token, sealed, _, err := a.Invite(name, hosts)
	if err != nil {
		t.Fatal(err)
	}
	return token, sealed
}

func TestJoinTokens(t *testing.T) {
	a := newAuthority(t)
	const name = "a-node-of-a-name-that-no-chance-writes"
	token, _ := inviteIn(t, a, name, "127.0.0.1")
	text := token.Text()
	if got, err := ParseJoinToken(" " + text + "\r\n"); err != nil || got != token {
		t.Fatalf("%v, %v", got, err)
	}
	for i := range len(text) { // whatever letter is another
		for _, letter := range []byte{'A', 'b', '-', '.', ' ', 0xff} {
			if altered := []byte(text); altered[i] != letter {
				altered[i] = letter
				if _, err := ParseJoinToken(string(altered)); err == nil {
					t.Fatalf("letter %d is altered, and nobody notices", i)
				}
			}
		}
	}
	for want, crafted := range map[string][]string{
		"this is no token to join with":             {"", "x", "eyJhbGciOi.abc.def", strings.ToUpper(text), "keyval-login-1." + text},
		"the token is of version \"keyval-join-2\"": {strings.Replace(text, "join-1", "join-2", 1)},
		"the token was cut off or altered": {text[:len(text)-1], text[:20], "keyval-join-1.", "keyval-join-1", text + "AAAA", text + "=", text + text,
			joinTokenVersion + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 1<<16))},
		"the token was altered: its sum does not fit": {joinTokenVersion + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 84)), strings.Replace(text, ".", ".\n", 1)},
	} {
		for _, text := range crafted {
			if _, err := ParseJoinToken(text); err == nil || !strings.HasPrefix(err.Message, want) || err.Hint == "" {
				t.Errorf("%.60q: %v, want %q", text, err, want)
			}
		}
	}
	if strings.Contains(text, name) || token.Proof() == nil || bytes.Equal(token.Proof(), token.derive("seal")) || bytes.Equal(token.Proof(), token.ProofHash()) {
		t.Error("what proves is what seals, or what the cluster knows")
	}
}

func FuzzJoinTokens(f *testing.F) {
	f.Add(JoinToken{}.Text())
	f.Add("keyval-join-1.AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		if token, err := ParseJoinToken(text); err == nil && token.Text() != strings.TrimSpace(text) {
			t.Errorf("%q is read as %q", text, token.Text())
		}
	})
}

// TestSealedKeys: they open with their token, and with no other, and not altered.
func TestSealedKeys(t *testing.T) {
	a := newAuthority(t)
	token, sealed := inviteIn(t, a, "n4", "127.0.0.1", "n4.example")
	k, err := token.Accept(sealed, "n4")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, []byte("PRIVATE KEY")) || bytes.Contains(sealed, k.Key) {
		t.Error("the key can be read")
	}
	again, other := inviteIn(t, a, "n4", "n4.example", "127.0.0.1") // the same files, another token
	if k2, err := again.Accept(other, "n4"); err != nil || !proto.Equal(k, k2) {
		t.Errorf("%v", err)
	}
	elsewhere := newAuthority(t)
	foreign, theirs := inviteIn(t, elsewhere, "n4", "127.0.0.1")
	forged, err := token.Seal(mustOpen(t, foreign, theirs))
	if err != nil {
		t.Fatal(err)
	}
	user, _, err := a.Issue(transport.Principal{Kind: transport.UserKey, Name: "n4"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	asUser := &messages.InvitedKeys{Ca: k.Ca}
	f := FilesIn(user, transport.UserKey)
	asUser.Certificate, _ = os.ReadFile(f.Cert)
	asUser.Key, _ = os.ReadFile(f.Key)
	mixed := proto.Clone(k).(*messages.InvitedKeys)
	mixed.Key = asUser.Key
	seal := func(k *messages.InvitedKeys) []byte {
		b, err := token.Seal(k)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, c := range map[string]struct {
		token  JoinToken
		sealed []byte
		node   string
	}{
		"another token":        {again, sealed, "n4"},
		"nothing":              {token, nil, "n4"},
		"cut off":              {token, sealed[:len(sealed)-1], "n4"},
		"another node":         {token, sealed, "n5"},
		"another authority":    {token, forged, "n4"},
		"a user's":             {token, seal(asUser), "n4"},
		"the key of another":   {token, seal(mixed), "n4"},
		"no files":             {token, seal(&messages.InvitedKeys{}), "n4"},
		"nothing is trusted":   {token, seal(&messages.InvitedKeys{Certificate: k.Certificate, Key: k.Key}), "n4"},
		"an altered bit":       {token, append(bytes.Clone(sealed[:40]), append([]byte{sealed[40] ^ 1}, sealed[41:]...)...), "n4"},
		"an altered nonce":     {token, append([]byte{sealed[0] ^ 1}, sealed[1:]...), "n4"},
		"of another id":        {JoinToken{ID: again.ID, Pin: token.Pin, secret: token.secret}, sealed, "n4"},
		"of another pinned CA": {JoinToken{ID: token.ID, Pin: foreign.Pin, secret: token.secret}, sealed, "n4"},
	} {
		if _, err := c.token.Accept(c.sealed, c.node); messages.CodeOf(err) != messages.Code_DAMAGED || errors.Unwrap(err) != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, _, err := a.Invite("n4", []string{"10.0.0.4"}); messages.CodeOf(err) != messages.Code_CONFLICT { // of other hosts
		t.Errorf("%v", err)
	}
	if _, _, _, err := a.Invite("n 4", nil); messages.CodeOf(err) != messages.Code_INVALID {
		t.Errorf("%v", err)
	}
	if _, _, _, err := (Authority{Dir: t.TempDir()}).Invite("n4", nil); messages.CodeOf(err) != messages.Code_NOT_FOUND {
		t.Errorf("%v", err)
	}
}

func mustOpen(t *testing.T, token JoinToken, sealed []byte) *messages.InvitedKeys {
	t.Helper()
	k, err := token.Open(sealed)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestInstalledKeys: they are put where nothing is, and a start that was broken off goes on.
func TestInstalledKeys(t *testing.T) {
	a := newAuthority(t)
	token, sealed := inviteIn(t, a, "n4", "127.0.0.1")
	k := mustOpen(t, token, sealed)
	dir := filepath.Join(t.TempDir(), "deep", "certs")
	if vacant, err := Vacant(dir); !vacant || err != nil {
		t.Fatalf("%v, %v", vacant, err)
	}
	taker, err := Taker(dir, token.ID[:])
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Taker(dir, token.ID[:]); err != nil || !bytes.Equal(taker, again) {
		t.Errorf("it is another taker that goes on: %v", err)
	}
	if other, err := Taker(dir, make([]byte, 16)); err != nil || bytes.Equal(taker, other) {
		t.Errorf("another invitation has the same taker: %v", err)
	}
	f := FilesIn(dir, transport.NodeKey)
	for _, was := range []struct{ file, text string }{{f.CA, string(k.Ca)}, {f.Key, string(k.Key)}, {f.Key + ".new", "half"}} { // it ended amid
		if err := os.WriteFile(was.file, []byte(was.text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if vacant, err := Vacant(dir); !vacant || err != nil {
		t.Fatalf("%v, %v", vacant, err)
	}
	if err := Install(dir, k); err != nil {
		t.Fatal(err)
	}
	Taken(dir)
	ring, err := Load(f)
	if err != nil || ring.Principal().Name != "n4" {
		t.Fatalf("%v", err)
	}
	for file, mode := range map[string]os.FileMode{dir: 0o700 | os.ModeDir, f.Key: 0o600} {
		if info, err := os.Stat(file); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	if left, _ := filepath.Glob(dir + "/*"); len(left) != 3 {
		t.Errorf("%v are there", left)
	}
	if vacant, err := Vacant(dir); vacant || err != nil {
		t.Errorf("%v, %v", vacant, err)
	}
	part := t.TempDir()
	if err := os.WriteFile(filepath.Join(part, fileCA), []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Vacant(part); messages.CodeOf(err) != messages.Code_CONFLICT {
		t.Errorf("%v", err)
	}
	if err := Install(part, k); messages.CodeOf(err) != messages.Code_CONFLICT {
		t.Errorf("%v", err)
	}
	if text, _ := os.ReadFile(filepath.Join(part, fileCA)); string(text) != "theirs" {
		t.Error("it was overwritten")
	}
}

// TestPinned: who has a token tells nothing to anybody but a node of the token's authority.
func TestPinned(t *testing.T) {
	a, elsewhere := newAuthority(t), newAuthority(t)
	token, _ := inviteIn(t, a, "n4", "127.0.0.1")
	issue := func(a Authority, kind transport.PrincipalKind, name string, hosts ...string) *Ring {
		dir, _, err := a.Issue(transport.Principal{Kind: kind, Name: name}, hosts)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Load(FilesIn(dir, kind))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	served := func(r *Ring) *tls.Config {
		c := r.current.Load().server.Clone()
		c.ClientAuth = tls.VerifyClientCertIfGiven
		return c
	}
	good := served(issue(a, transport.NodeKey, "n1", "127.0.0.1"))
	alone := good.Clone() // it does not show its authority
	alone.Certificates = []tls.Certificate{{Certificate: good.Certificates[0].Certificate[:1], PrivateKey: good.Certificates[0].PrivateKey}}
	shows := served(issue(elsewhere, transport.NodeKey, "n1", "127.0.0.1")) // it shows the right authority, which has not signed it
	shows.Certificates[0].Certificate = append(shows.Certificates[0].Certificate[:1:1], good.Certificates[0].Certificate[1])
	for name, c := range map[string]struct {
		server *tls.Config
		want   string // empty: it is believed
	}{
		"a node":                 {good, ""},
		"a node of any host":     {served(issue(a, transport.NodeKey, "n2")), ""},
		"a node elsewhere":       {served(issue(a, transport.NodeKey, "n3", "10.0.0.3")), "10.0.0.3"},
		"a user":                 {served(issue(a, transport.UserKey, "alice")), "signed"},
		"another authority":      {served(issue(elsewhere, transport.NodeKey, "n4", "127.0.0.1")), "its authority is another"},
		"it hides its authority": {alone, "its authority is another"},
		"it shows another's":     {shows, "signed"},
	} {
		conn := make(chan error, 1)
		client, server := net.Pipe()
		var heard bytes.Buffer
		go func() {
			s := tls.Server(server, c.server)
			err := s.Handshake()
			if err == nil {
				_, err = io.CopyN(&heard, s, 6)
			}
			server.Close()
			conn <- err
		}()
		s := tls.Client(client, Pinned(token).Client("127.0.0.1"))
		_, err := s.Write([]byte("secret"))
		client.Close()
		<-conn
		if c.want == "" && (err != nil || heard.String() != "secret") || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || heard.Len() > 0) {
			t.Errorf("%s: %v, and it hears %q", name, err, heard.String())
		}
	}
	if p := Pinned(token).Principal(); p.Kind != transport.Nobody {
		t.Errorf("it comes as %v", p)
	}
}

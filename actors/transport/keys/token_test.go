package keys

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"keyval/actors/transport"
	"keyval/messages"
)

var aCluster = make([]byte, messages.ClusterIDSize)

func certificates(r *Ring) (all []string) {
	for _, raw := range r.current.Load().own.Certificate {
		all = append(all, base64.StdEncoding.EncodeToString(raw))
	}
	return all
}

// crafted is a token as somebody would make it himself.
func crafted(t *testing.T, method jwt.SigningMethod, key any, chain any, said jwt.Claims) string {
	t.Helper()
	token := jwt.NewWithClaims(method, said)
	if chain != nil {
		token.Header["x5c"] = chain
	}
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestTokensTellTheirTime: a token counts whole seconds. It is good for as long as was asked for, until
// when its owner is told, and never longer than any may be.
func TestTokensTellTheirTime(t *testing.T) {
	n1 := ringOf(t, newAuthority(t), nodeNamed("n1"))
	begun := time.Now().Truncate(time.Second).Add(900 * time.Millisecond)
	n1.now = func() time.Time { return begun }
	for _, ttl := range []time.Duration{transport.TokenLifeMin, transport.TokenLife, transport.TokenLifeMax} {
		token, told, err := n1.Sign("alice", aCluster, 7, ttl)
		if err != nil {
			t.Fatal(err)
		}
		claims, _, err := n1.Prove(token)
		switch {
		case err != nil:
			t.Fatal(err)
		case !claims.Expires.Equal(told):
			t.Errorf("for %v: it is good until %v, and its owner is told %v", ttl, claims.Expires, told)
		case claims.Expires.Sub(claims.Issued) > transport.TokenLifeMax:
			t.Errorf("for %v: no node would take it: it is good for %v", ttl, claims.Expires.Sub(claims.Issued))
		case told.Sub(begun) < min(ttl, transport.TokenLifeMax-time.Second):
			t.Errorf("for %v: it is good for %v", ttl, told.Sub(begun))
		}
	}
}

// TestTokens: what a node signs every other node of its authority can read; what anybody else
// makes nobody does.
func TestTokens(t *testing.T) {
	a, foreign := newAuthority(t), newAuthority(t)
	n1, n2, alice, stranger := ringOf(t, a, nodeNamed("n1")), ringOf(t, a, nodeNamed("n2")), ringOf(t, a, userNamed("alice")), ringOf(t, foreign, nodeNamed("n1"))
	past := Authority{Dir: a.Dir, Now: func() time.Time { return time.Now().Add(-leafLife + time.Hour) }}
	soon := ringOf(t, past, nodeNamed("soon"))

	token, expires, err := n1.Sign("alice", aCluster, 7, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	claims, chain, err := n2.Prove(token)
	if err != nil || claims.User != "alice" || claims.Node != "n1" || claims.Password != 7 || string(claims.Cluster) != string(aCluster) ||
		!claims.Expires.Equal(expires) || len(chain) != 1 {
		t.Fatalf("%+v, %v", claims, err)
	}
	if len(token) > transport.TokenSizeMax/4 {
		t.Errorf("a token of %d bytes", len(token))
	}
	if short, expires, err := soon.Sign("alice", aCluster, 7, 24*time.Hour); err != nil || expires.After(soon.current.Load().leaf.NotAfter) {
		t.Errorf("a token that outlives its node's certificate, until %v: %s, %v", expires, short, err)
	}
	if _, _, err := (*Ring)(nil).Sign("alice", aCluster, 7, time.Hour); messages.CodeOf(err) != messages.Code_NOT_ALLOWED {
		t.Errorf("a node without keys: %v", err)
	}

	own := func(r *Ring) *ecdsa.PrivateKey { return r.current.Load().own.PrivateKey.(*ecdsa.PrivateKey) }
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	said := func(change func(map[string]any)) jwt.MapClaims {
		c := map[string]any{"sub": "root", "iss": hex.EncodeToString(aCluster), "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "pwv": 7}
		if change != nil {
			change(c)
		}
		return c
	}
	es := jwt.SigningMethodES256
	public, err := x509.MarshalPKIXPublicKey(own(n1).Public())
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(token, ".")
	altered, err := json.Marshal(said(nil))
	if err != nil {
		t.Fatal(err)
	}
	head, tail := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","x5c":["`+certificates(n1)[0]+`"]}`)), base64.RawURLEncoding.EncodeToString(altered)
	for name, c := range map[string]struct{ token, refused string }{
		"as a node makes it":        {crafted(t, es, own(n1), certificates(n1), said(nil)), ""},
		"alg none":                  {crafted(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, certificates(n1), said(nil)), "signing method none"},
		"HS256 with the public key": {crafted(t, jwt.SigningMethodHS256, public, certificates(n1), said(nil)), "signing method HS256"},
		"another curve":             {crafted(t, jwt.SigningMethodES384, p384, certificates(n1), said(nil)), "signing method ES384"},
		"a foreign authority":       {crafted(t, es, own(stranger), certificates(stranger), said(nil)), "unknown authority"},
		"another's certificate":     {crafted(t, es, own(stranger), certificates(n1), said(nil)), "signature is invalid"},
		"a user that signs":         {crafted(t, es, own(alice), certificates(alice), said(nil)), "not that of a node"},
		"a user with a node's":      {crafted(t, es, own(alice), append(certificates(alice), certificates(n1)...), said(nil)), "not that of a node"},
		"the node behind the user":  {crafted(t, es, own(alice), append(certificates(n1), certificates(alice)...), said(nil)), "signature is invalid"},
		"no certificate":            {crafted(t, es, own(n1), nil, said(nil)), "0 certificates"},
		"a certificate as text":     {crafted(t, es, own(n1), certificates(n1)[0], said(nil)), "0 certificates"},
		"many certificates":         {crafted(t, es, own(n1), strings.Split(strings.Repeat("x ", chainMax), " "), said(nil)), "5 certificates"},
		"certificates of rubbish":   {crafted(t, es, own(n1), []any{3, "AAAA"}, said(nil)), "x509"},
		"altered claims":            {parts[0] + "." + tail + "." + parts[2], "signature is invalid"},
		"altered head":              {head + "." + parts[1] + "." + parts[2], "signature is invalid"},
		"no signature":              {parts[0] + "." + parts[1] + ".", "signature is invalid"},
		"two parts":                 {parts[0] + "." + parts[1], "number of segments"},
		"more than a token is":      {strings.Repeat("x", 1<<20), "1048576 bytes"},
		"nothing":                   {"", "number of segments"},
		"no expiry":                 {crafted(t, es, own(n1), certificates(n1), said(func(c map[string]any) { delete(c, "exp") })), "for which time"},
		"no beginning":              {crafted(t, es, own(n1), certificates(n1), said(func(c map[string]any) { delete(c, "iat") })), "for which time"},
		"no cluster":                {crafted(t, es, own(n1), certificates(n1), said(func(c map[string]any) { c["iss"] = "KeyVal" })), "no cluster"},
		"no user":                   {crafted(t, es, own(n1), certificates(n1), said(func(c map[string]any) { c["sub"] = "a b" })), "no user"},
		"an expiry that is no time": {crafted(t, es, own(n1), certificates(n1), said(func(c map[string]any) { c["exp"] = "never" })), "number"},
		"a version that is none":    {crafted(t, es, own(n1), certificates(n1), said(func(c map[string]any) { c["pwv"] = -1 })), "pwv"},
	} {
		claims, _, err := n2.Prove(c.token)
		if (err == nil) != (c.refused == "") || err != nil && (!strings.Contains(err.Error(), c.refused) || claims != nil) {
			t.Errorf("%s: %v, %v", name, claims, err)
		}
	}
	n2.now = func() time.Time { return time.Now().Add(leafLife + time.Hour) }
	if _, _, err := n2.Prove(token); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("a token whose node's certificate has expired: %v", err)
	}
}

// TestTokenFile: a client without a certificate shows what its file holds when it dials, and takes
// no file that others can read, or that holds something else.
func TestTokenFile(t *testing.T) {
	a := newAuthority(t)
	n1 := ringOf(t, a, nodeNamed("n1"))
	sign := func(user string) string {
		token, _, err := n1.Sign(user, aCluster, 1, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	file := filepath.Join(t.TempDir(), "new", "token")
	r, err := Load(Files{CA: FilesIn(a.Of(nodeNamed("n1")), transport.NodeKey).CA, Token: file})
	if by, _ := r.Shows(); err != nil || r.Token() != "" || by != "" {
		t.Fatalf("without a file: %v, %q", err, by)
	}
	for _, user := range []string{"alice", "bobby-tables"} {
		token := sign(user)
		if err := WriteToken(file, token); err != nil {
			t.Fatal(err)
		}
		if r.Token() != token {
			t.Errorf("another token is shown than that of %s", user)
		}
		if by, expires := r.Shows(); by != "token" || time.Until(expires) > time.Hour+time.Second { // of whole seconds
			t.Errorf("%s until %v is shown", by, expires)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	held := r.Token()
	for name, spoil := range map[string]func() error{
		"others can read it": func() error { return os.Chmod(file, 0o644) },
		"no token":           func() error { return errors.Join(os.Chmod(file, 0o600), os.WriteFile(file, []byte("secret"), 0o600)) },
		"much too large":     func() error { return os.WriteFile(file, make([]byte, 1<<20), 0o600) },
	} {
		if err := WriteToken(file, held); err != nil {
			t.Fatal(err)
		}
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadToken(file); err == nil {
			t.Errorf("%s: it is read", name)
		}
		if r.Token() != held {
			t.Errorf("%s: another one is shown", name)
		}
	}
}

// TestTokenFileOfTwo: scripts log in side by side. Each file that is seen is whole, and nothing is left over.
func TestTokenFileOfTwo(t *testing.T) {
	n1 := ringOf(t, newAuthority(t), nodeNamed("n1"))
	token, _, err := n1.Sign("alice", aCluster, 1, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "kvctl")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 10 {
				if err := WriteToken(filepath.Join(dir, "login"), token); err != nil {
					t.Error(err)
				}
				if read, err := ReadToken(filepath.Join(dir, "login")); read != token {
					t.Errorf("%q, %v", read, err)
				}
			}
		})
	}
	all.Wait()
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
}

// TestTokensOfTwoAuthorities: where nodes have an authority of their own among themselves, the one of
// users says who is one, and its node signs; a new authority of users ends all tokens of the old one.
func TestTokensOfTwoAuthorities(t *testing.T) {
	users, nodes, next := newAuthority(t), newAuthority(t), newAuthority(t)
	files := func(a Authority, name string) Files {
		dir, _, err := a.Issue(nodeNamed(name), nil)
		if err != nil {
			t.Fatal(err)
		}
		return FilesIn(dir, transport.NodeKey)
	}
	load := func(front, back Files) *Ring {
		front.Peers = &back
		r, err := Load(front)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	back := files(nodes, "n1")
	n1, n2 := load(files(users, "n1"), back), load(files(users, "n2"), files(nodes, "n2"))
	token, _, err := n1.Sign("alice", aCluster, 7, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	_, chain, err := n2.Prove(token)
	if err != nil || n2.Stale(chain, true) != nil {
		t.Errorf("%v, %v", err, n2.Stale(chain, true))
	}
	alone, err := Load(back) // who has the keys of nodes' links alone
	if err != nil {
		t.Fatal(err)
	}
	forged, _, err := alone.Sign("root", aCluster, 7, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if claims, _, err := n2.Prove(forged); err == nil {
		t.Errorf("the authority of nodes made user %s", claims.User)
	}
	fresh := load(files(next, "n3"), files(nodes, "n3"))
	if _, _, err := fresh.Prove(token); err == nil || fresh.Stale(chain, true) == nil {
		t.Errorf("after another authority of users: %v", err)
	}
}

// FuzzToken: whatever is shown for a token, it is refused, or was signed by a node's key.
func FuzzToken(f *testing.F) {
	a := Authority{Dir: filepath.Join(f.TempDir(), "certs")}
	if _, err := a.Create(); err != nil {
		f.Fatal(err)
	}
	dir, _, err := a.Issue(nodeNamed("n1"), nil)
	if err != nil {
		f.Fatal(err)
	}
	r, err := Load(FilesIn(dir, transport.NodeKey))
	if err != nil {
		f.Fatal(err)
	}
	good, _, err := r.Sign("alice", aCluster, 7, time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	parts := strings.Split(good, ".")
	for _, seed := range []string{good, "", "..", parts[0] + ".." + parts[2], "eyJhbGciOiJub25lIn0.e30.", strings.ToLower(good), good + "="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		claims, chain, err := r.Prove(token)
		if (err == nil) != (claims != nil) || err == nil && (token != good || len(chain) == 0) {
			t.Errorf("%q: %+v, %v", token, claims, err)
		}
		_, _ = Glance(token)
	})
}

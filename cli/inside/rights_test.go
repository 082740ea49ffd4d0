package inside

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyval/actors/transport"
	"keyval/actors/transport/grpc"
	"keyval/actors/transport/keys"
	"keyval/messages"
)

func grants(name string, roles ...messages.UserRole) *messages.User {
	u := &messages.User{Name: name}
	for _, r := range roles {
		u.Grants = append(u.Grants, &messages.Grant{Role: r, Prefix: []byte("k/")})
	}
	return u
}

// TestJudge: who is let in, by what he has proved and what the node knows.
func TestJudge(t *testing.T) {
	off := transport.KnownRights(&messages.Auth{Users: []*messages.User{grants("vera", messages.UserRole_VIEWER)}})
	on := transport.KnownRights(&messages.Auth{Enabled: true, Users: []*messages.User{
		grants("adam", messages.UserRole_ADMIN), grants("olga", messages.UserRole_OPERATOR), grants("vera", messages.UserRole_VIEWER), grants("wim", messages.UserRole_WRITER),
	}})
	user := func(name string) transport.Principal { return transport.Principal{Kind: transport.UserKey, Name: name} }
	n1, nobody, none := transport.Principal{Kind: transport.NodeKey, Name: "n1"}, transport.Principal{Kind: transport.Unnamed}, transport.Principal{}
	for _, row := range []struct {
		name           string
		plain          bool // the node has no keys
		from           transport.Principal
		rights         transport.Rights
		looks, profile int
		says           string // to who wants a profile
	}{
		{name: "no certificate", from: none, rights: off, looks: 401, profile: 401, says: "the request came without one"},
		{name: "no certificate, auth enabled", from: none, rights: on, looks: 401, profile: 401, says: "the request came without one"},
		{name: "no certificate, nothing known", from: none, looks: 401, profile: 401, says: "the request came without one"},
		{name: "two names", from: nobody, rights: off, looks: 403, profile: 403, says: "neither a node nor a user"},
		{name: "any user", from: user("bob"), rights: off},
		{name: "a node", from: n1, rights: off},
		{name: "any user, nothing known", from: user("bob"), looks: 503, profile: 503, says: "does not know yet who may do what"},
		{name: "a user without a role", from: user("bob"), rights: on, looks: 403, profile: 403, says: "user bob lacks the role operator for the cluster"},
		{name: "a viewer", from: user("vera"), rights: on, profile: 403, says: "user vera lacks the role operator"},
		{name: "a writer", from: user("wim"), rights: on, profile: 403, says: "user wim lacks the role operator"},
		{name: "an operator", from: user("olga"), rights: on},
		{name: "an admin", from: user("adam"), rights: on},
		{name: "a node, auth enabled", from: n1, rights: on, looks: 403, profile: 403, says: "the certificate of node n1 is no user's"},
		{name: "without keys", plain: true, from: none, rights: off},
		{name: "without keys, nothing known", plain: true, from: none},
		{name: "without keys, auth enabled", plain: true, from: none, rights: on, looks: 403, profile: 403, says: "has no role here"},
	} {
		looks, _ := judge(!row.plain, row.from, row.rights, toLook)
		profile, why := judge(!row.plain, row.from, row.rights, toProfile)
		if looks != row.looks || profile != row.profile {
			t.Errorf("%s: looks %d, a profile %d", row.name, looks, profile)
		}
		if (why == nil) != (row.says == "") || why != nil && (!strings.Contains(why.Message, row.says) || why.Hint == "") {
			t.Errorf("%s: it says %v", row.name, why)
		}
	}
}

// secured is a page over TLS, of node n1, and who comes as whom.
type secured struct {
	t         *testing.T
	authority keys.Authority
	at        string
}

func serveSecured(t *testing.T, n Node, o Options) *secured {
	t.Helper()
	s := &secured{t: t, authority: keys.Authority{Dir: filepath.Join(t.TempDir(), "certs")}}
	if _, err := s.authority.Create(); err != nil {
		t.Fatal(err)
	}
	own := s.issue(transport.Principal{Kind: transport.NodeKey, Name: "n1"})
	var err error
	if o.Keys, err = keys.Load(keys.FilesIn(own, transport.NodeKey)); err != nil {
		t.Fatal(err)
	}
	_, at := serving(t, n, o)
	s.at = strings.TrimPrefix(at, "http://")
	return s
}

func (s *secured) issue(p transport.Principal) (dir string) {
	s.t.Helper()
	dir, _, err := s.authority.Issue(p, []string{"127.0.0.1"})
	if err != nil {
		s.t.Fatal(err)
	}
	return dir
}

// client comes as a user, or without a certificate if that has no name.
func (s *secured) client(user string) *http.Client {
	s.t.Helper()
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	pem, err := os.ReadFile(filepath.Join(s.authority.Dir, "ca.crt"))
	if err != nil || !config.RootCAs.AppendCertsFromPEM(pem) {
		s.t.Fatal(err)
	}
	if user != "" {
		f := keys.FilesIn(s.issue(transport.Principal{Kind: transport.UserKey, Name: user}), transport.UserKey)
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			s.t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{TLSClientConfig: config}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

func (s *secured) get(c *http.Client, path string) (int, string) {
	s.t.Helper()
	r, err := c.Get("https://" + s.at + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

// TestPagesWithKeys: health is for everybody, and the rest for whom the node's own rights let in,
// by what it has applied when he asks. A refusal for want of a role is told to the node, without
// anything that the client could choose but his name. A node that hangs is still looked into.
func TestPagesWithKeys(t *testing.T) {
	n := healthy()
	s := serveSecured(t, n, Options{Version: "v1", Profile: true})
	nobody, vera := s.client(""), s.client("vera")
	open, guarded := []string{"/livez", "/readyz?verbose", "/version"}, []string{"/", "/state", "/metrics", "/debug/pprof/"}
	want := func(who string, c *http.Client, paths []string, status int, says string) {
		t.Helper()
		for _, path := range paths {
			if got, body := s.get(c, path); got != status || !strings.Contains(body, says) {
				t.Errorf("%s at %s: status %d, want %d with %q: %s", who, path, got, status, says, body)
			}
		}
	}
	want("nobody", nobody, open, 200, "")
	want("nobody", nobody, guarded, 401, "next: curl --cacert")
	want("vera", vera, append(open, guarded...), 200, "")
	if len(n.denied) > 0 {
		t.Errorf("it tells of %v", n.denied)
	}
	n.has(&messages.Auth{Enabled: true, Users: []*messages.User{grants("adam", messages.UserRole_ADMIN)}}, nil)
	want("vera", vera, open, 200, "")
	want("vera", vera, guarded[:3], 403, "user vera lacks the role viewer or any other\nnext: ask who can give it, adam: kvctl user grant vera viewer")
	want("vera", vera, []string{"/debug/pprof/heap"}, 403, "lacks the role operator")
	if len(n.denied) != 4 || n.denied[3].Principal != "vera" || n.denied[3].Request != "GET /debug/pprof/ from 127.0.0.1" {
		t.Errorf("it tells of %v", n.denied)
	}
	n.has(&messages.Auth{Enabled: true, Users: []*messages.User{grants("vera", messages.UserRole_OPERATOR)}}, nil)
	want("vera", vera, guarded, 200, "")
	n.has(nil, errors.New("it hangs"))
	want("vera", vera, guarded, 200, "")
}

// TestPagesWithATokenOfALogin: a token is as good as its user's certificate, as long as it is good.
func TestPagesWithATokenOfALogin(t *testing.T) {
	n := healthy()
	vera := grants("vera", messages.UserRole_VIEWER)
	vera.Password = &messages.Password{Version: 3}
	auth := &messages.Auth{Version: 3, Enabled: true, Users: []*messages.User{vera}}
	n.has(auth, nil)
	s := serveSecured(t, n, Options{Profile: true})
	ring, err := keys.Load(keys.FilesIn(s.authority.Of(transport.Principal{Kind: transport.NodeKey, Name: "n1"}), transport.NodeKey))
	if err != nil {
		t.Fatal(err)
	}
	sign := func(user string, password uint64, ttl time.Duration) string {
		token, _, err := ring.Sign(user, clusterID, password, ttl)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	nobody := s.client("")
	for _, row := range []struct {
		name, shown, path string
		status            int
		says              string
	}{
		{"good", "Bearer " + sign("vera", 3, time.Hour), "/metrics", 200, "keyval_up 1"},
		{"good, for a profile", "Bearer " + sign("vera", 3, time.Hour), "/debug/pprof/heap", 403, "user vera lacks the role operator"},
		{"of an older password", "Bearer " + sign("vera", 2, time.Hour), "/metrics", 401, "next: log in again: kvctl login vera"},
		{"expired", "Bearer " + sign("vera", 3, -time.Hour), "/metrics", 401, "expired at"},
		{"of nobody", "Bearer " + sign("bob", 0, time.Hour), "/metrics", 401, "there is no user bob"},
		{"made up", "Bearer x.y.z", "/metrics", 401, "the token is not good"},
		{"good, by a scheme in small letters", "bearer  " + sign("vera", 3, time.Hour), "/metrics", 200, "keyval_up 1"},
		{"good, without a scheme", sign("vera", 3, time.Hour), "/metrics", 401, "the request came without one"},
		{"none, but a name and a password", "Basic dmVyYTp4", "/metrics", 401, "the request came without one"},
		{"left out", "Bearer ", "/metrics", 401, "the request came without one"},
		{"made up, for health", "Bearer x.y.z", "/livez", 200, "ok"},
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.at+row.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", row.shown)
		answer, err := nobody.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != row.status || !strings.Contains(string(body), row.says) {
			t.Errorf("a token that is %s: status %d, want %d with %q: %s", row.name, answer.StatusCode, row.status, row.says, body)
		}
	}
}

// TestPlainWithKeys: whoever says so has the page of a node with keys by HTTP, for all.
func TestPlainWithKeys(t *testing.T) {
	n := healthy()
	n.has(&messages.Auth{Enabled: true}, nil)
	s := serveSecured(t, n, Options{Plain: true})
	if status, body := get(t, "http://"+s.at+"/metrics"); status != 200 {
		t.Errorf("status %d: %s", status, body)
	}
}

// TestWhoeverWaitsMakesRoom: more connections than there may be, which say nothing, too little or
// never end their handshake, do not shut out who asks, from the same host; a request that is being
// answered outlives them.
func TestWhoeverWaitsMakesRoom(t *testing.T) {
	n := healthy()
	s := serveSecured(t, n, Options{Profile: true})
	nobody, vera := s.client(""), s.client("vera")
	profiled := make(chan string, 1)
	go func() {
		status, body := s.get(vera, "/debug/pprof/profile?seconds=1")
		profiled <- fmt.Sprint(status, " ", len(body) > 0)
	}()
	for n.asked() == 0 { // then the request is being answered
		time.Sleep(time.Millisecond)
	}
	for round := range 3 * visitorsMax {
		c, err := net.Dial("tcp", s.at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if round%2 == 0 {
			_, _ = c.Write([]byte("\x16\x03\x01"))
		}
		if round%16 == 15 {
			if status, body := s.get(nobody, "/livez"); status != 200 {
				t.Fatalf("status %d: %s", status, body)
			}
			nobody.CloseIdleConnections()
		}
	}
	if got := <-profiled; got != "200 true" {
		t.Errorf("the request amid them: %s", got)
	}
}

// TestBoundsOfARequest: one that is too large, or never whole, is ended; so is what is no TLS.
func TestBoundsOfARequest(t *testing.T) {
	s := serveSecured(t, healthy(), Options{})
	config := s.client("").Transport.(*http.Transport).TLSClientConfig
	for _, row := range []struct {
		name, sent, says string
		secured, drips   bool
	}{
		{name: "a large header", secured: true, sent: "GET /livez HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", says: "431"},
		{name: "a header that goes on", secured: true, drips: true, sent: "GET /livez HTTP/1.1\r\nHost: x\r\n"},
		{name: "no TLS", sent: "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", says: "400"},
		{name: "a handshake that never ends", sent: "\x16\x03\x01\x02\x00"},
		{name: "nothing"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			c, err := net.Dial("tcp", s.at)
			if err == nil && row.secured {
				of := config.Clone()
				of.ServerName = "127.0.0.1"
				c = tls.Client(c, of)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(began.Add(4 * requestMax))
			go func() {
				_, err := io.WriteString(c, row.sent)
				for n := 0; row.drips && err == nil; n++ {
					_, err = fmt.Fprintf(c, "X-%d: x\r\n", n)
					time.Sleep(200 * time.Millisecond)
				}
			}()
			answer, err := io.ReadAll(bufio.NewReader(c))
			var late net.Error
			if errors.As(err, &late) && late.Timeout() || !strings.Contains(string(answer), row.says) {
				t.Errorf("after %v: %q, %v", time.Since(began), answer, err)
			}
		})
	}
}

// TestComplaintsAreFew: whoever makes connections fail as fast as he can does not fill the log.
func TestComplaintsAreFew(t *testing.T) {
	var log bytes.Buffer
	c := complaints{grpc.NewLimited(slog.New(slog.NewTextHandler(&log, nil)), "")}
	for range 1000 {
		_, _ = c.Write([]byte("http: TLS handshake error from 10.0.0.9:1: EOF"))
	}
	if n := strings.Count(log.String(), "TLS handshake error"); n == 0 || n > 100 {
		t.Errorf("%d lines", n)
	}
	if n, err := (complaints{}).Write([]byte("x")); n != 1 || err != nil {
		t.Errorf("without a logger: %d, %v", n, err)
	}
}

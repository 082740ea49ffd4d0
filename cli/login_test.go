package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyval/actors/auth"
	"keyval/actors/client"
	"keyval/actors/transport"
	"keyval/actors/transport/keys"
	"keyval/messages"
)

// TestLogin: what kvctl login asks for and keeps, and what it says where that comes to nothing.
func TestLogin(t *testing.T) {
	a := keys.Authority{Dir: filepath.Join(t.TempDir(), "certs")}
	if _, err := a.Create(); err != nil {
		t.Fatal(err)
	}
	dir, _, err := a.Issue(transport.Principal{Kind: transport.NodeKey, Name: "n1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	node, err := keys.Load(keys.FilesIn(dir, transport.NodeKey))
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(a.Dir, "ca.crt")
	home := t.TempDir()
	f := newFake()
	f.principal = "alice"
	kvctl := func(typed string, args ...string) outcome {
		return run{
			cluster: f, stdin: strings.NewReader(typed), env: map[string]string{"HOME": home},
			login: func(_ context.Context, o client.LoginOptions) (client.LoginResult, error) {
				if o.User != "alice" || o.Password != "three words only" || o.Keys.Principal().Kind != transport.Nobody {
					return client.LoginResult{}, messages.Errorf(messages.Code_NOT_ALLOWED, "user %s cannot log in with this password", o.User).WithHint("see how it is spelt")
				}
				token, expires, err := node.Sign(o.User, make([]byte, messages.ClusterIDSize), 3, max(o.TTL, time.Hour))
				return client.LoginResult{Token: token, Expires: expires}, err
			},
		}.kvctl(t, args...)
	}
	for _, step := range []struct {
		typed, line string
		code        int
		want        string
	}{
		{"", "login alice", exitUsage, "--cacert FILE"},
		{"", "login alice --cacert CA", exitUsage, "without a terminal"},
		{"", "login alice --cacert CA --password-file -", exitUsage, "0 bytes"},
		{strings.Repeat("x", 73), "login alice --cacert CA --password-file -", exitUsage, "72 at most"},
		{"", "login alice --cacert CA --password-file /none", exitUsage, "/none"},
		{"", "login a/b --cacert CA --password-file -", exitUsage, "a/b"},
		{"", "login alice --cacert CA --ttl 721h", exitUsage, "720h0m0s at most"},
		{"", "login alice --cacert /none --password-file -", exitUsage, "/none"},
		{"wrong", "login alice --cacert CA --password-file -", exitNotAllowed, "cannot log in with this password"},
		{"", "logout --cacert CA", exitNotFound, "nobody is logged in"},
		{"three words only\r\nand more", "login alice --cacert CA --password-file -", 0, "user alice is logged in until"},
		{"", "whoami --cacert CA", 0, "token"},
		{"", "whoami --cacert CA --json", 0, `"by":"token"`},
		{"", "whoami", 0, "nothing"},
		{"three words only", "login alice --cacert CA --password-file - --json --ttl 2h", 0, `"user":"alice"`},
		{"", "logout --cacert CA", 0, "user alice is logged out"},
		{"", "logout", exitUsage, "--login-file FILE"},
		{"three words only", "login alice --cacert CA --password-file - --login-file HOME/other", 0, "logged in"},
		{"", "logout --cacert CA", exitNotFound, "nobody is logged in"},
		{"", "logout --login-file HOME/other --json", 0, `"user":"alice"`},
	} {
		got := kvctl(step.typed, strings.Fields(strings.NewReplacer("CA", ca, "HOME", home).Replace(step.line))...)
		if said := strings.NewReplacer("\n", "", " ", "").Replace(got.out + got.stderr); got.code != step.code || !strings.Contains(said, strings.ReplaceAll(step.want, " ", "")) {
			t.Errorf("kvctl %s: code %d, %s%s", step.line, got.code, got.out, got.stderr)
		}
		if got.code != 0 && !strings.Contains(got.stderr, "next: ") && !strings.Contains(got.stderr, "--help") {
			t.Errorf("kvctl %s: no next step: %s", step.line, got.stderr)
		}
		if strings.Contains(got.out+got.stderr, "three words") {
			t.Errorf("kvctl %s shows the password", step.line)
		}
	}
	if left, err := os.ReadDir(filepath.Join(home, ".config", "kvctl")); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// TestPasswd: a password comes to the cluster as its hash.
func TestPasswd(t *testing.T) {
	f := newFake()
	f.principal = "root"
	for _, step := range []struct {
		typed, line string
		code        int
		want        string
	}{
		{"", "user add alice", 0, "none"},
		{"", "user passwd bob --password-file -", exitNotFound, "no user"},
		{"short", "user passwd alice --password-file -", exitUsage, "needs 8 at least"},
		{"", "user passwd alice --password-file x --remove", exitUsage, "exclude each other"},
		{"three words only\n", "user passwd alice --password-file -", 0, "set"},
		{"", "user show alice --json", 0, `"password":true`},
		{"", "user list -o simple", 0, "set"},
	} {
		got := run{cluster: f, stdin: strings.NewReader(step.typed)}.kvctl(t, strings.Fields(step.line)...)
		if said := strings.NewReplacer("\n", "", " ", "").Replace(got.out + got.stderr); got.code != step.code || !strings.Contains(said, strings.ReplaceAll(step.want, " ", "")) {
			t.Errorf("kvctl %s: code %d, %s%s", step.line, got.code, got.out, got.stderr)
		}
		if strings.Contains(got.out+got.stderr, "$2a$") {
			t.Errorf("kvctl %s shows a hash", step.line)
		}
	}
	p := auth.Find(f.auth, "alice").Password
	if auth.CheckHash(p.GetHash()) != nil || !auth.Fits(p.GetHash(), "three words only") {
		t.Errorf("the cluster has %q", p.GetHash())
	}
	if got := (run{cluster: f}).kvctl(t, "user", "passwd", "alice", "--remove"); got.code != 0 || auth.Find(f.auth, "alice").Password != nil {
		t.Errorf("%+v", got)
	}
}

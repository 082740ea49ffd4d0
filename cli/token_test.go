package cli

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyval/actors/auth"
	"keyval/actors/transport/keys"
	"keyval/messages"
)

// TestTokens: tokens to join with, as an operator makes, lists and removes them.
func TestTokens(t *testing.T) {
	dir := t.TempDir()
	ca, elsewhere := filepath.Join(dir, "certs"), filepath.Join(dir, "elsewhere")
	for _, line := range []string{"create-ca --dir " + ca, "create-client root --dir " + ca, "create-ca --dir " + elsewhere} {
		if got := (run{}).kvctl(t, append([]string{"cert"}, strings.Fields(line)...)...); got.code != 0 {
			t.Fatal(got.stderr)
		}
	}
	f := newFake()
	f.principal = "root"
	certs := " --certs-dir " + filepath.Join(ca, "users", "root")
	steps := func(list ...[3]string) (last outcome) {
		t.Helper()
		for _, step := range list {
			last = run{cluster: f}.kvctl(t, strings.Fields(step[0])...)
			if code := map[string]int{"ok": 0, "usage": exitUsage, "not found": exitNotFound, "not allowed": exitNotAllowed, "conflict": exitConflict}[step[1]]; last.code != code || !strings.Contains(strings.ReplaceAll(last.out+last.stderr, "\": ", "\":"), step[2]) {
				t.Errorf("kvctl %s: code %d, and not %d with %q: %s%s", step[0], last.code, code, step[2], last.out, last.stderr)
			}
		}
		return last
	}
	made := steps(
		[3]string{"cluster token create n4 10.0.0.4", "usage", "without keys a node needs none"},
		[3]string{"cluster token create n4 --dir " + ca + certs, "usage", "HOST"},
		[3]string{"cluster token create n/4 10.0.0.4 --dir " + ca + certs, "usage", "letters, digits"},
		[3]string{"cluster token create n4 10.0.0.4 --ttl 169h --dir " + ca + certs, "usage", "from 1s to 168h"},
		[3]string{"cluster token create n4 10.0.0.4 --ttl 1ms --dir " + ca + certs, "usage", "from 1s to 168h"},
		[3]string{"cluster token create n4 10.0.0.4 --dir " + elsewhere + certs, "usage", "is not the one that this cluster trusts"},
		[3]string{"cluster token create n4 10.0.0.4 --dir " + dir + certs, "not found", "create-ca"},
		[3]string{"cluster token list" + certs, "ok", "ID"},
		[3]string{"cluster token list --json" + certs, "ok", "[]"},
		[3]string{"cluster token create n4 10.0.0.4 --ttl 2h --dir " + ca + certs, "ok", "serve --name n4 --listen 10.0.0.4:7001"},
	)
	token, refused := keys.ParseJoinToken(made.out) // and nothing else
	if refused != nil {
		t.Fatalf("%q: %v", made.out, refused)
	}
	i := auth.FindInvitation(f.invitations, token.ID[:])
	if _, err := token.Accept(i.GetSealed(), "n4"); err != nil || i.By != "root" || strings.Contains(made.stderr, made.out[20:40]) {
		t.Errorf("%v, %v", err, i)
	}
	again := steps( // it is for the same keys
		[3]string{"cluster token create n4 10.0.0.5 --dir " + ca + certs, "conflict", "there already"},
		[3]string{"cluster token create n4 10.0.0.4 --json --dir " + ca + certs, "ok", `"state":"open"`},
	)
	var row invitationJSON
	if err := json.Unmarshal([]byte(again.out), &row); err != nil || row.Token == "" || !strings.Contains(row.Command, "--join-token-file TOKEN") || row.ID == "" {
		t.Errorf("%v: %s", err, again.out)
	}
	for _, i := range f.invitations.All[:1] {
		i.Taker, i.TakenAtMs, i.TakenFrom, i.Sealed = make([]byte, 32), 1000, "10.0.0.4", nil
	}
	first := steps(
		[3]string{"cluster token list" + certs, "ok", "used 1970-01-01T00:00:01Z from 10.0.0.4"},
		[3]string{"cluster token list -o simple" + certs, "ok", "\topen"},
		[3]string{"cluster token list --json" + certs, "ok", `"taken_from":"10.0.0.4"`},
	)
	if strings.Contains(first.out, "proof") || strings.Contains(first.out, "sealed") {
		t.Error(first.out)
	}
	steps(
		[3]string{"cluster token remove" + certs, "usage", "ID"},
		[3]string{"cluster token remove zz" + certs, "not found", "no token of id"},
		[3]string{"cluster token remove " + row.ID[:9] + " --json" + certs, "ok", `"removed":true`},
		[3]string{"cluster token remove " + row.ID + certs, "not found", "no token of id"},
		[3]string{"cluster token remove " + hexOf(token.ID[:]) + certs, "ok", "its keys were fetched at 1970-01-01T00:00:01Z from 10.0.0.4"},
	)
	f.auth = &messages.Auth{Version: 1, Enabled: true, Users: []*messages.User{{Name: "root", Grants: []*messages.Grant{{Role: messages.UserRole_VIEWER}}}}}
	steps(
		[3]string{"cluster token list" + certs, "not allowed", "lacks the role operator"},
		[3]string{"cluster token create n5 10.0.0.5 --dir " + ca + certs, "not allowed", "lacks the role operator"},
	)
	if _, err := os.Stat(filepath.Join(ca, "nodes", "n5")); err == nil {
		t.Error("who may not has made keys")
	}
}

func hexOf(id []byte) string { return invitationOf(&messages.Invitation{Id: id}, time.Time{}).ID }

// TestTokensOfServe: what serve says of a token before anybody is asked.
func TestTokensOfServe(t *testing.T) {
	dir := t.TempDir()
	full, part, file := filepath.Join(dir, "full"), filepath.Join(dir, "part"), filepath.Join(dir, "token")
	for _, f := range []string{filepath.Join(full, "node.crt"), filepath.Join(part, "ca.crt"), file} {
		if err := os.MkdirAll(filepath.Dir(f), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, []byte("keyval-join-1.x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bare := filepath.Join(dir, "bare")
	if err := errors.Join(os.WriteFile(bare, []byte("keyval-join-1.x"), 0o600), os.Chmod(bare, 0o644)); err != nil { // whatever the umask
		t.Fatal(err)
	}
	const joins = "serve --data d --name n4 --listen 127.0.0.1:1 --join 127.0.0.1:1 "
	for line, want := range map[string]string{
		joins + "--join-token-file " + file:                                                 "needs to know where the keys are to be",
		joins + "--certs-dir " + full + " --join-token-file " + file:                        "has keys already: the token is not needed",
		joins + "--certs-dir " + part + " --join-token-file " + file:                        "ca.crt is there already",
		joins + "--certs-dir " + dir + "/new --join-token-file " + file:                     "was cut off or altered",
		joins + "--certs-dir " + dir + "/new --join-token-file " + dir + "/none":            "no such file",
		joins + "--certs-dir " + dir + "/new --join-token-file " + bare:                     "others on this machine may read " + bare,
		joins + "--certs-dir " + dir + "/new --join-token-file -":                           "this is no token to join with",
		"serve --data d --name n4 --certs-dir " + dir + "/new --join-token-file " + file:    "add --name NAME and --join",
		"serve --data d --join h:1 --certs-dir " + dir + "/new --join-token-file " + file:   "add --name NAME and --join",
		"serve --data d --name n4 --join h --certs-dir " + dir + "/new --join-token-file -": "--join:",
	} {
		got := run{stdin: strings.NewReader("nothing")}.kvctl(t, strings.Fields(line)...)
		if got.code == 0 || !strings.Contains(got.stderr, want) {
			t.Errorf("kvctl %s: %d, %s; want %q", line, got.code, got.stderr, want)
		}
		if _, err := os.Stat(dir + "/new"); err == nil {
			t.Fatalf("kvctl %s has made a directory", line)
		}
	}
}

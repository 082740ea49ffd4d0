package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"keyval/actors/client"
	"keyval/actors/transport/keys"
	"keyval/messages"
)

// logins are what somebody needs who comes with a password: the authority's certificate, a file
// for his token, and files of passwords.
type logins struct {
	*processes
	dir string
}

func (p *processes) withoutCertificate() *logins {
	l := &logins{p, p.t.TempDir()}
	text, err := os.ReadFile(filepath.Join(p.authority.Dir, "ca.crt"))
	if err == nil {
		err = os.WriteFile(l.file("ca.crt"), text, 0o644)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return l
}

func (l *logins) file(name string) string { return filepath.Join(l.dir, name) }

// secret is a file with a password.
func (l *logins) secret(password string) string {
	l.t.Helper()
	file := l.file("password")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		l.t.Fatal(err)
	}
	return file
}

// run runs kvctl with the authority's certificate alone, and the token of a user.
func (l *logins) run(user string, args ...string) (out string, code int) {
	l.t.Helper()
	ring := l.ring
	l.ring = nil
	c := l.command(append(args, "--certs-dir", l.dir, "--login-file", l.file("token-"+user))...)
	l.ring = ring
	text, err := c.CombinedOutput()
	if err != nil && c.ProcessState == nil {
		l.t.Fatal(err)
	}
	return string(text), c.ProcessState.ExitCode()
}

func (l *logins) wants(user string, code int, says string, args ...string) {
	l.t.Helper()
	if out, got := l.run(user, args...); got != code || !strings.Contains(out, says) {
		l.t.Errorf("%s: kvctl %v: exit code %d, and not %d with %q: %s", user, args, got, code, says, out)
	}
}

// eventually waits until a command ends with a code: what was applied on one node others lag behind.
func (l *logins) eventually(user string, code int, says string, args ...string) {
	l.t.Helper()
	out, got := "", -1
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
		if out, got = l.run(user, args...); got == code && strings.Contains(out, says) {
			return
		}
	}
	l.t.Errorf("%s: kvctl %v: exit code %d, and not %d with %q: %s", user, args, got, code, says, out)
}

// TestADayWithPasswords: users who have no certificate, from their first password to their removal.
func TestADayWithPasswords(t *testing.T) {
	p := secureCluster(t, 3, "--log-level", "debug")
	p.leader()
	p.as("root")
	l := p.withoutCertificate()
	const password, second = "three words only", "and a second one"
	p.runs(0, "admin", "user", "add", "root", "--role", "admin")
	p.runs(0, "none", "user", "add", "alice", "--role", "writer", "--prefix", "a/")
	p.runs(2, "needs 8 at least", "user", "passwd", "alice", "--password-file", l.secret("short"))
	p.runs(2, "without a terminal", "user", "passwd", "alice")
	p.runs(3, "no user", "user", "passwd", "carol", "--password-file", l.secret(password))
	p.runs(0, "set", "user", "passwd", "alice", "--password-file", l.secret(password))
	l.wants("alice", 4, "nobody is logged in", "put", "a/1", "x")
	l.wants("alice", 4, "takes nobody without a certificate now", "login", "alice", "--password-file", l.secret(password))
	p.runs(0, "enabled", "auth", "enable", "--yes")

	l.eventually("alice", 0, "user alice is logged in until", "login", "alice", "--password-file", l.secret(password))
	if info, err := os.Stat(l.file("token-alice")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the token's file: %v, %v", info, err)
	}
	l.wants("alice", 0, "token", "whoami")
	l.wants("alice", 0, `"user":"alice","by":"token"`, "whoami", "-o", "jsonl")
	l.wants("alice", 0, "", "put", "a/1", "x")
	l.wants("alice", 0, "x", "get", "a/1")
	l.wants("alice", 4, "lacks the role viewer", "get", "b/1")
	l.wants("alice", 4, "lacks the role admin", "user", "add", "mallory", "--role", "admin")
	l.wants("alice", 4, "lacks the role operator", "compact", "--yes")
	for name, login := range map[string][]string{"another password": {"alice", "three words onlx"}, "no such user": {"carol", password}, "no password": {"root", password}} {
		if out, code := l.run("nobody", "login", login[0], "--password-file", l.secret(login[1])); code != 4 || !strings.Contains(out, "user "+login[0]+" cannot log in with this password") {
			t.Errorf("%s: %d, %s", name, code, out)
		}
	}
	for _, told := range toldOf(p) { // a hash, a password that was tried, or a token
		if found := regexp.MustCompile(`\$2[aby]\$|three words onl|eyJ[\w-]{20}`).FindString(told); found != "" {
			t.Errorf("%q is told: %s", found, told)
		}
	}

	standing := l.standing("alice")
	stands := func(when string, good bool) {
		t.Helper()
		ctx, done := context.WithTimeout(context.Background(), 10*time.Second)
		defer done()
		var err error
		for {
			_, err = standing.Put(ctx, []byte("a/standing"), []byte("x"))
			if good && err == nil || !good && messages.CodeOf(err) == messages.Code_NOT_ALLOWED || ctx.Err() != nil {
				break // of what was under way when the connection ended the outcome is not known
			}
			time.Sleep(50 * time.Millisecond)
		}
		if (err == nil) != good || !good && messages.CodeOf(err) != messages.Code_NOT_ALLOWED {
			t.Errorf("%s: %v", when, err)
		}
	}
	stands("logged in", true)
	l.wants("alice", 0, "set", "user", "passwd", "alice", "--password-file", l.secret(second))
	stands("the password is another", false)
	standing.Close()
	l.eventually("alice", 4, "was changed since he got his token", "get", "a/1")
	l.eventually("alice", 4, "cannot log in", "login", "alice", "--password-file", l.secret(password)) // at each node, once it has applied the other
	l.eventually("alice", 0, "", "login", "alice", "--ttl", "4s", "--password-file", l.secret(second))
	standing = l.standing("alice")
	stands("logged in for 4 s", true)
	stands("expired", false)
	standing.Close()
	l.wants("alice", 4, "the token of user alice expired at", "get", "a/1")
	l.wants("alice", 4, "login alice", "get", "a/1")
	l.wants("alice", 0, "", "login", "alice", "--password-file", l.secret(second))
	p.runs(0, "removed", "user", "remove", "alice", "--yes")
	l.eventually("alice", 5, "nobody without a certificate", "get", "a/1", "--timeout", "2s") // nobody has a password any more, so the door is shut
	l.wants("alice", 0, "logged out", "logout")
	l.wants("alice", 3, "nobody is logged in", "logout")
}

// toldOf is all that an admin can be shown of users with passwords, and what the nodes' logs hold.
func toldOf(p *processes) (all []string) {
	p.t.Helper()
	for _, args := range [][]string{{"user", "list", "--json"}, {"user", "show", "alice", "--json"}, {"auth", "status", "--json"}, {"status", "--json"}, {"ops", "ls", "--json"}} {
		text, said, code := p.kvctl(args...)
		if code != 0 {
			p.t.Errorf("kvctl %v: %d: %s", args, code, said)
		}
		all = append(all, text, said)
	}
	for _, node := range p.running {
		all = append(all, node.log.String())
	}
	return all
}

// standing is a client that comes by a user's token, and stays.
func (l *logins) standing(user string) *client.Client {
	l.t.Helper()
	ring, err := keys.Load(keys.Files{CA: l.file("ca.crt"), Token: l.file("token-" + user)})
	if err != nil {
		l.t.Fatal(err)
	}
	c, err := client.Connect(context.Background(), client.Options{Endpoints: l.endpoints, Keys: ring, Timeout: 2 * time.Second})
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// TestGuessing: passwords are guessed at every node by many at once, while the cluster is written
// to. Few are compared, nobody comes in, and every write has its answer. How many writes there are beside
// them depends on the machine, which the guessers share: that is told and not judged.
func TestGuessing(t *testing.T) {
	p := secureCluster(t, 3)
	p.leader()
	p.as("root")
	l := p.withoutCertificate()
	p.runs(0, "admin", "user", "add", "root", "--role", "admin")
	p.runs(0, "", "user", "add", "alice", "--role", "writer")
	p.runs(0, "set", "user", "passwd", "alice", "--password-file", l.secret("three words only"))
	p.runs(0, "enabled", "auth", "enable", "--yes")
	l.eventually("alice", 0, "", "login", "alice", "--password-file", l.secret("three words only"))
	store := l.standing("alice")
	defer store.Close()
	put := func(during time.Duration) (n int) {
		for until := time.Now().Add(during); time.Now().Before(until); n++ {
			ctx, done := context.WithTimeout(context.Background(), 20*time.Second) // what a machine under load may take, and no figure
			_, err := store.Put(ctx, []byte("k"), []byte("v"))
			if done(); err != nil {
				t.Fatal(err)
			}
		}
		return n
	}
	const during = 5 * time.Second
	before := put(during)
	ring, err := keys.Load(keys.Files{CA: l.file("ca.crt")})
	if err != nil {
		t.Fatal(err)
	}
	guessed := time.Now()
	ctx, end := context.WithCancel(context.Background())
	var guessers sync.WaitGroup
	var mu sync.Mutex
	told := map[messages.Code]int{}
	for i := range 24 {
		guessers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				one, done := context.WithTimeout(ctx, 1500*time.Millisecond)
				_, err := client.Login(one, client.LoginOptions{Endpoints: p.endpoints[i%3 : i%3+1], Keys: ring, User: []string{"alice", "root", fmt.Sprintf("u%d", n)}[n%3], Password: fmt.Sprintf("guess %d of %d", n, i)})
				done()
				mu.Lock()
				told[messages.CodeOf(err)]++
				mu.Unlock()
			}
		})
	}
	meanwhile := put(during)
	end()
	guessers.Wait()
	t.Logf("%d puts in %v, %d while passwords were guessed; the guesses: %v", before, during, meanwhile, told)
	if told[messages.Code_OK] > 0 {
		t.Errorf("somebody guessed a password: %v", told)
	}
	// All come from one host. Each node compares the first that are free, and then, its bounds say, one after
	// 1 s, 2 s, 4 s and so on.
	each := 5
	for wait := time.Second; wait <= 2*time.Since(guessed); wait *= 2 {
		each++
	}
	if told[messages.Code_NOT_ALLOWED]+told[messages.Code_BUSY] == 0 {
		t.Errorf("no guess was answered: %v", told)
	}
	if n := told[messages.Code_NOT_ALLOWED]; n > 3*(each+1) {
		t.Errorf("%d guesses were compared in %v, %d of each node are the most", n, time.Since(guessed), each+1)
	}
}

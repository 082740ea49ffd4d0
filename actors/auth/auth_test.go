package auth

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"keyval/messages"
)

const (
	viewer   = messages.UserRole_VIEWER
	writer   = messages.UserRole_WRITER
	operator = messages.UserRole_OPERATOR
	admin    = messages.UserRole_ADMIN
)

func grant(role messages.UserRole, prefix string) *messages.Grant {
	g := &messages.Grant{Role: role}
	if prefix != "" {
		g.Prefix = []byte(prefix)
	}
	return g
}

func user(name string, grants ...*messages.Grant) *messages.User {
	return &messages.User{Name: name, Grants: grants}
}

// enabled is an Auth of some users, by name, beside root who is admin.
func enabled(users ...*messages.User) *messages.Auth {
	return &messages.Auth{Version: 1, Enabled: true, Users: append(users, user("root", grant(admin, "")))}
}

func TestRoles(t *testing.T) {
	key := []byte("a/1")
	needs := map[string]Need{
		"read a/1": Key(viewer, key), "write a/1": Key(writer, key), "read b": Key(viewer, []byte("b")),
		"read a/": Range(viewer, []byte("a/"), []byte("a0")), "write all": Range(writer, nil, nil), "read all": Range(viewer, nil, nil),
		"any role": Whole(viewer), "operate": Whole(operator), "administer": Whole(admin),
	}
	for _, c := range []struct {
		has  []*messages.Grant
		want string
	}{
		{nil, ""},
		{[]*messages.Grant{grant(viewer, "a/")}, "read a/1, read a/, any role"},
		{[]*messages.Grant{grant(viewer, "")}, "read a/1, read b, read a/, read all, any role"},
		{[]*messages.Grant{grant(writer, "a/")}, "read a/1, write a/1, read a/, any role"},
		{[]*messages.Grant{grant(writer, "")}, "read a/1, write a/1, read b, read a/, write all, read all, any role"},
		{[]*messages.Grant{grant(viewer, "b"), grant(writer, "a/")}, "read a/1, write a/1, read b, read a/, any role"},
		{[]*messages.Grant{grant(operator, "")}, "read a/1, read b, read a/, read all, any role, operate"},
		{[]*messages.Grant{grant(admin, "")}, "read a/1, write a/1, read b, read a/, write all, read all, any role, operate, administer"},
	} {
		a := enabled(user("alice", c.has...))
		for name, need := range needs {
			want := strings.Contains(", "+c.want+",", ", "+name+",")
			if got := Missing(a, "alice", need); (got == nil) != want {
				t.Errorf("with %v: %s: %v", c.has, name, got)
			}
			if Missing(a, "bob", need) == nil || Missing(a, "", need) == nil {
				t.Errorf("whoever is no user may %s", name)
			}
		}
	}
	for name, need := range needs {
		if why := Missing(&messages.Auth{Users: []*messages.User{user("alice")}}, "", need); why != nil {
			t.Errorf("%s while auth is not enabled: %v", name, why)
		}
	}
}

// A range is allowed just if every key in it is.
func TestRangesAreWithinAPrefix(t *testing.T) {
	allows := func(prefix, from, to []byte) bool {
		return Of(enabled(user("alice", &messages.Grant{Role: writer, Prefix: prefix})), "alice").Allow(Range(writer, from, to))
	}
	word := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 'a', 'b', 0xfe, 0xff}), 0, 3)
	rapid.Check(t, func(rt *rapid.T) {
		prefix, from, to := word.Draw(rt, "prefix"), word.Draw(rt, "from"), word.Draw(rt, "to")
		allowed := allows(prefix, from, to)
		key := word.Draw(rt, "key")
		within := bytes.Compare(key, from) >= 0 && (len(to) == 0 || bytes.Compare(key, to) < 0)
		if allowed && within && !bytes.HasPrefix(key, prefix) {
			rt.Fatalf("%q is in [%q, %q), which %q allows", key, from, to, prefix)
		}
	})
	for _, c := range []struct {
		prefix, from, to string
		want             bool
	}{
		{"", "", "", true}, {"", "b", "a", true}, {"a", "a", "b", true}, {"a", "a", "", false}, {"a", "a", "b\x00", false},
		{"a", "ab", "ac", true}, {"a", "", "b", false}, {"a", "a", "a", true}, {"a", "b", "a", true},
		{"a\xff", "a\xff", "b", true}, {"\xff", "\xff", "", true}, {"\xff\xff", "\xff\xff\x01", "", true}, {"ab", "ab", "ac", true}, {"ab", "ab", "b", false},
	} {
		if got := allows([]byte(c.prefix), []byte(c.from), []byte(c.to)); got != c.want {
			t.Errorf("prefix %q, [%q, %q): %v", c.prefix, c.from, c.to, got)
		}
	}
}

func TestEveryLeafIsAskedFor(t *testing.T) {
	put := func(key string) *messages.Operation {
		return &messages.Operation{Kind: &messages.Operation_Put{Put: &messages.Put{Key: []byte(key)}}}
	}
	remove := func(from, to string) *messages.Operation {
		return &messages.Operation{Kind: &messages.Operation_DeleteRange{DeleteRange: &messages.DeleteRange{From: []byte(from), To: []byte(to)}}}
	}
	compact := &messages.Operation{Kind: &messages.Operation_Compact{Compact: &messages.Compact{Revision: 1}}}
	condition := func(key, to string) *messages.Condition { return &messages.Condition{Key: []byte(key), To: []byte(to)} }
	a := enabled(user("alice", grant(viewer, "r/"), grant(writer, "w/")))
	for name, c := range map[string]struct {
		command *messages.Command
		want    string // what is missing begins with; empty: nothing is
	}{
		"puts":                {&messages.Command{Operations: []*messages.Operation{put("w/1"), put("w/2")}}, ""},
		"one of the puts":     {&messages.Command{Operations: []*messages.Operation{put("w/1"), put("r/2")}}, `user alice lacks the role writer for key "r/2"`},
		"otherwise":           {&messages.Command{Operations: []*messages.Operation{put("w/1")}, Otherwise: []*messages.Operation{put("x")}}, `user alice lacks the role writer for key "x"`},
		"condition read":      {&messages.Command{Operations: []*messages.Operation{put("w/1")}, Conditions: []*messages.Condition{condition("r/1", "")}}, ""},
		"condition":           {&messages.Command{Operations: []*messages.Operation{put("w/1")}, Conditions: []*messages.Condition{condition("x", "")}}, `user alice lacks the role viewer for key "x"`},
		"condition, range":    {&messages.Command{Conditions: []*messages.Condition{condition("r/", "r0")}}, ""},
		"condition, no end":   {&messages.Command{Conditions: []*messages.Condition{condition("r/", "\x00")}}, `user alice lacks the role viewer for the keys from "r/" on`},
		"range":               {&messages.Command{Operations: []*messages.Operation{remove("w/", "w0")}}, ""},
		"range beyond":        {&messages.Command{Operations: []*messages.Operation{remove("w/", "x")}}, `user alice lacks the role writer for the keys from "w/" to "x"`},
		"range of everything": {&messages.Command{Operations: []*messages.Operation{remove("", "")}}, "user alice lacks the role writer for all keys"},
		"compaction":          {&messages.Command{Operations: []*messages.Operation{compact}}, "user alice lacks the role operator for the cluster"},
	} {
		why := Missing(a, "alice", OfCommand(c.command)...)
		if got := fmt.Sprint(why); c.want == "" && why != nil || c.want != "" && !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %v", name, why)
		}
		if why != nil && !strings.Contains(why.Hint, "root: kvctl user grant alice") {
			t.Errorf("%s: the hint %q does not say who can help", name, why.Hint)
		}
	}
	none := Range(viewer, []byte{0}, []byte{0})
	if why := Missing(a, "bob", none); why == nil || why.Message != "user bob lacks the role viewer or any other" || !strings.HasSuffix(why.Hint, "kvctl user grant bob viewer") {
		t.Errorf("a range without a key needs what it is not about: %v", why)
	}
}

// Every message that a client sends a node is let in for what is known of it: one that is new
// is an operator's until somebody has said otherwise.
func TestRequests(t *testing.T) {
	for number := range uint32(1 << 10) {
		k := messages.KindNumbered(number)
		if k == nil || k.From != messages.Role_CLIENT {
			continue
		}
		m, err := messages.Open(&messages.Envelope{Type: number})
		if err != nil {
			t.Fatal(err)
		}
		need, here := OfRequest(m)
		want := map[string]Need{"StatusRequest": Whole(viewer), "ClusterRequest": Whole(operator), "SnapshotRequest": Whole(operator)}
		if is, said := want[k.Name]; said != here || here && (need.Role != is.Role || need.On != is.On) {
			t.Errorf("%s needs %v, %v", k.Name, need, here)
		}
	}
	if n, _ := OfRequest(&messages.ClusterRequest{Kind: &messages.ClusterRequest_Query{}}); n.Role != viewer {
		t.Errorf("a question needs %v", n)
	}
}

func TestNext(t *testing.T) {
	add := func(name string) *messages.ChangeAuth {
		return &messages.ChangeAuth{Kind: &messages.ChangeAuth_Add{Add: name}}
	}
	remove := func(name string) *messages.ChangeAuth {
		return &messages.ChangeAuth{Kind: &messages.ChangeAuth_Remove{Remove: name}}
	}
	give := func(name string, g *messages.Grant) *messages.ChangeAuth {
		return &messages.ChangeAuth{Kind: &messages.ChangeAuth_Grant{Grant: &messages.UserGrant{User: name, Grant: g}}}
	}
	take := func(name string, g *messages.Grant) *messages.ChangeAuth {
		return &messages.ChangeAuth{Kind: &messages.ChangeAuth_Revoke{Revoke: &messages.UserGrant{User: name, Grant: g}}}
	}
	enable := func(on bool) *messages.ChangeAuth {
		return &messages.ChangeAuth{Kind: &messages.ChangeAuth_Enable{Enable: on}}
	}
	open := &messages.Auth{Version: 1, Users: enabled(user("alice", grant(writer, "a"))).Users}
	closed := enabled(user("alice", grant(writer, "a")))
	many := user("alice")
	for i := range GrantsMax {
		many.Grants = append(many.Grants, grant(viewer, fmt.Sprintf("%03d", i)))
	}
	for name, c := range map[string]struct {
		auth  *messages.Auth
		by    string
		asked *messages.ChangeAuth
		code  messages.Code
		want  string // what it becomes; empty: nothing changes
	}{
		"the first user":                {nil, "", add("alice"), messages.Code_OK, "alice"},
		"a user again":                  {closed, "root", add("alice"), messages.Code_OK, ""},
		"a user of a bad name":          {closed, "root", add("a/b"), messages.Code_INVALID, ""},
		"by one who may not":            {closed, "alice", add("bob"), messages.Code_NOT_ALLOWED, ""},
		"by nobody":                     {closed, "", enable(false), messages.Code_NOT_ALLOWED, ""},
		"a role":                        {closed, "root", give("alice", grant(viewer, "")), messages.Code_OK, "on, alice viewer, alice writer on \"a\", root admin"},
		"a role again":                  {closed, "root", give("alice", grant(writer, "a")), messages.Code_OK, ""},
		"a role for nobody":             {closed, "root", give("bob", grant(writer, "a")), messages.Code_NOT_FOUND, ""},
		"no role":                       {closed, "root", give("alice", grant(0, "a")), messages.Code_INVALID, ""},
		"an operator of a prefix":       {closed, "root", give("alice", grant(operator, "a")), messages.Code_INVALID, ""},
		"one role too many":             {enabled(many), "root", give("alice", grant(writer, "")), messages.Code_BUSY, ""},
		"a role taken":                  {closed, "root", take("alice", grant(writer, "a")), messages.Code_OK, "on, alice, root admin"},
		"another prefix taken":          {closed, "root", take("alice", grant(writer, "b")), messages.Code_OK, ""},
		"the last admin":                {closed, "root", take("root", grant(admin, "")), messages.Code_UNSAFE, ""},
		"the last admin removed":        {closed, "root", remove("root"), messages.Code_UNSAFE, ""},
		"the last admin while it's off": {open, "x", remove("root"), messages.Code_OK, "alice writer on \"a\""},
		"a user removed":                {closed, "root", remove("alice"), messages.Code_OK, "on, root admin"},
		"a user removed again":          {closed, "root", remove("bob"), messages.Code_OK, ""},
		"enabled":                       {open, "root", enable(true), messages.Code_OK, "on, alice writer on \"a\", root admin"},
		"enabled again":                 {closed, "root", enable(true), messages.Code_OK, ""},
		"enabled by no admin":           {open, "alice", enable(true), messages.Code_UNSAFE, ""},
		"enabled without keys":          {open, "", enable(true), messages.Code_UNSAFE, ""},
		"disabled":                      {closed, "root", enable(false), messages.Code_OK, "alice writer on \"a\", root admin"},
		"nothing":                       {open, "root", &messages.ChangeAuth{}, messages.Code_UNSUPPORTED, ""},
	} {
		before := proto.Clone(c.auth)
		next, err := Next(c.auth, c.asked, c.by, "12345678-9")
		if codeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err != nil {
			if err.Hint == "" && c.code != messages.Code_INVALID {
				t.Errorf("%s: %v: no hint", name, err)
			}
			continue
		}
		if got := line(next); got != c.want {
			t.Errorf("%s: becomes %q, want %q", name, got, c.want)
		}
		if next != nil && (next.By != c.by || next.Request == "" || Check(c.auth, next) != nil) {
			t.Errorf("%s: %v", name, next)
		}
		if c.auth != nil && !proto.Equal(before, c.auth) {
			t.Errorf("%s: what was there has changed", name)
		}
	}
}

func codeOf(err *messages.Error) messages.Code {
	if err == nil {
		return messages.Code_OK
	}
	return err.Code
}

// line is who may do what, on one line.
func line(a *messages.Auth) string {
	var words []string
	if a.GetEnabled() {
		words = append(words, "on")
	}
	for _, u := range a.GetUsers() {
		for _, g := range u.Grants {
			words = append(words, u.Name+" "+Words(g))
		}
		if len(u.Grants) == 0 {
			words = append(words, u.Name)
		}
	}
	return strings.Join(words, ", ")
}

func TestCheck(t *testing.T) {
	big := &messages.Auth{Version: 1}
	for i := range BytesMax / 20 {
		big.Users = append(big.Users, user(fmt.Sprintf("user%05d", i)))
	}
	for name, c := range map[string]struct {
		was, next *messages.Auth
		code      messages.Code
	}{
		"the first":         {nil, &messages.Auth{Version: 1}, messages.Code_OK},
		"nothing":           {nil, nil, messages.Code_CONFLICT},
		"a version again":   {enabled(), enabled(), messages.Code_CONFLICT},
		"a version skipped": {nil, &messages.Auth{Version: 2}, messages.Code_CONFLICT},
		"unsorted":          {nil, &messages.Auth{Version: 1, Users: []*messages.User{user("b"), user("a")}}, messages.Code_INVALID},
		"twice":             {nil, &messages.Auth{Version: 1, Users: []*messages.User{user("b"), user("b")}}, messages.Code_INVALID},
		"a role twice":      {nil, enabled(user("a", grant(viewer, ""), grant(viewer, ""))), messages.Code_INVALID},
		"an unknown role":   {nil, enabled(user("a", grant(9, ""))), messages.Code_INVALID},
		"a long prefix":     {nil, enabled(user("a", grant(viewer, strings.Repeat("x", PrefixSizeMax+1)))), messages.Code_INVALID},
		"by whom":           {nil, &messages.Auth{Version: 1, By: "a b"}, messages.Code_INVALID},
		"which request":     {nil, &messages.Auth{Version: 1, Request: strings.Repeat("x", 65)}, messages.Code_INVALID},
		"too many":          {nil, big, messages.Code_BUSY},
		"nobody":            {nil, &messages.Auth{Version: 1, Enabled: true}, messages.Code_UNSAFE},
		"a password":        {nil, enabled(secret("a", aHash, 1)), messages.Code_OK},
		"a later password":  {nil, enabled(secret("a", aHash, 2)), messages.Code_INVALID},
		"no version":        {nil, enabled(secret("a", aHash, 0)), messages.Code_INVALID},
		"no hash":           {nil, enabled(secret("a", "", 1)), messages.Code_INVALID},
		"a hash for ever":   {nil, enabled(secret("a", "$2a$31$"+aHash[7:], 1)), messages.Code_INVALID},
		"a cheap hash":      {nil, enabled(secret("a", "$2a$04$"+aHash[7:], 1)), messages.Code_INVALID},
		"rubbish as a hash": {nil, enabled(secret("a", strings.Repeat("x", hashSize), 1)), messages.Code_INVALID},
		"a long hash":       {nil, enabled(secret("a", aHash+"x", 1)), messages.Code_INVALID},
		"an old hash":       {nil, enabled(secret("a", "$2x$"+aHash[4:], 1)), messages.Code_INVALID},
	} {
		if err := Check(c.was, c.next); codeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// aHash is that of "correct horse", and costs less than those of kvctl.
const aHash = "$2a$10$YJdNr8C8KMekGT3e6E3WveJb5/xKkJESF/X9BWpOQDIHo05i/PY12"

// secret is a user with a password.
func secret(name, hash string, version uint64) *messages.User {
	u := user(name)
	u.Password = &messages.Password{Hash: []byte(hash), Version: version}
	return u
}

// TestPasswords: who fits, and whose cannot.
func TestPasswords(t *testing.T) {
	if !Fits([]byte(aHash), "correct horse") || Fits([]byte(aHash), "correct horsf") || Fits(nil, "") {
		t.Error("another password fits")
	}
	long := strings.Repeat("long", PasswordSizeMax/4)
	if h, err := bcrypt.GenerateFromPassword([]byte(long), hashCostMin); err != nil || !Fits(h, long) || Fits(h, long+"er") {
		t.Error("what bcrypt does not look at is no part of a password")
	}
	hash, can := Hash(nil)
	if cost, err := bcrypt.Cost(hash); can || err != nil || cost != HashCost || CheckHash(hash) != nil {
		t.Errorf("who is no user is compared with %q, %v", hash, err)
	}
	if _, can := Hash(user("bob")); can {
		t.Error("a user without a password can log in")
	}
	if hash, can := Hash(secret("alice", aHash, 1)); !can || string(hash) != aHash {
		t.Errorf("a user is compared with %q", hash)
	}
	for password, ok := range map[string]bool{"": false, "seven77": false, "eight888": true, strings.Repeat("x", 72): true, strings.Repeat("x", 73): false} {
		if why := CheckPassword([]byte(password)); (why == nil) != ok || why != nil && why.Hint == "" {
			t.Errorf("%q: %v", password, why)
		}
	}
}

// TestNextPassword: who changes whose password, and what its version is.
func TestNextPassword(t *testing.T) {
	other := strings.Replace(aHash, "$10$", "$11$", 1)
	was := enabled(user("alice"), secret("bob", aHash, 1))
	was.Version = 4
	set := func(name, hash string) *messages.ChangeAuth {
		return &messages.ChangeAuth{Kind: &messages.ChangeAuth_Password{Password: &messages.ChangePassword{User: name, Hash: []byte(hash)}}}
	}
	for name, c := range map[string]struct {
		by      string
		change  *messages.ChangeAuth
		version uint64 // of the password then; 0: none
		code    messages.Code
		same    bool
	}{
		"an admin sets one":         {"root", set("alice", aHash), 5, messages.Code_OK, false},
		"an admin changes one":      {"root", set("bob", other), 5, messages.Code_OK, false},
		"the same again":            {"root", set("bob", aHash), 1, messages.Code_OK, true},
		"an admin takes one away":   {"root", set("bob", ""), 0, messages.Code_OK, false},
		"there is none to take":     {"root", set("alice", ""), 0, messages.Code_OK, true},
		"a user changes his own":    {"bob", set("bob", other), 5, messages.Code_OK, false},
		"a user takes his own away": {"bob", set("bob", ""), 0, messages.Code_OK, false},
		"a user sets another's":     {"bob", set("alice", other), 0, messages.Code_NOT_ALLOWED, false},
		"somebody else his own":     {"carol", set("carol", other), 0, messages.Code_NOT_FOUND, false},
		"without a certificate":     {"", set("", other), 0, messages.Code_NOT_ALLOWED, false},
		"of nobody":                 {"root", set("carol", other), 0, messages.Code_NOT_FOUND, false},
		"a hash that costs much":    {"bob", set("bob", "$2a$31$"+aHash[7:]), 0, messages.Code_INVALID, false},
	} {
		next, err := Next(was, c.change, c.by, "12345678-1")
		if codeOf(err) != c.code || err == nil && (next == nil) != c.same {
			t.Errorf("%s: %v, %v", name, next, err)
		}
		if next == nil || err != nil {
			continue
		}
		if p := Find(next, c.change.GetPassword().User).Password; p.GetVersion() != c.version || (p != nil) != (c.version != 0) {
			t.Errorf("%s: %v", name, p)
		}
		if strings.Contains(Title(c.change), "$") {
			t.Errorf("%s: %s", name, Title(c.change))
		}
	}
	if next, _ := Next(was, &messages.ChangeAuth{Kind: &messages.ChangeAuth_Grant{Grant: &messages.UserGrant{User: "bob", Grant: grant(viewer, "")}}}, "root", ""); Find(next, "bob").Password.GetVersion() != 1 {
		t.Error("another role costs the tokens of a user")
	}
	for _, by := range []string{"root", "bob"} {
		told := ForAsker(was, by)
		if p := Find(told, "bob").Password; p.GetVersion() != 1 || len(p.Hash) > 0 {
			t.Errorf("%s is told %v", by, p)
		}
	}
	if string(Find(was, "bob").Password.Hash) != aHash {
		t.Error("what was told has changed what is")
	}
	open := proto.Clone(was).(*messages.Auth)
	if open.Enabled = false; len(Find(ForAsker(open, "bob"), "bob").Password.Hash) > 0 {
		t.Error("while everybody is as good as an admin, he is told hashes")
	}
}

func TestForAsker(t *testing.T) {
	a := enabled(user("alice", grant(viewer, "a")), user("bob"))
	if got := line(ForAsker(a, "root")); got != line(a) {
		t.Errorf("an admin is told %s", got)
	}
	if got := line(ForAsker(a, "alice")); got != `on, alice viewer on "a"` {
		t.Errorf("alice is told %s", got)
	}
	if got := line(ForAsker(a, "carol")); got != "on" {
		t.Errorf("somebody else is told %s", got)
	}
}

func TestNothingIsAllocatedForAKey(t *testing.T) {
	a, key := enabled(user("alice", grant(viewer, "r/"), grant(writer, "w/"))), []byte("w/1")
	if n := testing.AllocsPerRun(100, func() {
		if !Of(a, "alice").Allow(Key(writer, key)) {
			t.Fatal("it is not allowed")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

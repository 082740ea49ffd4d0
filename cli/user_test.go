package cli

import (
	"strings"
	"testing"
)

// TestUsers: users and roles as an operator says them, by the rules of the cluster.
func TestUsers(t *testing.T) {
	f := newFake()
	f.principal = "root"
	for _, step := range []struct {
		who  string
		line string
		code int
		want string // of what it prints
	}{
		{"root", "auth status", 0, "disabled: whoever reaches the cluster may do everything"},
		{"root", "auth enable --yes", exitUnsafe, "kvctl user add root --role admin"},
		{"root", "user add root --role admin --prefix x", exitUsage, "takes no prefix"},
		{"root", "user add root --prefix x", exitUsage, "say --role too"},
		{"root", "user add root --role king", exitUsage, "viewer, writer, operator and admin"},
		{"root", "user add a/b", exitUsage, "a/b"},
		{"root", "user add root --role admin", 0, "admin"},
		{"root", "user add alice --role writer --prefix orders/", 0, "writer on"},
		{"root", "user grant alice viewer", 0, "viewer, writer on"},
		{"root", "user grant bob viewer", exitNotFound, "no user"},
		{"root", "user show alice --json", 0, "{\"role\":\"writer\",\"prefix\":\"orders/\"}"},
		{"root", "user show bob", exitNotFound, "no user"},
		{"root", "user list -o simple", 0, "root\tadmin"},
		{"root", "auth enable", exitUnsafe, "kvctl auth enable --yes"},
		{"root", "auth enable --dry-run", 0, "those who have one are alice, root"},
		{"root", "auth status --json", 0, "\"enabled\":false"},
		{"root", "auth enable --yes", 0, "enabled"},
		{"alice", "auth status", 0, "viewer, writer on"},
		{"alice", "user list -o simple", 0, "alice"},
		{"alice", "user add mallory --role admin", exitNotAllowed, "root: kvctl user grant alice admin"},
		{"alice", "user remove root --yes", exitNotAllowed, "lacks the role admin"},
		{"alice", "user revoke alice viewer", exitNotAllowed, "lacks the role admin"},
		{"alice", "auth disable --yes", exitNotAllowed, "lacks the role admin"},
		{"", "auth disable --yes", exitNotAllowed, "without a certificate"},
		{"root", "user revoke alice operator", exitNotFound, "has no role operator"},
		{"root", "user revoke alice viewer", 0, "writer on"},
		{"root", "user revoke root admin", exitUnsafe, "no admin would be left"},
		{"root", "user remove alice", exitUnsafe, "kvctl user remove --yes alice"},
		{"root", "user remove alice --dry-run", 0, "would remove user alice"},
		{"root", "user remove alice --yes --json", 0, "\"removed\":true"},
		{"root", "user remove alice --yes", exitNotFound, "no user"},
		{"root", "auth disable --yes --json", 0, "\"enabled\":false"},
	} {
		f.principal = step.who
		got := run{cluster: f}.kvctl(t, strings.Fields(step.line)...)
		said := strings.NewReplacer("\n", "", " ", "").Replace(got.out + got.stderr)
		if got.code != step.code || !strings.Contains(said, strings.NewReplacer(" ", "").Replace(step.want)) {
			t.Errorf("%s: kvctl %s: code %d, %s%s", step.who, step.line, got.code, got.out, got.stderr)
		}
	}
	f.principal = "root"
	if got := (run{cluster: f, stdin: strings.NewReader("n\n"), inTTY: true, tty: true}).kvctl(t, "auth", "enable"); got.code != exitFailure || f.auth.Enabled {
		t.Errorf("enabled though the answer was no: %+v", got)
	}
}

package cli

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

// TestCert is the way of keys from nothing to a replaced authority, as a user goes it.
func TestCert(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	for _, step := range []struct {
		line string
		code int
		said string // on either stream
	}{
		{"cert create-node n1 10.0.0.1", exitNotFound, "create-ca"},
		{"cert list", exitNotFound, "no certificate"},
		{"cert create-ca", exitOK, "next: "},
		{"cert create-ca", exitConflict, "nothing is overwritten"},
		{"cert create-node n1 10.0.0.1 n1.example", exitOK, "nodes/n1"},
		{"cert create-node n1 10.0.0.1", exitConflict, "there already"},
		{"cert create-client alice", exitOK, "users/alice"},
		{"cert create-client a/b", exitUsage, "letters, digits"},
		{"cert check", exitOK, "10.0.0.1"},
		{"cert rotate-ca", exitOK, "rotate-ca both"},
		{"cert rotate-ca leaves", exitConflict, "not the turn"},
		{"cert rotate-ca none", exitUsage, "none of both, leaves, new"},
		{"cert rotate-ca both", exitOK, "rotate-ca leaves"},
		{"cert rotate-ca leaves", exitOK, "rotate-ca new"},
		{"cert rotate-ca new", exitOK, "complete"},
		{"cert check", exitOK, "n1.example"},
		{"serve --data d --certs-dir " + dir, exitUsage, "no node.crt"},
		{"serve --data d --cert x", exitUsage, "needed together"},
		{"serve --data d --cert x --certs-dir y", exitUsage, "excludes"},
		{"serve --data d --cert x --cert-file y", exitUsage, "--cert-file and --cert are the same"},
		{"serve --data d --cert-file x", exitUsage, "needed together"},
		{"serve --data d --certs-dir y --peer-cert-file x", exitUsage, "--peer-trusted-ca-file, --peer-cert-file and --peer-key-file are needed together"},
		{"serve --data d --peer-trusted-ca-file z --peer-cert-file x --peer-key-file y", exitUsage, "and none for users"},
	} {
		argv := strings.Fields(step.line)
		if argv[0] == "cert" {
			argv = append(argv, "--dir", dir)
		}
		got := run{}.kvctl(t, argv...)
		if got.code != step.code || !strings.Contains(got.out+got.stderr, step.said) {
			t.Errorf("%s: %d, %s%s; want %d, %q", step.line, got.code, got.out, got.stderr, step.code, step.said)
		}
	}
	var rows []certJSON
	if got := (run{}).kvctl(t, "cert", "list", "--dir", dir, "--json"); json.Unmarshal([]byte(got.out), &rows) != nil || len(rows) != 3 || rows[1].Name != "n1" || rows[2].What != "user" {
		t.Errorf("%s%s", got.out, got.stderr)
	}
}

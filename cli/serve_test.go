package cli

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFounders(t *testing.T) {
	for _, test := range []struct{ list, want string }{
		{"", ""},
		{"b=10.0.0.2:7001, a=10.0.0.1:7001", "1 a=10.0.0.1:7001, 2 b=10.0.0.2:7001"},
		{"a", `error: --initial-cluster: "a" is no NAME=HOST:PORT`},
		{"=h:1", `error: --initial-cluster: "=h:1" is no NAME=HOST:PORT`},
		{"a=h", `error: --initial-cluster: "h" is no HOST:PORT`},
		{"a=h:0", `error: --initial-cluster: "h:0" has no port from 1 to 65535`},
		{"a=h:1,a=h:2", "error: --initial-cluster: a=h:1 and a=h:2 cannot both be"},
		{"a=h:1,b=h:1", "error: --initial-cluster: a=h:1 and b=h:1 cannot both be"},
		{"a=h:1,", `error: --initial-cluster: "" is no NAME=HOST:PORT`},
	} {
		founders, err := new(Call).founders(test.list)
		var all []string
		for _, f := range founders {
			all = append(all, fmt.Sprintf("%d %s=%s", f.RaftId, f.Name, f.Address))
		}
		got := strings.Join(all, ", ")
		var usage *UsageError
		if errors.As(err, &usage) {
			got = "error: " + usage.Problem.Message
		} else if err != nil {
			t.Fatalf("%v is %T", err, err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%q: %s", test.list, diff)
		}
	}
}

func TestLoopback(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1:1": true, "127.9.9.9:1": true, "[::1]:1": true, "localhost:1": true, "": true,
		"10.0.0.1:1": false, "0.0.0.0:1": false, ":1": false, "[::]:1": false, "example.org:1": false,
	} {
		if got := isLoopback(address); got != want {
			t.Errorf("%q: %v", address, got)
		}
	}
}

func TestQuoteWord(t *testing.T) {
	for word, want := range map[string]string{
		"/a/b-1.2": "/a/b-1.2", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$HOME": "'$HOME'", "a;b": "'a;b'",
	} {
		if got := quoteWord(word); got != want {
			t.Errorf("%q: %s, want %s", word, got, want)
		}
	}
}

package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

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

func TestQuoteWord(t *testing.T) {
	for word, want := range map[string]string{
		"/a/b-1.2": "/a/b-1.2", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$HOME": "'$HOME'", "a;b": "'a;b'",
	} {
		if got := quoteWord(word); got != want {
			t.Errorf("%q: %s, want %s", word, got, want)
		}
	}
}

// TestTuning: flag, then environment, then default; 0 is no bound.
func TestTuning(t *testing.T) {
	mib := uint64(1 << 20)
	for _, test := range []struct {
		line string
		env  map[string]string
		want tuning
		fail string
	}{
		{"", nil, tuning{100_000, time.Hour, 64 * mib, 0}, ""},
		{"--history-revisions 0 --history-time 0 --snapshot-rate 1.5MB", nil, tuning{0, 0, 1_500_000, 0}, ""},
		{"", map[string]string{envHistoryRevisions: "7", envHistoryTime: "1m", envSnapshotRate: "2MiB"}, tuning{7, time.Minute, 2 * mib, 0}, ""},
		{"--history-time 2m", map[string]string{envHistoryTime: "soon", envHistoryRevisions: ""}, tuning{100_000, 2 * time.Minute, 64 * mib, 0}, ""},
		{"", map[string]string{envHistoryTime: "soon"}, tuning{}, `KVCTL_HISTORY_TIME: "soon" is no duration from 1s on, and not 0`},
		{"--history-time 10ms", nil, tuning{}, `--history-time: "10ms" is no duration from 1s on, and not 0`},
		{"--history-revisions -1", nil, tuning{}, `--history-revisions: "-1" is no number of revisions`},
		{"--room 1GiB", nil, tuning{100_000, time.Hour, 64 * mib, 1 << 30}, ""},
		{"", map[string]string{envRoom: "0"}, tuning{100_000, time.Hour, 64 * mib, -1}, ""},
		{"--room some", nil, tuning{}, `--room: "some" is no size, such as 1GiB`},
		{"--snapshot-rate 0", nil, tuning{}, `--snapshot-rate: "0" is no size from 1KiB on, such as 64MiB`},
	} {
		var got tuning
		sh := &Shell{Stderr: io.Discard, Env: func(name string) string { return test.env[name] }}
		app := newApp(sh)
		named(app.Commands, "serve").Action = sh.action(func(c *Call) (err error) {
			got, err = c.tuning()
			return err
		})
		line, err := Normalize(app, append([]string{"kvctl", "serve"}, strings.Fields(test.line)...))
		if err != nil {
			t.Fatal(err)
		}
		err = app.RunContext(t.Context(), line.Argv)
		if test.fail != "" {
			if err == nil || err.Error() != test.fail {
				t.Errorf("%s: %v", test.line, err)
			}
			continue
		}
		if err != nil || got != test.want {
			t.Errorf("%s %v: %+v, %v", test.line, test.env, got, err)
		}
	}
}

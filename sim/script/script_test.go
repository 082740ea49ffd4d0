package script

import (
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyval/messages"
)

var rewrite = flag.Bool("rewrite", false, "write the conversations that scripts have now over the golden ones")

// TestScripts holds every scenario against its golden conversation, twice, and the
// second time with one processor. After a change that is meant, rewrite them and
// read what is different:
//
//	go test ./sim/script -run TestScripts -rewrite
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/scripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d scripts, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			golden := play(t, string(text))
			if *rewrite {
				if err := os.WriteFile(file, []byte(golden), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if diff := cmp.Diff(string(text), golden); diff != "" {
				t.Errorf("the conversation is another than the golden one (-golden +now); if that is meant: go test ./sim/script -run TestScripts -rewrite\n%s", diff)
			}
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
			if diff := cmp.Diff(golden, play(t, golden)); diff != "" {
				t.Errorf("the conversation is another with one processor:\n%s", diff)
			}
		})
	}
}

// play is a script with its conversation.
func play(t *testing.T, text string) string {
	t.Helper()
	var out strings.Builder
	err := Play(strings.NewReader(text), func(line Line) error {
		out.WriteString(line.Text + "\n")
		if line.Verb {
			out.WriteString(goldenMark + "\n" + line.Said)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestScriptRefusals: a line that cannot be played says what is wrong with it.
func TestScriptRefusals(t *testing.T) {
	const founded = "trace off\ncluster nodes=3\n"
	for _, c := range []struct {
		script string
		code   messages.Code
		want   string
	}{
		{"put k v", messages.Code_INVALID, `line 1: "put" needs a cluster`},
		{"dance", messages.Code_INVALID, `line 1: unknown verb "dance"`},
		{"cluster nodes=0", messages.Code_INVALID, "line 1: a scenario has 1 to 7 nodes, not 0"},
		{"cluster nodes=many", messages.Code_INVALID, `line 1: nodes="many" is no number`},
		{"cluster ttl=soon", messages.Code_INVALID, `line 1: ttl="soon" is no duration`},
		{"trace perhaps", messages.Code_INVALID, `line 1: trace is on or off, not "perhaps"`},
		{"trace on rafft", messages.Code_INVALID, `line 1: "rafft" is neither an actor nor a message`},
		{founded + "cluster", messages.Code_CONFLICT, "line 3: there is a cluster already"},
		{founded + "put k", messages.Code_INVALID, "line 3: the verb is used as: put KEY VALUE [at=NODE] [nowait]"},
		{founded + "put k v at=n4", messages.Code_INVALID, `line 3: there is no node "n4"`},
		{founded + "put k v\nput l v", messages.Code_INVALID, `line 4: the value "v" was written before`},
		{founded + "get k revision=x", messages.Code_INVALID, `line 3: revision="x" is no number`},
		{founded + "tick -1", messages.Code_INVALID, `line 3: "-1" is no number of ticks`},
		{founded + "restart n1", messages.Code_CONFLICT, "line 3: n1 is up"},
		{founded + "crash n1\ncrash n1", messages.Code_CONFLICT, "line 4: n1 is down"},
		{founded + "crash n1\npanic n1 gateway", messages.Code_CONFLICT, "line 4: n1 is down"},
		{founded + "panic n1 raft", messages.Code_INVALID, `line 3: "raft" is no actor that may fail and start anew`},
		{founded + "partition n1 | x", messages.Code_INVALID, `line 3: there is no host "x"`},
		{founded + "until MsgSnap", messages.Code_TIMED_OUT, "line 3: no MsgSnap within 1m0s"},
	} {
		err := Play(strings.NewReader(c.script), func(Line) error { return nil })
		if messages.CodeOf(err) != c.code || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%q: %v, want %v: %s", c.script, err, c.code, c.want)
		}
	}
}

// TestScriptHelp: help lists every verb, and needs no cluster.
func TestScriptHelp(t *testing.T) {
	said := play(t, "# only help\nhelp\n")
	for _, v := range verbs {
		if !strings.Contains(said, "\n"+v.name) {
			t.Errorf("help does not know %q", v.name)
		}
	}
}

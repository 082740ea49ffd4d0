package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	pretty "github.com/jedib0t/go-pretty/v6/text"
	urfave "github.com/urfave/cli/v2"

	"keyval/messages"
)

func (o outcome) check(t *testing.T, code int, out string) {
	t.Helper()
	if o.code != code {
		t.Errorf("exit code %d, want %d; stderr: %s", o.code, code, o.stderr)
	}
	if diff := cmp.Diff(out, o.out); diff != "" {
		t.Error(diff)
	}
}

// fields reads JSON without losing the types of its values.
func fields(t *testing.T, text string) map[string]any {
	t.Helper()
	var got map[string]any
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatalf("%v: %q", err, text)
	}
	return got
}

func TestPutGetDelete(t *testing.T) {
	r := run{cluster: newFake()}
	r.kvctl(t, "put", "hello", "world").check(t, 0, "put \"hello\" at revision 1 (request 0badcafe-w1)\n")
	r.kvctl(t, "get", "hello").check(t, 0, "world\n")
	r.kvctl(t, "get", "hello", "--raw").check(t, 0, "world")
	r.kvctl(t, "put", "n", "--", "-5").check(t, 0, "put \"n\" at revision 2 (request 0badcafe-w1)\n")
	r.kvctl(t, "get", "n", "-o", "simple").check(t, 0, "-5\n")
	r.kvctl(t, "put", "-o", "simple", "help", "me").check(t, 0, "3\n")
	r.kvctl(t, "put", "empty", "").check(t, 0, "put \"empty\" at revision 4 (request 0badcafe-w1)\n")
	r.kvctl(t, "get", "empty").check(t, 0, "\n")
	r.kvctl(t, "delete", "n").check(t, 0, "deleted \"n\" at revision 5 (request 0badcafe-w1)\n")
	r.kvctl(t, "delete", "n").check(t, 0, "\"n\" was not there at revision 5 (request 0badcafe-w1)\n")
	r.kvctl(t, "delete", "n", "-o", "simple").check(t, 0, "false\n")
	r.kvctl(t, "put", "bell", "\a\x1b[2J")
	terminal := run{cluster: r.cluster, tty: true}
	terminal.kvctl(t, "get", "bell").check(t, 0, "\"\\a\\x1b[2J\"\n")
	terminal.kvctl(t, "get", "bell", "--raw").check(t, 0, "\a\x1b[2J")
	r.kvctl(t, "get", "bell").check(t, 0, "\a\x1b[2J\n")
	missing := r.kvctl(t, "get", "n")
	missing.check(t, 3, "")
	want := "kvctl: there is no key \"n\"\n  endpoint: 127.0.0.1:7001\n  request:  0badcafe-w1\n"
	if diff := cmp.Diff(want, missing.stderr); diff != "" {
		t.Error(diff)
	}
}

func TestJSONFields(t *testing.T) {
	r := run{cluster: newFake()}
	for _, test := range []struct {
		line string
		want map[string]any
	}{
		{"put k <v> --json", map[string]any{"key": "k", "revision": "1", "request_id": fakeRequest}},
		{"get k --json", map[string]any{"key": "k", "value": "<v>", "revision": "1", "create_revision": "1", "version": "1", "read_revision": "1", "request_id": fakeRequest}},
		{"get k -o jsonl --revision 1", map[string]any{"key": "k", "value": "<v>", "revision": "1", "create_revision": "1", "version": "1", "read_revision": "1", "request_id": fakeRequest}},
		{"delete k --json", map[string]any{"key": "k", "revision": "2", "request_id": fakeRequest, "deleted": true}},
		{"delete k --json", map[string]any{"key": "k", "revision": "2", "request_id": fakeRequest, "deleted": false}},
		{"put \xff v --json", map[string]any{"key_base64": "/w==", "revision": "3", "request_id": fakeRequest}},
		{"put k \xff\xfe", nil},
		{"put k \xff\xfe", nil},
		{"get k --json", map[string]any{"key": "k", "value_base64": "//4=", "revision": "5", "create_revision": "4", "version": "2", "read_revision": "5", "request_id": fakeRequest}},
	} {
		got := r.kvctl(t, strings.Split(test.line, " ")...)
		if got.code != 0 {
			t.Fatalf("%s: exit code %d: %s", test.line, got.code, got.stderr)
		}
		if test.want == nil {
			continue
		}
		if diff := cmp.Diff(test.want, fields(t, got.out)); diff != "" {
			t.Errorf("%s: %s", test.line, diff)
		}
	}
}

func TestValues(t *testing.T) {
	binary := "\x00\xff\n\r" + strings.Repeat("x", 5000)
	path := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(path, []byte(binary), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, argv := range [][]string{{"put", "k", "-"}, {"put", "k", "--file", path}} {
		r := run{cluster: newFake(), stdin: strings.NewReader(binary)}
		if got := r.kvctl(t, argv...); got.code != 0 || got.stderr != "" {
			t.Fatalf("%q: %+v", argv, got)
		}
		r.kvctl(t, "get", "k", "--raw").check(t, 0, binary)
	}
	run{}.kvctl(t, "put", "k", "--file", t.TempDir()).check(t, 2, "")
	typed := run{stdin: strings.NewReader("v"), inTTY: true}.kvctl(t, "put", "k", "-")
	if typed.stderr != "reading until Ctrl-D\n" {
		t.Errorf("stderr %q", typed.stderr)
	}
	full := strings.Repeat("x", messages.ValueSizeMax)
	run{stdin: strings.NewReader(full)}.kvctl(t, "put", "-o", "simple", "k", "-").check(t, 0, "1\n")
	run{stdin: strings.NewReader(full + "x")}.kvctl(t, "put", "k", "-").check(t, 2, "")
	run{}.kvctl(t, "put", "k", "--file", path+".missing").check(t, 2, "")
	run{}.kvctl(t, "put", "k", "v", "--file", path).check(t, 2, "")
	run{}.kvctl(t, "put", "k").check(t, 2, "")
}

func TestExitCodes(t *testing.T) {
	want := map[messages.Code]int{
		messages.Code_INVALID: 2, messages.Code_NOT_FOUND: 3, messages.Code_NOT_ALLOWED: 4, messages.Code_NO_LEADER: 5,
		messages.Code_UNREACHABLE: 5, messages.Code_UNSAFE: 6, messages.Code_CONFLICT: 7, messages.Code_OUTCOME_UNKNOWN: 8,
		messages.Code_TIMED_OUT: 8, messages.Code_REMOVED: 4, messages.Code_STARTING: 5,
	}
	for number, name := range messages.Code_name {
		code := messages.Code(number)
		if code == messages.Code_OK {
			continue
		}
		r := run{cluster: newFake()}
		r.cluster.refuse = messages.Errorf(code, "no").WithHint("try again")
		exit, known := want[code]
		if !known {
			exit = 1
		}
		plain := r.kvctl(t, "put", "k", "v")
		plain.check(t, exit, "")
		if want := "kvctl: no\n  endpoint: 127.0.0.1:7001\n  request:  0badcafe-w1\n  next: try again\n"; plain.stderr != want {
			t.Errorf("%v: %q", code, plain.stderr)
		}
		inJSON := r.kvctl(t, "put", "k", "v", "--json")
		inJSON.check(t, exit, "")
		wantJSON := map[string]any{"code": name, "message": "no", "endpoint": "127.0.0.1:7001", "request_id": fakeRequest, "hint": "try again"}
		if diff := cmp.Diff(wantJSON, fields(t, inJSON.stderr)); diff != "" {
			t.Error(diff)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	for _, line := range []string{
		"bogus", "cluster bogus", "put", "put k", "get a b", "get k --bogus", "get k --consistency x",
		"get k --revision 0", "get k --revision x", "get k --endpoints x", "get k --endpoints a:1,", "get k --server a:0",
		"get k --server a:1,b:2", "get k --endpoints a:1 --server b:1", "get k --timeout 0s", "get k --timeout -1s", "get k -o xml",
		"get --raw k -o json=", "get k -o=", "completion tcsh", "completion", "help bogus", "dev --nodes 0", "dev --nodes 10",
		"dev --base-port 65535", "sim", "sim bogus", "sim run --faults maybe", "sim run --nodes 8", "sim run --seeds 0",
		"scan a b", "scan --limit 0", "scan --limit x", "scan --revision 0", "scan --from b --to a", "scan --to=", "scan --consistency x",
		"delete", "delete k --prefix p", "delete --prefix=", "delete --all", "delete k --dry-run", "delete --prefix p --yes --progress x",
		"sim run --seeds 2 --trace f", "sim run --duration 0s", "sim run --seed -1", "serve", "serve --data d --log-level x", "status --no-such",
		"snapshot", "snapshot bogus", "snapshot show", "snapshot show Bad_ID", "snapshot delete", "snapshot list x", "snapshot create --progress x",
		"compact x", "compact --revision 0", "compact --yes --progress x", "verify x", "verify --revision 0", "verify --progress x",
		"serve --data d --history-revisions x", "serve --data d --history-time x", "serve --data d --snapshot-rate x", "dev --history-time -1s",
	} {
		t.Run(line, func(t *testing.T) {
			got := run{}.kvctl(t, strings.Fields(line)...)
			got.check(t, 2, "")
			if !strings.HasPrefix(got.stderr, "kvctl: ") || !strings.Contains(got.stderr, "\n  usage: kvctl") || strings.Count(got.stderr, "\n") > 4 {
				t.Errorf("stderr: %q", got.stderr)
			}
		})
	}
	for _, line := range []string{"get --raw --json k", "get k --json -o table", "get k -o json --timeout x"} {
		got := run{}.kvctl(t, strings.Fields(line)...)
		if got.check(t, 2, ""); fields(t, got.stderr)["code"] != "INVALID" {
			t.Errorf("%s: %+v", line, got)
		}
	}
	got := run{}.kvctl(t, "get", "--json")
	got.check(t, 2, "")
	want := map[string]any{"code": "INVALID", "message": "get needs KEY", "endpoint": "", "request_id": "", "hint": "kvctl get --help"}
	if diff := cmp.Diff(want, fields(t, got.stderr)); diff != "" {
		t.Error(diff)
	}
}

func TestEnvironment(t *testing.T) {
	for _, test := range []struct {
		name string
		env  map[string]string
		line string
		code int
	}{
		{"endpoints", map[string]string{envEndpoints: "127.0.0.1:7009"}, "status", 5},
		{"endpoints, flag given", map[string]string{envEndpoints: "127.0.0.1:7009"}, "status --endpoints 127.0.0.1:7001", 0},
		{"endpoints, server given", map[string]string{envEndpoints: "nonsense"}, "status --server 127.0.0.1:7001", 0},
		{"bad endpoints", map[string]string{envEndpoints: "nonsense"}, "status", 2},
		{"empty endpoints", map[string]string{envEndpoints: ""}, "status", 0},
		{"bad timeout", map[string]string{envTimeout: "soon"}, "status", 2},
		{"bad timeout, flag given", map[string]string{envTimeout: "soon"}, "status --timeout 1s", 0},
		{"empty timeout", map[string]string{envTimeout: ""}, "status", 0},
		{"bad output", map[string]string{envOutput: "xml"}, "status", 2},
		{"bad output, flag given", map[string]string{envOutput: "xml"}, "status -o json", 0},
		{"bad output, short flag given", map[string]string{envOutput: "xml"}, "status --json", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := run{env: test.env, cluster: newFake()}
			r.cluster.down = []string{"127.0.0.1:7009"}
			if got := r.kvctl(t, strings.Fields(test.line)...); got.code != test.code {
				t.Errorf("exit code %d, want %d: %s", got.code, test.code, got.stderr)
			}
		})
	}
	got := run{env: map[string]string{envOutput: "json"}}.kvctl(t, "get", "missing")
	if got.code != 3 || fields(t, got.stderr)["code"] != "NOT_FOUND" {
		t.Errorf("%+v", got)
	}
}

func TestStatus(t *testing.T) {
	r := run{cluster: newFake()}
	r.cluster.down = []string{"127.0.0.1:7003"}
	got := r.kvctl(t, "status")
	got.check(t, 9, `NAME   ENDPOINT        ROLE         PID   TERM                 REVISION  APPLIED  LAG  LEVEL  VERSION
node1  127.0.0.1:7001  leader       4001  1152921504606846976  0         99       3    1      test
node2  127.0.0.1:7002  follower     4002  1152921504606846976  0         99       3    1      test
node3  127.0.0.1:7003  unreachable  -     -                    -         -        -    -      -
`)
	if want := "node3 127.0.0.1:7003: connection refused\n  next: start it\n"; got.stderr != want {
		t.Errorf("stderr %q", got.stderr)
	}
	got = r.kvctl(t, "status", "--json", "--endpoints", "127.0.0.1:7003,127.0.0.1:7002,127.0.0.1:7003")
	var rows []map[string]any
	if err := json.Unmarshal([]byte(got.out), &rows); err != nil || got.code != 9 || got.stderr != "" {
		t.Fatalf("%v: %+v", err, got)
	}
	want := []map[string]any{{
		"name": "node3", "endpoint": "127.0.0.1:7003", "role": "unreachable", "pid": 0.0, "raft_id": "3", "term": "0", "revision": "0",
		"commit": "0", "applied": "0", "lag_entries": "0", "leader": "", "version": "", "error": "connection refused",
		"log_first_index": "0", "last_index": "0", "log_bytes": 0.0, "checkpoint_index": "0", "compacted_revision": "0", "transfers": []any{},
		"level": 0.0, "level_min": 0.0, "level_max": 0.0, "room_bytes": 0.0,
	}, {
		"name": "node2", "endpoint": "127.0.0.1:7002", "role": "follower", "pid": 4002.0, "raft_id": "2", "term": "1152921504606846976",
		"revision": "0", "commit": "102", "applied": "99", "lag_entries": "3", "leader": "node1", "version": "test", "error": "",
		"log_first_index": "1", "last_index": "102", "log_bytes": 2500000.0, "checkpoint_index": "50", "compacted_revision": "0", "transfers": []any{},
		"level": 1.0, "level_min": 1.0, "level_max": 1.0, "room_bytes": 0.0,
	}}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Error(diff)
	}
	r.kvctl(t, "status", "-o", "simple").check(t, 9, "node1\t127.0.0.1:7001\tleader\nnode2\t127.0.0.1:7002\tfollower\nnode3\t127.0.0.1:7003\tunreachable\n")
	if lines := r.kvctl(t, "status", "-o", "jsonl"); strings.Count(lines.out, "\n") != 3 {
		t.Errorf("%q", lines.out)
	}
	r.cluster.down = append(r.cluster.down, "127.0.0.1:7001", "127.0.0.1:7002")
	if got := r.kvctl(t, "status", "--json"); got.code != 5 {
		t.Errorf("%+v", got)
	}
}

func TestHome(t *testing.T) {
	cluster := newFake()
	serving := run{cluster: cluster}.kvctl(t)
	if serving.code != 0 || !strings.HasPrefix(serving.out, "NAME ") || strings.Count(serving.stderr, "\n  /opt/kvctl ") != 3 {
		t.Errorf("%+v", serving)
	}
	cluster.leader = ""
	leaderless := run{cluster: cluster}.kvctl(t, "--endpoints", "127.0.0.1:7001")
	if leaderless.code != 0 || !strings.Contains(leaderless.stderr, "status --endpoints 127.0.0.1:7001") {
		t.Errorf("%+v", leaderless)
	}
	cluster.down = strings.Split(defaultEndpoints, ",")
	none := run{cluster: cluster}.kvctl(t)
	if none.code != 5 || !strings.Contains(none.stderr, "/opt/kvctl dev ") {
		t.Errorf("%+v", none)
	}
	if got := (run{cluster: cluster}).kvctl(t, "--json"); got.code != 5 || got.stderr != "" || !json.Valid([]byte(got.out)) {
		t.Errorf("%+v", got)
	}
}

func TestColourOnlyOnATerminal(t *testing.T) {
	for _, test := range []struct {
		name string
		r    run
		argv []string
		want bool
	}{
		{"terminal", run{tty: true}, nil, true},
		{"pipe", run{}, nil, false},
		{"NO_COLOR", run{tty: true, env: map[string]string{"NO_COLOR": "1"}}, nil, false},
		{"empty NO_COLOR", run{tty: true, env: map[string]string{"NO_COLOR": ""}}, nil, true},
		{"dumb", run{tty: true, env: map[string]string{"TERM": "dumb"}}, nil, false},
		{"--no-color", run{tty: true}, []string{"--no-color"}, false},
		{"JSON", run{tty: true}, []string{"--json"}, false},
	} {
		got := test.r.kvctl(t, append([]string{"status"}, test.argv...)...)
		if coloured := strings.Contains(got.out, "\x1b["); coloured != test.want {
			t.Errorf("%s: coloured %v: %q", test.name, coloured, got.out)
		}
	}
	for _, argv := range [][]string{{"get", "k", "--no-color"}, {"get", "--no-color"}} {
		if got := (run{tty: true}).kvctl(t, argv...); strings.Contains(got.stderr, "\x1b[") {
			t.Errorf("%q: %q", argv, got.stderr)
		}
	}
}

// TestFullDisk: output that could not be written is no success.
func TestFullDisk(t *testing.T) {
	r := run{cluster: newFake()}
	r.kvctl(t, "put", "k", "v")
	for _, argv := range [][]string{{"kvctl", "get", "k"}, {"kvctl", "status"}, {"kvctl", "help"}, {"kvctl", "status", "--json"}} {
		var stderr bytes.Buffer
		sh := Shell{Stdin: strings.NewReader(""), Stdout: fullDisk{}, Stderr: &stderr, Env: func(string) string { return "" }, Connect: r.cluster.connect, ConnectTo: r.cluster.connectTo, Probe: r.cluster.probe}
		if code := Run(t.Context(), sh, argv); code != 1 || !strings.Contains(stderr.String(), "no space left") {
			t.Errorf("%q: exit code %d: %s", argv, code, stderr.String())
		}
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestVersion(t *testing.T) {
	got := fields(t, run{}.kvctl(t, "version", "--json").out)
	if got["protocol"] != float64(messages.ProtocolVersion) || got["level"] != float64(messages.Level) || got["go"] == "" || got["version"] == "" {
		t.Errorf("%v", got)
	}
}

// TestHelp: every command says what it is for and shows an example that is
// understood.
func TestHelp(t *testing.T) {
	app := newApp(&Shell{Env: func(string) string { return "" }})
	var walk func(path, commands []*urfave.Command)
	walk = func(path, commands []*urfave.Command) {
		for _, c := range commands {
			own := append(slices.Clone(path), c)
			if c.Usage == "" || strings.Contains(c.Usage, "\n") {
				t.Errorf("%s: usage %q", join(own), c.Usage)
			}
			if len(c.Subcommands) > 0 {
				if c.UsageText == "" {
					t.Errorf("%s has no example", join(own))
				}
				walk(own, c.Subcommands)
				continue
			}
			checkExamples(t, app, own, c)
			shown := run{}.kvctl(t, append(strings.Fields(join(own)), "--help")...)
			if shown.code != 0 || shown.stderr != "" || !strings.HasPrefix(shown.out, "kvctl "+join(own)+" - ") {
				t.Errorf("%s: %+v", join(own), shown)
			}
			if again := (run{}).kvctl(t, append([]string{"help"}, strings.Fields(join(own))...)...); again != shown {
				t.Errorf("help %s differs from %s --help", join(own), join(own))
			}
		}
	}
	walk(nil, app.Commands)
}

var kvctlCall = regexp.MustCompile(`kvctl [^|>)#\n]*`)

func checkExamples(t *testing.T, app *urfave.App, path []*urfave.Command, c *urfave.Command) {
	if c.Description == "" {
		t.Errorf("%s has no description", join(path))
	}
	calls := kvctlCall.FindAllString(c.UsageText, -1)
	if len(calls) == 0 {
		t.Errorf("%s has no example", join(path))
	}
	for _, call := range calls {
		line, err := Normalize(app, strings.Fields(call))
		if err != nil || join(line.Path) != join(path) {
			t.Errorf("%s: example %q: %v", join(path), call, err)
		}
	}
}

func TestComplete(t *testing.T) {
	for _, test := range []struct {
		line string // the words behind kvctl, the last being typed
		want string
	}{
		{"pu", "put"},
		{"-", "--endpoints --server --certs-dir --cacert --cert --key --login-file --timeout --output -o --json --no-color --version -v --help -h"},
		{"get --r", "--raw --revision"},
		{"put --f", "--file"},
		{"put --file ", ":files"},
		{"put --file=x", ":files"},
		{"put k ", ""},
		{"put pu", ""},
		{"-o ", "table json jsonl simple"},
		{"scan --re", "--reverse --revision"},
		{"scan ", ""},
		{"bench --consistency ", "linearizable stale"},
		{"delete --prefix p --progress ", "auto plain json none"},
		{"get k --output=js", "--output=json --output=jsonl"},
		{"get k -o js", "json jsonl"},
		{"get --consistency s", "stale"},
		{"completion ", "bash zsh fish"},
		{"completion bash ", ""},
		{"help d", "delete doctor dev"},
		{"snapshot ", "create list show save delete"},
		{"snapshot create --wa", "--wait"},
		{"compact --d", "--dry-run"},
		{"verify --pro", "--progress"},
		{"serve --hi", "--history-revisions --history-time"},
		{"bogus ", ""},
		{"put -- -", ""},
		{"--", "--endpoints --server --certs-dir --cacert --cert --key --login-file --timeout --output --json --no-color --version --help"},
		{"--endpoints 127.0.0.1:7001 sta", "status"},
	} {
		t.Run(test.line, func(t *testing.T) {
			got := run{}.kvctl(t, append([]string{completeWord}, strings.Split(test.line, " ")...)...)
			var words []string
			for line := range strings.Lines(got.out) {
				word, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
				words = append(words, word)
			}
			if diff := cmp.Diff(test.want, strings.Join(words, " ")); diff != "" {
				t.Error(diff)
			}
			if got.code != 0 || got.stderr != "" {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestNothingButJSON: with --json whatever is said beside the data is JSON too, a line each.
func TestNothingButJSON(t *testing.T) {
	for _, line := range []string{
		"snapshot list", "snapshot create --wait=false", "snapshot show none", "compact --yes", "verify", "status", "cluster health", "cluster members",
		"delete --prefix a --yes", "get missing", "put", "scan a",
	} {
		for _, down := range [][]string{nil, {"127.0.0.1:7003"}, {"127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"}} {
			r := fruit(t)
			r.cluster.down, r.tty = down, true
			got := r.kvctl(t, append(strings.Fields(line), "--json", "--timeout", "500ms")...)
			for said := range strings.Lines(got.stderr) {
				if !json.Valid([]byte(said)) {
					t.Errorf("%s --json with %d nodes down says %q", line, len(down), said)
				}
			}
			if got.out != "" && !json.Valid([]byte(got.out)) {
				t.Errorf("%s --json with %d nodes down prints %q", line, len(down), got.out)
			}
		}
	}
}

// TestTablesFitTheScreen: on a terminal no line of a table is longer than the screen is wide,
// whatever keys and values are.
func TestTablesFitTheScreen(t *testing.T) {
	r := run{cluster: newFake(), tty: true}
	for key, value := range map[string]string{
		"short": "v", strings.Repeat("k", 300): strings.Repeat("v", 3000), "wide": strings.Repeat("世界", 200), "lines": strings.Repeat("a\nb", 50),
	} {
		if got := r.kvctl(t, "put", key, value); got.code != 0 {
			t.Fatalf("%+v", got)
		}
	}
	got := r.kvctl(t, "scan")
	for line := range strings.Lines(got.out) {
		if width := pretty.StringWidth(line); width > 80 {
			t.Errorf("%d columns: %q", width, line)
		}
	}
	if got.code != 0 || strings.Count(got.out, "\n") != 5 || !strings.Contains(got.out, "... (3000 bytes)") || !strings.Contains(got.out, "... (300 bytes)  ") {
		t.Errorf("%+v", got)
	}
}

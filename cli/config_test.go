package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestServeSettings: the flag counts, else the variable, else the file. A mistake names
// where it stands. Each line ends at a mistake of its own, so no node starts.
func TestServeSettings(t *testing.T) {
	directory := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(directory, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good.toml", "name = \"n1\"\nlisten = \"127.0.0.1:7001\"\ninitial_cluster = \"n2=127.0.0.1:7002\"\nhistory-revisions = 7\n")
	for _, test := range []struct {
		name string
		env  map[string]string
		line string
		want string
	}{
		{"the file", nil, "serve --data d --config " + good, "--initial-cluster does not hold this node, n1"},
		{"a variable before the file", map[string]string{"KVCTL_NAME": "n3"}, "serve --data d --config " + good, "does not hold this node, n3"},
		{"the flag before both", map[string]string{"KVCTL_NAME": "n3"}, "serve --data d --name n4 --config " + good, "does not hold this node, n4"},
		{"the file named by a variable", map[string]string{"KVCTL_CONFIG": good, "KVCTL_DATA": "d"}, "serve", "does not hold this node, n1"},
		{"a bad value of a variable", map[string]string{"KVCTL_HISTORY_TIME": "soon"}, "serve --data d", `KVCTL_HISTORY_TIME: "soon" is no duration`},
		{"a bad value of the file", nil, "serve --data d --config " + write("value.toml", "history-time = \"soon\""), `value.toml: history-time: "soon" is no duration`},
		{"an unknown key", nil, "serve --data d --config " + write("key.toml", "lissten = 1"), `serve has no setting "lissten"`},
		{"a table", nil, "serve --data d --config " + write("table.toml", "[listen]\na=1"), "listen is neither a text"},
		{"no TOML", nil, "serve --data d --config " + write("none.toml", "listen: x"), "write it as TOML"},
		{"no file", nil, "serve --data d --config " + filepath.Join(directory, "missing"), "--config: open"},
		{"a log file that is none", nil, "serve --data d --log-file /dev/null", "--log-file: /dev/null is no regular file"},
		{"a log file by a variable", map[string]string{"KVCTL_LOG_FILE": directory}, "serve --data d", directory + " is no regular file"},
		{"a log file below one", nil, "serve --data d --log-file " + good + "/log", "--log-file: mkdir " + good},
		{"the size of a log file", nil, "serve --data d --config " + write("log.toml", "log-file = \"log\"\nlog-file-size = \"1kB\""), `log.toml: log-file-size: "1kB" is no size from 1.0 MiB to`},
		{"how many log files", map[string]string{"KVCTL_LOG_FILE_COUNT": "0"}, "serve --data d --log-file log", `KVCTL_LOG_FILE_COUNT: "0" is no number from 1 to 1000`},
		{"how old log files", nil, "serve --data d --log-file log --log-file-days many", `--log-file-days: "many" is no number from 0 to 3650`},
		{"the file of a log that is read by nobody", nil, "serve --data d --log-file-size 64MB", "--log-file-size has no meaning without --log-file"},
		{"an empty variable", map[string]string{"KVCTL_DATA": ""}, "serve", "serve needs --data DIR"},
	} {
		got := run{env: test.env}.kvctl(t, strings.Fields(test.line)...)
		if got.check(t, 2, ""); !strings.Contains(got.stderr, test.want) {
			t.Errorf("%s: %s", test.name, got.stderr)
		}
	}
}

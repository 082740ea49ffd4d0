package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyval/messages"
)

// What is exported is imported, whatever bytes it has.
func TestExportAndImport(t *testing.T) {
	from := run{cluster: newFake()}
	store, err := from.cluster.reach([]string{"127.0.0.1:7001"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3000 {
		value := []byte{byte(i), byte(i >> 8), 0xff, '"', '\n', 0}
		if i%2 == 0 {
			value = fmt.Appendf(nil, "<text & %d\u2028\t>", i)
		}
		if _, err := store.Put(t.Context(), fmt.Appendf(nil, "key\n\xff%04d", i), value); err != nil {
			t.Fatal(err)
		}
	}
	lines := from.kvctl(t, "export")
	if lines.code != 0 || strings.Count(lines.out, "\n") != 3000 || !strings.Contains(lines.stderr, "exported 3000 keys") {
		t.Fatalf("%d, %s", lines.code, lines.stderr)
	}
	path := filepath.Join(t.TempDir(), "all.jsonl")
	from.kvctl(t, "export", "--file", path).check(t, 0, "")
	if file, err := os.ReadFile(path); err != nil || string(file) != lines.out {
		t.Errorf("%d bytes, %v", len(file), err)
	}
	from.kvctl(t, "export", "--file", path).check(t, 7, "")
	for name, argv := range map[string][]string{"a file": {"import", path, "--json"}, "stdin": {"import", "-", "--json"}, "twice": {"import", path, "--json"}} {
		to := run{cluster: newFake(), stdin: strings.NewReader(lines.out)}
		for range map[string]int{"a file": 1, "stdin": 1, "twice": 2}[name] {
			got := to.kvctl(t, argv...)
			if row := fields(t, got.out); got.code != 0 || row["keys"] != "3000" || row["lines"] != "3000" {
				t.Fatalf("%s: %+v", name, got)
			}
		}
		if len(to.cluster.items) != 3000 {
			t.Errorf("%s: %d keys", name, len(to.cluster.items))
		}
		for key, item := range from.cluster.items {
			if !bytes.Equal(to.cluster.items[key].Value, item.Value) {
				t.Fatalf("%s: %q has %q, not %q", name, key, to.cluster.items[key].Value, item.Value)
			}
		}
	}
	// Lines of a scan are an export too.
	to := run{cluster: newFake(), stdin: strings.NewReader(from.kvctl(t, "scan", "-o", "jsonl").out)}
	if got := to.kvctl(t, "import", "-"); got.code != 0 || len(to.cluster.items) != 3000 {
		t.Errorf("%+v", got)
	}
}

func TestImportOfWhatIsNoExport(t *testing.T) {
	for line, says := range map[string]string{
		`x`: "is not one JSON object", `{"key":"k"}`: "value: it stands there once", `{"key":"","value":""}`: "the key is empty",
		`{"key":"k","key_base64":"aw==","value":""}`: "key: it stands there once", `{"key_base64":"!","value":""}`: "key: illegal base64",
	} {
		r := run{cluster: newFake(), stdin: strings.NewReader(`{"key":"good","value":"1"}` + "\n" + line + "\n")}
		got := r.kvctl(t, "import", "-")
		if got.code != 2 || !strings.Contains(got.stderr, "1 line stored: line 2: ") || !strings.Contains(got.stderr, says) || len(r.cluster.items) != 1 {
			t.Errorf("%s: %+v", line, got)
		}
	}
}

// The last line of a key has the last word, in whichever batch it stands; an import that
// breaks says where it goes on.
func TestImportKeepsOrderAndGoesOn(t *testing.T) {
	var lines strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&lines, "{\"key\":\"k%d\",\"value\":\"%d\"}\n", i%700, i)
	}
	r := run{cluster: newFake(), stdin: strings.NewReader(lines.String())}
	puts := 0
	r.cluster.onPut = func() *messages.Error {
		r.cluster.mu.Lock()
		defer r.cluster.mu.Unlock()
		if puts++; puts == 2500 {
			return messages.Errorf(messages.Code_OUTCOME_UNKNOWN, "the link broke")
		}
		return nil
	}
	broke := r.kvctl(t, "import", "-")
	if broke.code != 8 || !strings.Contains(broke.stderr, "go on with --skip 2100") {
		t.Fatalf("%+v", broke)
	}
	r.stdin = strings.NewReader(lines.String())
	if got := r.kvctl(t, "import", "-", "--skip", "2100", "--json"); got.code != 0 || fields(t, got.out)["lines"] != "5000" || fields(t, got.out)["keys"] != "2900" {
		t.Fatalf("%+v", got)
	}
	for i := 4300; i < 5000; i++ {
		if got := string(r.cluster.items[fmt.Sprintf("k%d", i%700)].Value); got != fmt.Sprint(i) {
			t.Fatalf("k%d is %s, not %d", i%700, got, i)
		}
	}
	r.stdin = strings.NewReader(lines.String())
	r.kvctl(t, "import", "-", "--skip", "5001").check(t, 2, "")
	dry := run{cluster: newFake(), stdin: strings.NewReader(lines.String())}
	if got := dry.kvctl(t, "import", "-", "--dry-run"); got.code != 0 || !strings.HasPrefix(got.out, "would import 5000 keys") || len(dry.cluster.items) != 0 {
		t.Errorf("%+v", got)
	}
	dry.kvctl(t, "import", "none.jsonl").check(t, 3, "")
}

//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"keyval/actors/client"
	"keyval/messages"
)

// countersEnv is how long clients count, as a duration; 6 s if it is not set.
const countersEnv = "KEYVAL_COUNTERS"

const (
	countersCount = 10 // clients of one counter
	byKvctlCount  = 3  // of them: each step is a process, kvctl put --if-revision
)

// counter is a client in a loop: it reads the counter, and writes one more if nobody
// else has meanwhile.
type counter struct {
	p        *processes
	id       int
	client   *client.Client    // nil: by kvctl
	counted  map[string]uint64 // value -> revision of what was acknowledged
	refused  map[string]bool   // values that were never written
	unknown  map[string]bool
	attempts int
}

// Ten clients on one counter, while leaders die: no count is lost and none counted
// twice. The past of the counter is read back, version by version.
func TestCounterUnderKilledLeaders(t *testing.T) {
	last := 6 * time.Second
	if s := os.Getenv(countersEnv); s != "" {
		var err error
		if last, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	p := startCluster(t, 3)
	p.leader()
	stop := make(chan struct{})
	var working sync.WaitGroup
	counters := make([]*counter, countersCount)
	for i := range counters {
		c := &counter{p: p, id: i, counted: map[string]uint64{}, refused: map[string]bool{}, unknown: map[string]bool{}}
		if i >= byKvctlCount {
			c.client = p.connect(p.endpoints...)
		}
		counters[i] = c
		working.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					c.count()
				}
			}
		})
	}
	kills := 0
	for until := time.Now().Add(last); time.Now().Before(until); kills++ {
		time.Sleep(1500 * time.Millisecond)
		leader := p.leader()
		p.kill(leader)
		time.Sleep(300 * time.Millisecond)
		p.start(leader)
	}
	close(stop)
	working.Wait()
	checkCounter(t, p, counters, kills)
}

// checkCounter holds what clients were told against every version of the counter.
func checkCounter(t *testing.T, p *processes, counters []*counter, kills int) {
	t.Helper()
	c := p.connect(p.endpoints...)
	written := map[string]uint64{}
	newest, err := c.Get(context.Background(), []byte("counter"))
	for at := newest; err == nil; {
		n, _, _ := strings.Cut(string(at.Value), " ")
		if count, _ := strconv.ParseUint(n, 10, 64); count != at.Version || at.CreateRevision == 0 {
			t.Fatalf("version %d, created at %d, counts %q", at.Version, at.CreateRevision, at.Value)
		}
		if written[string(at.Value)] != 0 {
			t.Fatalf("%q was written at revisions %d and %d", at.Value, at.Revision, written[string(at.Value)])
		}
		written[string(at.Value)] = at.Revision
		if at.Revision == at.CreateRevision {
			break
		}
		at, err = c.Get(context.Background(), []byte("counter"), client.AtRevision(at.Revision-1))
	}
	if err != nil {
		t.Fatal(err)
	}
	acknowledged, unknown, happened, refused := 0, 0, 0, 0
	for _, c := range counters {
		for value, revision := range c.counted {
			if written[value] != revision {
				t.Errorf("client %d was told that %q is written at revision %d; it is at %d", c.id, value, revision, written[value])
			}
		}
		for value := range c.refused {
			if written[value] != 0 {
				t.Errorf("client %d was refused %q, which is written at revision %d", c.id, value, written[value])
			}
		}
		for value := range c.unknown {
			if written[value] != 0 {
				happened++
			}
		}
		acknowledged, unknown, refused = acknowledged+len(c.counted), unknown+len(c.unknown), refused+len(c.refused)
	}
	if uint64(acknowledged+happened) != newest.Version || len(written) != acknowledged+happened {
		t.Errorf("the counter is at %d: %d were acknowledged, and of %d in doubt %d happened", newest.Version, acknowledged, unknown, happened)
	}
	if acknowledged == 0 || refused == 0 {
		t.Errorf("%d were acknowledged and %d refused: nothing was tried", acknowledged, refused)
	}
	t.Logf("counted to %d under %d killed leaders: %d acknowledged, %d refused, %d in doubt of which %d happened",
		newest.Version, kills, acknowledged, refused, unknown, happened)
}

// count is one turn of the loop.
func (c *counter) count() {
	revision, value, ok := c.read()
	if !ok {
		return
	}
	n, _, _ := strings.Cut(value, " ")
	count, _ := strconv.Atoi(n) // of nothing: 0
	c.attempts++
	next := fmt.Sprintf("%d by %d, attempt %d", count+1, c.id, c.attempts)
	at, code := c.write(next, revision)
	switch code {
	case messages.Code_OK:
		c.counted[next] = at
	case messages.Code_OUTCOME_UNKNOWN:
		c.unknown[next] = true
	default:
		c.refused[next] = true
	}
}

func (c *counter) read() (revision uint64, value string, ok bool) {
	if c.client != nil {
		r, err := c.client.Get(context.Background(), []byte("counter"))
		code := messages.CodeOf(err)
		return r.Revision, string(r.Value), code == messages.Code_OK || code == messages.Code_NOT_FOUND
	}
	out, _, code := c.p.kvctl("get", "counter", "--json")
	if code == 3 {
		return 0, "", true
	}
	row := struct {
		Value    string
		Revision uint64 `json:",string"`
	}{}
	return row.Revision, row.Value, code == 0 && json.Unmarshal([]byte(out), &row) == nil && row.Revision > 0
}

func (c *counter) write(value string, revision uint64) (at uint64, code messages.Code) {
	if c.client != nil {
		r, err := c.client.Put(context.Background(), []byte("counter"), []byte(value), client.IfRevision(revision))
		return r.Revision, messages.CodeOf(err)
	}
	out, said, exit := c.p.kvctl("put", "counter", value, "--if-revision", fmt.Sprint(revision), "--json")
	answer := struct {
		Code     string
		Revision uint64 `json:",string"`
	}{}
	if err := json.Unmarshal([]byte(out+said), &answer); err != nil || (exit == 0) != (answer.Code == "") || (exit == 7) != (answer.Code == "CONFLICT") {
		c.p.t.Errorf("kvctl put exits %d and says %q %q", exit, out, said)
	}
	return answer.Revision, messages.Code(messages.Code_value[answer.Code]) // nothing is OK
}

// What takes a revision and which one is answered, as scripts see it.
func TestRevisionsAsScriptsSeeThem(t *testing.T) {
	t.Parallel()
	p := startCluster(t, 3)
	p.leader()
	for _, row := range []struct {
		line   string
		exit   int
		answer string // fields of the JSON on either output
	}{
		{"get k", 3, "code=NOT_FOUND"},
		{"delete k", 0, "revision=0 deleted=false"},
		{"put k one --if-revision 3", 7, "code=CONFLICT current.revision=0 current.read_revision=0"},
		{"put k one --if-absent", 0, "revision=1"},
		{"put k two", 0, "revision=2"},
		{"put k two", 0, "revision=3"},
		{"get k", 0, "revision=3 create_revision=1 version=3 read_revision=3"},
		{"put k four --if-revision 2", 7, "code=CONFLICT current.revision=3 current.version=3 current.value=two current.read_revision=3"},
		{"delete x", 0, "revision=3 deleted=false"},
		{"delete k --if-revision 1", 7, "code=CONFLICT current.revision=3"},
		{"put a/1 x", 0, "revision=4"},
		{"put a/2 x", 0, "revision=5"},
		{"delete --prefix a/ --yes", 0, "revision=6 deleted_keys=2"},
		{"delete --prefix a/ --yes", 0, "revision=6 deleted_keys=0"},
		{"compact --revision 2 --yes", 0, "revision=6 compacted_revision=2"},
		{"get k --revision 1", 1, "code=COMPACTED"},
		{"delete k --if-revision 3", 0, "revision=7 deleted=true"},
		{"put k again --if-absent", 0, "revision=8"},
		{"get k", 0, "revision=8 create_revision=8 version=1 read_revision=8"},
	} {
		out, said, exit := p.kvctl(append(strings.Fields(row.line), "--json")...)
		all := map[string]any{}
		if err := json.Unmarshal([]byte(out), &all); err != nil {
			err = json.Unmarshal([]byte(said), &all)
			if err != nil {
				t.Fatalf("%s says %q %q: %v", row.line, out, said, err)
			}
		}
		current, _ := all["current"].(map[string]any)
		for _, field := range strings.Fields(row.answer) {
			name, want, _ := strings.Cut(field, "=")
			got := all[name]
			if inner, is := strings.CutPrefix(name, "current."); is {
				got = current[inner]
			}
			if fmt.Sprint(got) != want {
				t.Errorf("%s: %s is %v, not %s: %s%s", row.line, name, got, want, out, said)
			}
		}
		if exit != row.exit {
			t.Errorf("%s exits %d, not %d: %s%s", row.line, exit, row.exit, out, said)
		}
	}
}

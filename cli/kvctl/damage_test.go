//go:build linux

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"keyval/actors/client"
	"keyval/messages"
)

// damageEnv asks TestDamage for all cases, or for those of some kinds: table,state/
const damageEnv = "KEYVAL_DAMAGE"

// damaged is a kind of file, or of directory, of a stopped node. found is relative to its
// directory; "": there is none.
type damaged struct {
	kind    string
	find    func(dir string) string
	rebuild bool // whatever befalls it, the log is sound: kvctl rebuild must do
	tables  bool // it is there once the node was ended in order
	memory  bool // it holds something once the node was killed
}

// inGeneration finds the last file of a pattern, which is the newest, in the generation that counts.
func inGeneration(pattern string) func(string) string {
	return func(dir string) string {
		current, _ := os.ReadFile(filepath.Join(dir, "CURRENT"))
		found, _ := filepath.Glob(filepath.Join(dir, strings.TrimSpace(string(current)), pattern))
		if len(found) == 0 {
			return ""
		}
		relative, _ := filepath.Rel(dir, found[len(found)-1])
		return relative
	}
}

// fullest finds, beside what find does, the file in which most was written.
func fullest(find func(string) string) func(string) string {
	return func(dir string) string {
		path := find(dir)
		most := 0
		beside, _ := filepath.Glob(filepath.Join(dir, filepath.Dir(path), "*"+filepath.Ext(path)))
		for _, other := range beside {
			if b, err := os.ReadFile(other); err == nil && written(b) > most {
				most = written(b)
				path, _ = filepath.Rel(dir, other)
			}
		}
		return path
	}
}

func inDirectory(pattern string) func(string) string {
	return func(dir string) string {
		found, _ := filepath.Glob(filepath.Join(dir, pattern))
		if len(found) == 0 {
			return ""
		}
		relative, _ := filepath.Rel(dir, found[0])
		return relative
	}
}

var damagedFiles = []damaged{
	{kind: "log segment", find: inGeneration("wal/*.wal")},
	{kind: "spare segment", find: inGeneration("wal/*.tmp"), rebuild: true, memory: true},
	{kind: "witness", find: inGeneration("witness")},
	{kind: "starts", find: inGeneration("starts")},
	{kind: "heard", find: inDirectory("heard"), rebuild: true},
	{kind: "checkpoint", find: inGeneration("checkpoint"), rebuild: true},
	{kind: "table", find: inGeneration("state/*.sst"), rebuild: true, tables: true},
	{kind: "memtable", find: fullest(inGeneration("state/*.mem")), rebuild: true, memory: true},
	{kind: "value log", find: inGeneration("state/*.vlog"), rebuild: true, memory: true},
	{kind: "MANIFEST", find: inGeneration("state/MANIFEST"), rebuild: true},
	{kind: "DISCARD", find: inGeneration("state/DISCARD"), rebuild: true},
	{kind: "KEYREGISTRY", find: inGeneration("state/KEYREGISTRY"), rebuild: true},
	{kind: "CURRENT", find: inDirectory("CURRENT")},
	{kind: "identity", find: inDirectory("identity")},
	{kind: "LOCK", find: inDirectory("LOCK"), rebuild: true},
	{kind: "snapshot file", find: inDirectory("snapshots/*"), rebuild: true},
}

var damagedDirectories = []damaged{
	{kind: "state/", find: inGeneration("state"), rebuild: true},
	{kind: "wal/", find: inGeneration("wal")},
	{kind: "generation-N/", find: inGeneration(".")},
	{kind: "snapshots/", find: inDirectory("snapshots"), rebuild: true},
	{kind: "whole directory", find: func(string) string { return "." }},
}

// damage is something that befalls a file. It reports false where that changes nothing.
type damage struct {
	name string
	do   func(path, other, older string) (bool, error)
}

// written is how much of a file comes before its first block of zeros: behind it may stand what
// was mapped and never counted.
func written(b []byte) int {
	if at := bytes.Index(b, make([]byte, 4096)); at > 0 {
		b = b[:at]
	}
	return max(1, len(bytes.TrimRight(b, "\x00")))
}

// inPlace damages the bytes of a file, of which used were written.
func inPlace(name string, change func(b []byte, used int) []byte) damage {
	return damage{name, func(path, _, _ string) (bool, error) {
		before, err := os.ReadFile(path)
		if err != nil || len(before) == 0 {
			return false, err
		}
		after := change(bytes.Clone(before), written(before))
		return !bytes.Equal(before, after), os.WriteFile(path, after, 0o600)
	}}
}

func flip(part, of int) damage {
	return inPlace(fmt.Sprintf("bit flipped at %d/%d", part, of), func(b []byte, used int) []byte {
		b[min(used-1, used*part/of)] ^= 0x10
		return b
	})
}

// inPlaceOf puts a copy in the place of a file or a directory.
func inPlaceOf(name string, which func(other, older string) string) damage {
	return damage{name, func(path, other, older string) (bool, error) {
		from := which(other, older)
		if from == "" {
			return false, nil
		}
		if out, err := exec.Command("diff", "-rq", from, path).CombinedOutput(); err == nil {
			return false, nil
		} else if len(out) == 0 {
			return false, err
		}
		if err := os.RemoveAll(path); err != nil {
			return false, err
		}
		out, err := exec.Command("cp", "-a", from, path).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return true, err
	}}
}

var (
	missing = damage{"missing", func(path, _, _ string) (bool, error) { return true, os.RemoveAll(path) }}
	emptied = damage{"emptied", func(path, _, _ string) (bool, error) {
		entries, err := os.ReadDir(path)
		if err != nil {
			info, err := os.Stat(path)
			return err == nil && info.Size() > 0, os.Truncate(path, 0)
		}
		for _, e := range entries {
			if err := os.RemoveAll(filepath.Join(path, e.Name())); err != nil {
				return false, err
			}
		}
		return len(entries) > 0, nil
	}}
	swapped   = inPlaceOf("another node's", func(other, _ string) string { return other })
	olderCopy = inPlaceOf("an older copy", func(_, older string) string { return older })
)

var fileDamages = []damage{
	flip(0, 1), flip(1, 8), flip(1, 4), flip(1, 2), flip(3, 4), flip(1, 1),
	inPlace("cut in the middle", func(b []byte, used int) []byte { return b[:used/2] }),
	inPlace("last byte cut", func(b []byte, used int) []byte { return b[:used-1] }),
	inPlace("zeros in its midst", func(b []byte, used int) []byte {
		clear(b[used/2 : min(used, used/2+4096)])
		return b
	}),
	missing, emptied, swapped, olderCopy,
}

// A node of three is stopped, one of its files is damaged, and it is started again: it may
// serve, or refuse, or end; it never serves what was not written, and what was acknowledged
// is there on every node in the end. Where it refuses, kvctl rebuild makes it whole, or says
// that a replace does, which is done then.
func TestDamage(t *testing.T) {
	t.Parallel()
	all := os.Getenv(damageEnv) != ""
	d := newDamageTable(t)
	for i, files := range [][]damaged{damagedFiles, damagedDirectories} {
		for j, f := range files {
			damages := fileDamages
			if i == 1 {
				damages = []damage{missing, emptied, swapped, olderCopy}
			}
			for k, how := range damages {
				if asked := os.Getenv(damageEnv); all && asked != "1" && !slices.Contains(strings.Split(asked, ","), f.kind) {
					continue
				}
				if !all && (i*len(damagedFiles)+j+4*k)%29 != 0 {
					continue
				}
				d.run(f, how, (j+k)%2 == 0)
				if t.Failed() {
					t.Fatalf("after %s, %s", f.kind, how.name)
				}
			}
		}
	}
	d.print()
	done := len(d.rows) - d.unchanged
	if os.Getenv(damageEnv) == "1" && done < 200 {
		t.Errorf("only %d cases", done)
	}
	if all && *rewrite {
		d.document()
	}
}

// TestDamageIsDocumented: the table of OPERATIONS.md has every kind of file.
func TestDamageIsDocumented(t *testing.T) {
	_, table, _ := damageInDocs(t)
	for _, f := range slices.Concat(damagedFiles, damagedDirectories) {
		if !strings.Contains(table, "\n| "+f.kind+" |") {
			t.Errorf("there is no row of %s: KEYVAL_DAMAGE=1 go test ./cli/kvctl -run 'TestDamage$' -rewrite", f.kind)
		}
	}
}

const damageDocs = "../../docs/OPERATIONS.md"

// damageInDocs is what stands before the table, the table, and what stands behind it.
func damageInDocs(t *testing.T) (before, table, after string) {
	t.Helper()
	const begin, end = "<!-- damage: made by TestDamage -->\n", "<!-- end of damage -->\n"
	all, err := os.ReadFile(damageDocs)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begun := strings.Cut(string(all), begin)
	table, after, ended := strings.Cut(rest, end)
	if !begun || !ended {
		t.Fatalf("%s has no table of damage", damageDocs)
	}
	return before + begin, table, end + after
}

// document writes what the nodes did into OPERATIONS.md: a row for each kind of file, and a column for
// each kind of damage. Of kinds that were not tried the row stays.
func (d *damageTable) document() {
	d.t.Helper()
	did := map[[2]string]map[string]int{}
	for _, r := range d.rows {
		column := r[1]
		if strings.HasPrefix(column, "bit flipped") {
			column = "bit flipped"
		}
		what, _, _ := strings.Cut(r[2], ":")
		if r[3] == "rebuilt" || r[3] == "replaced" {
			what = r[3]
		}
		at := [2]string{r[0], column}
		if did[at] == nil {
			did[at] = map[string]int{}
		}
		did[at][what]++
	}
	columns := []string{"bit flipped"}
	for _, how := range fileDamages {
		if !strings.HasPrefix(how.name, "bit flipped") {
			columns = append(columns, how.name)
		}
	}
	before, table, after := damageInDocs(d.t)
	var b strings.Builder
	fmt.Fprintf(&b, "| damaged | %s |\n|---|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, f := range slices.Concat(damagedFiles, damagedDirectories) {
		if !slices.ContainsFunc(d.rows, func(r [4]string) bool { return r[0] == f.kind }) {
			if _, row, there := strings.Cut(table, "\n| "+f.kind+" |"); there {
				row, _, _ = strings.Cut(row, "\n")
				fmt.Fprintf(&b, "| %s |%s\n", f.kind, row)
			}
			continue
		}
		fmt.Fprintf(&b, "| %s |", f.kind)
		for _, column := range columns {
			cell := did[[2]string{f.kind, column}]
			var all []string
			for _, what := range slices.Sorted(maps.Keys(cell)) {
				if len(cell) > 1 {
					what = fmt.Sprintf("%d %s", cell[what], what)
				}
				all = append(all, what)
			}
			fmt.Fprintf(&b, " %s |", cmp.Or(strings.Join(all, ", "), "–"))
		}
		b.WriteString("\n")
	}
	if err := os.WriteFile(damageDocs, []byte(before+b.String()+after), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

// damageTable is a cluster, whose last node is damaged again and again.
type damageTable struct {
	*processes
	client    *client.Client // of all nodes
	values    map[string]string
	other     string // a copy of another node's directory
	older     string // one of the damaged node's, from some writes before
	rows      [][4]string
	unchanged int // rows where nothing was altered
	lost      int // directories that were moved away
}

const damagedNode = 2

func newDamageTable(t *testing.T) *damageTable {
	p := startCluster(t, 3)
	p.leader()
	d := &damageTable{processes: p, client: p.connect(p.endpoints...), values: map[string]string{}}
	d.write(600)
	d.take("snapshot", "create", "--node", "n2")
	p.caughtUp(1, 20*time.Second)
	d.end(1, true)
	d.other = d.copyOf(1, "other")
	p.start(1)
	p.leader()
	d.take("snapshot", "create", "--node", "n3")
	p.caughtUp(damagedNode, 20*time.Second)
	return d
}

// take runs a command that must succeed.
func (d *damageTable) take(args ...string) string {
	d.t.Helper()
	return d.done(append(args, "--timeout", "20s")...)
}

func (d *damageTable) write(n int) {
	d.t.Helper()
	for range n {
		key := fmt.Sprintf("damage/%05d", len(d.values))
		value := strings.Repeat(key, 60)
		if _, err := d.client.Put(context.Background(), []byte(key), []byte(value)); err != nil {
			d.t.Fatalf("put: %v", err)
		}
		d.values[key] = value
	}
}

// end ends a node in order, or as kill -9 does.
func (d *damageTable) end(i int, inOrder bool) {
	d.t.Helper()
	c := d.running[i]
	if !inOrder {
		d.kill(i)
		return
	}
	d.signal(i, syscall.SIGTERM)
	<-c.ended
	d.set(i, nil)
}

func (d *damageTable) copyOf(i int, name string) string {
	d.t.Helper()
	to := filepath.Join(d.dir, name)
	if out, err := exec.Command("sh", "-c", `rm -rf "$1" && cp -a "$0" "$1"`, d.data(i), to).CombinedOutput(); err != nil {
		d.t.Fatalf("%v: %s", err, out)
	}
	return to
}

func (d *damageTable) run(f damaged, how damage, inOrder bool) {
	d.t.Helper()
	inOrder = (inOrder || f.tables) && !f.memory
	if how.name == olderCopy.name {
		d.end(damagedNode, inOrder)
		d.older = d.copyOf(damagedNode, "older")
		d.start(damagedNode)
		d.caughtUp(damagedNode, 30*time.Second)
		d.write(5)
		d.take("compact", "--yes")
	}
	if found, _ := filepath.Glob(filepath.Join(d.data(damagedNode), "snapshots", "*")); len(found) == 0 {
		d.take("snapshot", "create", "--node", "n3")
	}
	d.write(3)
	d.caughtUp(damagedNode, 30*time.Second)
	if f.memory { // what is below a checkpoint is not written anew, and stays in memory until much has come
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			if s := d.status(damagedNode); s != nil && s.CheckpointIndex == s.Applied {
				break
			}
			if time.Now().After(deadline) {
				d.t.Fatal("n3 makes no checkpoint of all that it has applied")
			}
		}
	}
	d.end(damagedNode, inOrder)
	dir := d.data(damagedNode)
	path := f.find(dir)
	if path == "" {
		d.t.Errorf("n3 has no %s", f.kind)
		return
	}
	paths := [3]string{filepath.Join(dir, path)}
	for i, copied := range []string{d.other, d.older} {
		if at := ""; copied != "" {
			if at = f.find(copied); at != "" {
				paths[i+1] = filepath.Join(copied, at)
			}
		}
	}
	changed, err := how.do(paths[0], paths[1], paths[2])
	if err != nil {
		d.t.Fatalf("%s, %s: %v", f.kind, how.name, err)
	}
	d.write(2)
	row := [4]string{f.kind, how.name, "the same bytes", ""}
	if !changed {
		d.unchanged++
	}
	did, then := d.restart(f)
	if strings.HasPrefix(f.kind, "snapshot") {
		then = strings.TrimPrefix(then+", "+d.fetched(), ", ")
	}
	if changed || did != "serves" {
		row[2], row[3] = did, then
	}
	d.rows = append(d.rows, row)
	d.t.Logf("%s, %s: %s %s", row[0], row[1], row[2], row[3])
}

// restart starts the damaged node, and sees to it that it is a whole one again.
func (d *damageTable) restart(f damaged) (did, then string) {
	d.t.Helper()
	entries, _ := os.ReadDir(d.data(damagedNode))
	if len(entries) == 0 { // it would need the flags of a first start
		d.start(damagedNode, d.first(damagedNode)...)
	} else {
		d.start(damagedNode)
	}
	said, served := d.watch()
	if served {
		return "serves", ""
	}
	_, last, _ := strings.Cut(said, "kvctl: ")
	last, next, _ := strings.Cut(last, "\n")
	if !strings.Contains(next, "next: ") {
		d.t.Errorf("n3 says no next step:\n%s", said)
	}
	did = "refuses: " + strings.ReplaceAll(last, d.data(damagedNode), "DIR")
	out, stderr, code := d.processes.kvctl("rebuild", "--data", d.data(damagedNode), "--yes", "--json")
	switch {
	case code == 0:
		then = "rebuilt"
		d.start(damagedNode)
	case f.rebuild || !strings.Contains(stderr, "cluster replace") || strings.Contains(stderr, "cluster replace n1") || strings.Contains(stderr, "cluster replace n2"):
		d.t.Errorf("rebuild ends with %d: %s%s\nn3 had said: %s", code, out, stderr, said)
		return did, "not rebuilt"
	default:
		then = "replaced"
		d.lost++
		if err := os.Rename(d.data(damagedNode), fmt.Sprintf("%s.lost-%d", d.data(damagedNode), d.lost)); err != nil && !os.IsNotExist(err) {
			d.t.Fatal(err)
		}
		d.take("cluster", "replace", "n3", "n3", d.listens[damagedNode], "--yes", "--wait=false")
		d.await("the new n3 is a learner", func(v *messages.ClusterView) bool { return len(v.Members) == 4 }) // before, its name is another's
		d.start(damagedNode, d.joins(damagedNode, d.listens[0], d.listens[1])...)
		d.await("n3 is replaced", func(v *messages.ClusterView) bool {
			return !slices.ContainsFunc(v.Operations, func(o *messages.ClusterOperation) bool { return o.Phase != messages.OperationPhase_COMPLETE })
		})
	}
	if said, served := d.watch(); !served {
		d.t.Errorf("%s, n3 ends:\n%s", then, said)
	}
	os.RemoveAll(filepath.Join(d.data(damagedNode), "set-aside-1"))
	return did, then
}

// fetched fetches the snapshot files that the node still lists: what comes is a whole backup, or
// kvctl says that it is damaged, and nothing comes.
func (d *damageTable) fetched() string {
	d.t.Helper()
	var files []struct {
		ID    string `json:"id"`
		Node  string `json:"node"`
		Error string `json:"error"`
	}
	if err := json.Unmarshal([]byte(d.take("snapshot", "list", "--json")), &files); err != nil {
		d.t.Fatal(err)
	}
	whole, refused := 0, 0
	for _, f := range files {
		if f.Node != "n3" {
			continue
		}
		path := filepath.Join(d.dir, "fetched.kvb")
		out, stderr, code := d.processes.kvctl("snapshot", "save", f.ID, path, "--node", "n3", "--timeout", "20s")
		_, missing := os.Stat(path)
		switch {
		case code == 0 && f.Error == "":
			whole++
			d.take("backup", "verify", path)
		case code != 0 && os.IsNotExist(missing) && (strings.Contains(stderr, "damaged") || f.Error != ""):
			refused++
			if out, stderr, code := d.processes.kvctl("snapshot", "delete", f.ID, "--node", "n3", "--yes"); code != 0 {
				d.t.Errorf("a damaged file cannot be deleted: %d: %s%s", code, out, stderr)
			}
		default:
			d.t.Errorf("%s is listed with %q, and save ends with %d: %s%s", f.ID, f.Error, code, out, stderr)
		}
		os.Remove(path)
	}
	return fmt.Sprintf("%d of its files are whole, %d refused", whole, refused)
}

// watch reads what the node serves until it has all, or has ended by itself, and returns
// what it said then. All of it is what was written.
func (d *damageTable) watch() (said string, served bool) {
	d.t.Helper()
	c := d.running[damagedNode]
	goal := uint64(0)
	for i := range 2 {
		if s := d.status(i); s != nil {
			goal = max(goal, s.Commit)
		}
	}
	for deadline := time.Now().Add(40 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		select {
		case <-c.ended:
			d.set(damagedNode, nil)
			return c.log.String(), false
		default:
		}
		s := d.status(damagedNode)
		if s == nil || s.Role == "suspected" {
			continue
		}
		_ = d.scan(client.ScanOptions{Stale: true})
		switch found := d.scan(client.ScanOptions{}); {
		case found == unanswered || s.Applied < goal:
			continue
		case found < len(d.values):
			d.t.Errorf("n3 says that there are %d keys, %d were acknowledged", found, len(d.values))
			continue
		}
		if out, stderr, code := d.processes.kvctl("verify", "--timeout", "20s"); code != 0 {
			d.t.Errorf("verify ends with %d: %s%s", code, out, stderr)
		}
		return "", true
	}
	d.t.Errorf("n3 neither serves nor ends: %v\n%s", d.status(damagedNode), &c.log)
	d.kill(damagedNode)
	return "", false
}

const unanswered = -1

// scan counts what the node alone says that there is. It must be what was written.
func (d *damageTable) scan(o client.ScanOptions) (count int) {
	d.t.Helper()
	c, err := client.Connect(context.Background(), client.Options{Endpoints: []string{d.listens[damagedNode]}, Pinned: true, Timeout: 2 * time.Second})
	if err != nil {
		return unanswered
	}
	defer c.Close()
	for item, err := range c.Scan(context.Background(), []byte("damage/"), []byte("damage0"), o) {
		if err != nil {
			return unanswered
		}
		if want := d.values[string(item.Key)]; want != string(item.Value) {
			d.t.Errorf("n3 serves another value of %s: %.40q", item.Key, item.Value)
		}
		count++
	}
	return count
}

// print shows what came of it.
func (d *damageTable) print() {
	counts := map[string]int{}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FILE\tDAMAGE\tTHE NODE\tTHEN")
	for _, r := range d.rows {
		what := r[2]
		if at := strings.IndexByte(what, ':'); at > 0 {
			what = what[:at]
		}
		counts[strings.TrimSpace(what+" "+r[3])]++
		if len(r[2]) > 90 {
			r[2] = r[2][:90] + "..."
		}
		fmt.Fprintln(w, strings.Join(r[:], "\t"))
	}
	w.Flush()
	fmt.Fprintf(&b, "\n%d cases, of which %d altered nothing:", len(d.rows), d.unchanged)
	for _, what := range slices.Sorted(func(yield func(string) bool) {
		for what := range counts {
			if !yield(what) {
				return
			}
		}
	}) {
		fmt.Fprintf(&b, " %d %s;", counts[what], what)
	}
	d.t.Logf("\n%s", b.String())
}

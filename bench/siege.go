package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"keyval/actors/client"
)

// A siege is a measurement while busy loops take the cores from nodes and clients.
// It asks for other figures: what stopped, and for how long.

// busyArg makes this program a busy loop. There are busyMax at most.
const (
	busyArg = "busy"
	busyMax = 256
)

const (
	// operationMax is when an operation under siege has failed. It is the default
	// of KeyVal's client; etcd's waits for ever.
	operationMax = 10 * time.Second
	// lookEvery is how often each node is asked whether it leads, and lookMax how
	// long it may take to say so.
	lookEvery = 100 * time.Millisecond
	lookMax   = 2 * time.Second
	// weighEvery is how often the nodes' memory is read.
	weighEvery = 250 * time.Millisecond
)

// siege is what one measurement under siege found.
type siege struct {
	LongestStop float64 `json:"longest_stop_s"`       // in which no client had an answer
	Leaderless  float64 `json:"longest_leaderless_s"` // at most: a node's answer may come late
	Elections   uint64  `json:"elections"`            // terms begun
	Node        float64 `json:"peak_anonymous_node_mb"`
	All         float64 `json:"peak_anonymous_all_mb"`
}

// busyLoop takes what it can get of one core.
func busyLoop() {
	runtime.GOMAXPROCS(1)
	for i := 0; ; i++ {
		_ = i
	}
}

// startLoops starts n busy loops as processes of their own.
func startLoops(n int, dir string) (*nodes, error) {
	loops := &nodes{}
	self, err := os.Executable()
	if err != nil {
		return loops, err
	}
	for i := range n {
		if err := loops.start(filepath.Join(dir, fmt.Sprintf("busy%d.log", i)), self, busyArg); err != nil {
			return loops, err
		}
	}
	return loops, nil
}

// confine keeps this process, and those that it starts, on n of its cores.
func confine(n int) error {
	var all, few unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return err
	}
	if n == 0 || all.Count() <= n {
		return nil
	}
	for cpu := 0; few.Count() < n; cpu++ {
		if all.IsSet(cpu) {
			few.Set(cpu)
		}
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(id, &few); err != nil && err != unix.ESRCH {
			return fmt.Errorf("--cores: %w", err)
		}
	}
	return nil
}

// stops finds the longest time between two answers, whoever gets them.
type stops struct {
	last, longest atomic.Int64 // nanoseconds since began
	began         time.Time
}

// answered is called at each answer, and at the end.
func (s *stops) answered() {
	now := int64(time.Since(s.began))
	gap := now - s.last.Swap(now)
	for was := s.longest.Load(); gap > was && !s.longest.CompareAndSwap(was, gap); was = s.longest.Load() {
	}
}

// sight is one look at a node that said it leads.
type sight struct {
	asked, answered time.Duration // since the measurement began
	term            uint64
}

// leaderless is the longest time from begin to end in which nobody is known to have
// led, and how many terms began. A node that led a term at two looks led it in
// between: a term has one leader, who never comes back to it. So only the time from
// the last sight of a term to the first of a later one counts.
func leaderless(sights []sight, end time.Duration) (longest time.Duration, elections uint64) {
	type reign struct{ from, to time.Duration }
	reigns := map[uint64]reign{}
	for _, s := range sights {
		r, ok := reigns[s.term]
		if !ok {
			r = reign{s.answered, s.asked}
		}
		reigns[s.term] = reign{min(r.from, s.answered), max(r.to, s.asked)}
	}
	var terms []uint64
	for term := range reigns {
		terms = append(terms, term)
	}
	slices.Sort(terms)
	var known time.Duration // somebody led until then
	for _, term := range terms {
		longest = max(longest, reigns[term].from-known)
		known = max(known, reigns[term].to)
	}
	longest = max(longest, end-known)
	if len(terms) > 0 {
		elections = terms[len(terms)-1] - terms[0]
	}
	return longest, elections
}

// looker asks one node whether it leads, and in which term.
type looker interface {
	look(ctx context.Context) (leads bool, term uint64, err error)
	close()
}

type keyvalLooker struct{ c *client.Client }

func (l keyvalLooker) look(ctx context.Context) (bool, uint64, error) {
	status, _, err := l.c.Status(ctx)
	return status.GetRole() == "leader", status.GetTerm(), err
}

func (l keyvalLooker) close() { l.c.Close() }

type etcdLooker struct {
	c        *clientv3.Client
	endpoint string
}

func (l etcdLooker) look(ctx context.Context) (bool, uint64, error) {
	status, err := l.c.Status(ctx, l.endpoint)
	if err != nil {
		return false, 0, err
	}
	return status.Leader == status.Header.MemberId, status.RaftTerm, nil
}

func (l etcdLooker) close() { _ = l.c.Close() }

func openLooker(ctx context.Context, store, endpoint string) (looker, error) {
	if store == storeEtcd {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Context: ctx})
		return etcdLooker{c, endpoint}, err
	}
	o := client.Options{Endpoints: []string{endpoint}}
	if pinned := reflect.ValueOf(&o).Elem().FieldByName("Pinned"); pinned.IsValid() {
		pinned.SetBool(true) // an older checkout, which --against builds this with, has no such option
	}
	c, err := client.Connect(ctx, o)
	return keyvalLooker{c}, err
}

// watch is who led and what the nodes weighed while a siege was measured.
type watch struct {
	job
	began   time.Time
	stop    context.CancelFunc
	ended   sync.WaitGroup
	mu      sync.Mutex
	sights  []sight
	peaks   []int64 // kB, of each node
	peakAll int64
}

func startWatch(ctx context.Context, j job) (*watch, error) {
	w := &watch{job: j, began: time.Now(), peaks: make([]int64, len(j.Pids))}
	ctx, w.stop = context.WithCancel(ctx)
	var lookers []looker
	for _, e := range j.Endpoints {
		l, err := openLooker(ctx, j.Store, e)
		if err != nil {
			w.stop()
			for _, l := range lookers {
				l.close()
			}
			return nil, err
		}
		lookers = append(lookers, l)
	}
	for _, l := range lookers {
		w.lookOnce(l)
	}
	w.began = time.Now()
	for i := range w.sights {
		w.sights[i].asked, w.sights[i].answered = 0, 0
	}
	for _, l := range lookers {
		w.ended.Go(func() {
			defer l.close()
			w.lookAt(ctx, l)
		})
	}
	w.ended.Go(func() { w.weigh(ctx) })
	return w, nil
}

// lookAt looks at one node until ctx ends, and then once more: what is seen behind
// the end tells who led until then.
func (w *watch) lookAt(ctx context.Context, l looker) {
	for ctx.Err() == nil {
		w.lookOnce(l)
		pause(ctx, lookEvery)
	}
	w.lookOnce(l)
}

func (w *watch) lookOnce(l looker) {
	asked := time.Since(w.began)
	ctx, cancel := context.WithTimeout(context.Background(), lookMax)
	defer cancel()
	leads, term, err := l.look(ctx)
	if err == nil && leads {
		w.mu.Lock()
		w.sights = append(w.sights, sight{asked, time.Since(w.began), term})
		w.mu.Unlock()
	}
}

func (w *watch) weigh(ctx context.Context) {
	for ctx.Err() == nil {
		var all int64
		for i, pid := range w.Pids {
			kb := anonymousMemory(pid)
			w.peaks[i] = max(w.peaks[i], kb)
			all += kb
		}
		w.peakAll = max(w.peakAll, all)
		pause(ctx, weighEvery)
	}
}

// end stops watching and says what was seen; nil of nobody.
func (w *watch) end() *siege {
	if w == nil {
		return nil
	}
	end := time.Since(w.began)
	w.stop()
	w.ended.Wait()
	longest, elections := leaderless(w.sights, end)
	return &siege{
		Leaderless: longest.Seconds(), Elections: elections,
		Node: float64(slices.Max(w.peaks)) / 1024, All: float64(w.peakAll) / 1024,
	}
}

// anonymousMemory is what a process has that no file backs, in kB; 0: not known.
func anonymousMemory(pid int) int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(text), "RssAnon:")
	kb, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	n, _ := strconv.ParseInt(kb, 10, 64)
	return n
}

// printSieges writes what each measurement under siege found.
func (r *report) printSieges(to io.Writer) error {
	how := "each system once, one after the other"
	if r.Settings.Rounds > 1 {
		how = "short rounds in turn"
	}
	fmt.Fprintf(to, "\n%d busy loops on the same cores (--cores %d); %s. Failed: no answer within %v, or an error, from the warm-up on.\n",
		r.Settings.Busy, r.Settings.Cores, how, operationMax)
	fmt.Fprintf(to, "No leader: at most, by asking each node every %v. Elections: terms begun. Memory: anonymous, at most.\n\n", lookEvery)
	t := tabwriter.NewWriter(to, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "op\tclients\tround\tsystem\top/s\tp50 ms\tp99 ms\tfailed\tlongest stop s\tno leader s\telections\ta node MB\tall MB\t")
	for _, m := range r.Measurements {
		if s := m.Siege; s != nil {
			fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%.0f\t%.1f\t%.1f\t%d\t%.2f\t%.2f\t%d\t%.0f\t%.0f\t\n", m.Op, m.Clients, m.Round, m.System,
				m.PerSecond, m.P50, m.P99, m.Errors, s.LongestStop, s.Leaderless, s.Elections, s.Node, s.All)
		}
	}
	return t.Flush()
}

package cli

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyval/actors/auth"
	"keyval/actors/client"
	"keyval/messages"
)

// fakeCluster is a store in memory that tests talk to as if it were nodes.
type fakeCluster struct {
	mu       sync.Mutex
	revision uint64
	items    map[string]client.GetResult
	down     []string        // endpoints that do not answer
	patient  bool            // a client waits for them
	refuse   *messages.Error // what every operation ends with
	leader   string          // the endpoint that leads; empty: none does
	// breakAfter is how many rows a scan yields, or keys a deletion deletes, before
	// it breaks; 0: it does not.
	breakAfter  int
	onPut       func() *messages.Error // is asked before each Put, by many at once
	connections atomic.Int64

	own       map[string]map[string]client.GetResult // by endpoint and key: what one node holds instead; without a revision: nothing
	behind    map[string]int                         // by endpoint: how many digests come too early for it
	compacted uint64
	compactIn int               // this many digests from now on revision 1 is given up; 0: never
	slow      map[string]bool   // by endpoint: makes no checkpoint after a Compact
	level     uint32            // of the cluster; 0: 1
	supports  map[string]uint32 // by endpoint: the highest level; absent: 1
	starting  map[string]int    // by endpoint: how many more times it says that it is starting
	transfers map[string][]*messages.Transfer
	denied    map[string]bool                     // by endpoint: it tells who asks nothing of itself
	files     map[string][]*messages.SnapshotInfo // by endpoint
	contents  map[string][]byte                   // by id: what SnapshotFetch reads; of an empty id: any

	view                     *messages.ClusterView // nil: see clusterView
	before, after, meanwhile *messages.FaultBudget
	warnings                 []string
	clusterAsked             []*messages.ClusterRequest
	auth                     *messages.Auth // who may do what
	invitations              *messages.Invitations
	principal                string // who asks
	onQuestion               func(*messages.ClusterView)

	written func(*messages.SnapshotInfo) // is called whenever somebody looks at one that is being written
}

func newFake() *fakeCluster {
	return &fakeCluster{items: map[string]client.GetResult{}, leader: "127.0.0.1:7001"}
}

func (f *fakeCluster) connect(ctx context.Context, endpoints []string, _ time.Duration) (Store, error) {
	store, err := f.reach(endpoints)
	if err != nil && f.patient {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return store, err
}

func (f *fakeCluster) reach(endpoints []string) (Store, error) {
	f.mu.Lock()
	down := f.down
	f.mu.Unlock()
	for _, e := range endpoints {
		if !slices.Contains(down, e) {
			f.connections.Add(1)
			return &fakeStore{f, e}, nil
		}
	}
	return nil, messages.Errorf(messages.Code_UNREACHABLE, "connection refused").At(endpoints[0], "").WithHint("start it")
}

func (f *fakeCluster) connectTo(ctx context.Context, endpoint string, timeout time.Duration) (Store, error) {
	return f.connect(ctx, []string{endpoint}, timeout)
}

func (f *fakeCluster) probe(_ context.Context, endpoint string, _ time.Duration) error {
	_, err := f.reach([]string{endpoint})
	return err
}

type fakeStore struct {
	*fakeCluster
	endpoint string
}

const fakeRequest = "0badcafe-w1"

func (s *fakeStore) refused() error {
	if s.refuse != nil {
		return s.refuse.At(s.endpoint, fakeRequest)
	}
	return nil
}

// conflict is CONFLICT unless all conditions hold.
func (s *fakeStore) conflict(key []byte, options []client.WriteOption) error {
	for _, option := range options {
		if option(key).GetModRevision() != s.items[string(key)].Revision {
			return messages.Errorf(messages.Code_CONFLICT, "the condition does not hold").At(s.endpoint, fakeRequest)
		}
	}
	return nil
}

func (s *fakeStore) Put(_ context.Context, key, value []byte, options ...client.WriteOption) (client.PutResult, error) {
	if s.onPut != nil {
		if err := s.onPut(); err != nil {
			return client.PutResult{}, err.At(s.endpoint, fakeRequest)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refused(); err != nil {
		return client.PutResult{}, err
	}
	if err := s.conflict(key, options); err != nil {
		return client.PutResult{Key: key, Revision: s.revision, RequestID: fakeRequest}, err
	}
	s.revision++
	item := s.items[string(key)]
	item.Key, item.Value, item.Revision = key, value, s.revision
	item.CreateRevision, item.Version = cmp.Or(item.CreateRevision, s.revision), item.Version+1
	s.items[string(key)] = item
	return client.PutResult{Key: key, Revision: s.revision, RequestID: fakeRequest}, nil
}

func (s *fakeStore) Get(_ context.Context, key []byte, revision uint64, stale bool) (client.GetResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return client.GetResult{}, s.refuse.At(s.endpoint, fakeRequest)
	}
	if revision > 0 && revision < s.compacted {
		return client.GetResult{}, s.tooOld(revision)
	}
	item, ok := s.items[string(key)]
	if !ok {
		item.ReadRevision = cmp.Or(revision, s.revision)
		return item, messages.Errorf(messages.Code_NOT_FOUND, "there is no key %q", key).At(s.endpoint, fakeRequest)
	}
	item.ReadRevision, item.RequestID, item.Endpoint = s.revision, fakeRequest, s.endpoint
	if revision > 0 {
		item.ReadRevision = revision
	}
	return item, nil
}

func (s *fakeStore) Delete(_ context.Context, key []byte, options ...client.WriteOption) (client.DeleteResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refused(); err != nil {
		return client.DeleteResult{}, err
	}
	if err := s.conflict(key, options); err != nil {
		return client.DeleteResult{Key: key, Revision: s.revision, RequestID: fakeRequest}, err
	}
	_, ok := s.items[string(key)]
	if ok {
		s.revision++
	}
	delete(s.items, string(key))
	return client.DeleteResult{Key: key, Deleted: ok, Revision: s.revision, RequestID: fakeRequest}, nil
}

// rows is what a scan yields, at one revision.
func (s *fakeStore) rows(from, to []byte, o client.ScanOptions) ([]client.Item, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return nil, 0, s.refuse.At(s.endpoint, fakeRequest)
	}
	at := cmp.Or(o.Revision, s.revision)
	if at < s.compacted {
		return nil, 0, s.tooOld(at)
	}
	items := s.held()
	var keys []string
	for key, item := range items {
		if key >= string(from) && (len(to) == 0 || key < string(to)) && item.Revision <= at {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	if o.Reverse {
		slices.Reverse(keys)
	}
	if o.Limit > 0 {
		keys = keys[:min(o.Limit, len(keys))]
	}
	var rows []client.Item
	for _, key := range keys {
		item := items[key]
		row := client.Item{
			Key: []byte(key), Value: item.Value, Revision: item.Revision, CreateRevision: item.CreateRevision, Version: item.Version,
			ReadRevision: at, RequestID: fakeRequest,
		}
		if o.KeysOnly {
			row.Value = nil
		}
		rows = append(rows, row)
	}
	return rows, at, nil
}

func (s *fakeStore) Scan(_ context.Context, from, to []byte, o client.ScanOptions) iter.Seq2[client.Item, error] {
	rows, _, err := s.rows(from, to, o)
	return func(yield func(client.Item, error) bool) {
		for i, row := range rows {
			if s.breakAfter > 0 && i == s.breakAfter {
				err = messages.Errorf(messages.Code_UNREACHABLE, "the connection broke").At(s.endpoint, fakeRequest)
				break
			}
			if !yield(row, nil) {
				return
			}
		}
		if err != nil {
			yield(client.Item{}, err)
		}
	}
}

func (s *fakeStore) Count(_ context.Context, from, to []byte, o client.ScanOptions) (client.CountResult, error) {
	rows, at, err := s.rows(from, to, o)
	return client.CountResult{Count: uint64(len(rows)), ReadRevision: at, RequestID: fakeRequest}, err
}

// DeleteSteps deletes two keys a step.
func (s *fakeStore) DeleteSteps(ctx context.Context, from, to []byte) iter.Seq2[client.DeleteRangeResult, error] {
	return func(yield func(client.DeleteRangeResult, error) bool) {
		var sum client.DeleteRangeResult
		for {
			rows, _, err := s.rows(from, to, client.ScanOptions{Limit: 2})
			if err == nil && s.breakAfter > 0 && int(sum.Deleted) >= s.breakAfter {
				err = messages.Errorf(messages.Code_OUTCOME_UNKNOWN, "who knows; %d keys were surely deleted", sum.Deleted).At(s.endpoint, fakeRequest)
			}
			if err != nil {
				yield(sum, err)
				return
			}
			for _, row := range rows {
				r, _ := s.Delete(ctx, row.Key)
				sum.Revision, sum.RequestID = r.Revision, r.RequestID
			}
			sum.Deleted += uint64(len(rows))
			if !yield(sum, nil) || len(rows) < 2 {
				return
			}
		}
	}
}

func (s *fakeStore) StatusAndEvents(ctx context.Context) (*messages.StatusReply, string, error) {
	reply, endpoint, err := s.Status(ctx)
	if reply != nil {
		reply.Events = []*messages.Event{{AtMs: 1, Level: "info", Text: "this node serves"}}
	}
	return reply, endpoint, err
}

func (s *fakeStore) Status(context.Context) (*messages.StatusReply, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.denied[s.endpoint] {
		return nil, s.endpoint, messages.Errorf(messages.Code_NOT_ALLOWED, "alice may not look at the cluster: no role").WithHint("kvctl user grant alice viewer").At(s.endpoint, fakeRequest)
	}
	if s.starting[s.endpoint] > 0 {
		s.starting[s.endpoint]--
		return &messages.StatusReply{Role: "starting"}, s.endpoint, nil
	}
	number := uint64(s.endpoint[len(s.endpoint)-1] - '0')
	r := &messages.StatusReply{
		Level: cmp.Or(s.level, 1), LevelMin: 1, LevelMax: cmp.Or(s.supports[s.endpoint], 1),
		Name: "node" + s.endpoint[len(s.endpoint)-1:], RaftId: number, Role: "follower", Term: 1 << 60,
		Revision: s.revision, Commit: 100 + number, Applied: 99, Pid: 4000 + int64(number), Version: "test",
		LogFirstIndex: 1, LastIndex: 100 + number, LogBytes: 2_500_000, CheckpointIndex: 50, CompactedRevision: s.compacted,
		Transfers: s.transfers[s.endpoint], ClusterId: []byte("one"),
	}
	for i := range uint64(3) {
		address := "127.0.0.1:700" + string(rune('1'+i))
		r.Members = append(r.Members, &messages.Member{RaftId: i + 1, Name: "node" + string(rune('1'+i)), Address: address})
	}
	if s.compacted > 0 && !s.slow[s.endpoint] {
		r.LogFirstIndex, r.LogBytes, r.CheckpointIndex = 100, 25_000, 200
	}
	if s.leader != "" {
		r.Leader = &messages.Leader{Name: "node" + s.leader[len(s.leader)-1:]}
	}
	if s.leader == s.endpoint {
		r.Role = "leader"
	}
	return r, s.endpoint, nil
}

// RaiseLevel goes by what the nodes support that are not down.
func (s *fakeStore) RaiseLevel(_ context.Context, level uint32) (client.RaiseLevelResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refused(); err != nil {
		return client.RaiseLevelResult{}, err
	}
	before := cmp.Or(s.level, 1)
	s.level = cmp.Or(level, before)
	return client.RaiseLevelResult{Level: s.level, Before: before, Endpoint: s.endpoint, RequestID: fakeRequest}, nil
}

func (s *fakeStore) tooOld(revision uint64) error {
	return messages.Errorf(messages.Code_COMPACTED, "revision %d is no longer kept, the oldest is %d", revision, s.compacted).At(s.endpoint, fakeRequest)
}

// held is what the node holds: what all do, but for its own.
func (s *fakeStore) held() map[string]client.GetResult {
	items := maps.Clone(s.items)
	for key, item := range s.own[s.endpoint] {
		items[key] = item
		if item.Revision == 0 {
			delete(items, key)
		}
	}
	return items
}

func (s *fakeStore) Newest(context.Context) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return 0, s.refuse.At(s.endpoint, fakeRequest)
	}
	return s.revision, nil
}

func (s *fakeStore) Compact(_ context.Context, revision uint64) (client.CompactResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	newest := s.revision
	if err := s.refused(); err != nil {
		return client.CompactResult{}, err
	}
	if revision < s.compacted {
		return client.CompactResult{Compacted: revision, Newest: newest, Revision: newest, Already: true}, nil
	}
	s.compacted = revision
	return client.CompactResult{Compacted: revision, Newest: newest, Revision: s.revision, RequestID: fakeRequest}, nil
}

// Digest gives four keys at once.
func (s *fakeStore) Digest(_ context.Context, from, to []byte, limit int, revision uint64) (client.DigestResult, error) {
	s.mu.Lock()
	early := s.behind[s.endpoint] > 0
	if early {
		s.behind[s.endpoint]--
	}
	if s.compactIn > 0 {
		if s.compactIn--; s.compactIn == 0 {
			s.revision++
			s.compacted = s.revision
		}
	}
	s.mu.Unlock()
	if early {
		return client.DigestResult{}, messages.Errorf(messages.Code_INVALID, "revision %d is in the future", revision).At(s.endpoint, fakeRequest)
	}
	rows, _, err := s.rows(from, to, client.ScanOptions{Revision: revision})
	if err != nil {
		return client.DigestResult{}, err
	}
	d := &messages.RangeDigest{}
	hash := sha256.New()
	for i, row := range rows {
		if d.More = i == min(4, limit); d.More {
			break
		}
		fmt.Fprintf(hash, "%q %q %d ", row.Key, row.Value, row.Revision)
		d.Rows, d.Bytes, d.Last = d.Rows+1, d.Bytes+uint64(len(row.Key)+len(row.Value)), row.Key
	}
	d.Hash = hash.Sum(nil)
	return client.DigestResult{RangeDigest: d, Revision: revision, Endpoint: s.endpoint, RequestID: fakeRequest}, nil
}

func (s *fakeStore) snapshots(rows ...*messages.SnapshotInfo) client.SnapshotsResult {
	return client.SnapshotsResult{Snapshots: rows, Node: "node" + s.endpoint[len(s.endpoint)-1:], Endpoint: s.endpoint, RequestID: fakeRequest}
}

func (s *fakeStore) Snapshots(context.Context) (client.SnapshotsResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return client.SnapshotsResult{}, s.refuse.At(s.endpoint, fakeRequest)
	}
	return s.snapshots(s.files[s.endpoint]...), nil
}

func (s *fakeStore) SnapshotShow(_ context.Context, id string) (client.SnapshotsResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files[s.endpoint] {
		if f.Id == id {
			if f.Writing && s.written != nil {
				s.written(f)
			}
			return s.snapshots(f), nil
		}
	}
	return s.snapshots(), messages.Errorf(messages.Code_NOT_FOUND, "there is no snapshot %s", id).At(s.endpoint, fakeRequest)
}

func (s *fakeStore) SnapshotCreate(_ context.Context, id string, createdAtMs int64) (client.SnapshotsResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return client.SnapshotsResult{}, s.refuse.At(s.endpoint, fakeRequest)
	}
	if slices.ContainsFunc(s.files[s.endpoint], func(f *messages.SnapshotInfo) bool { return f.Id == id }) {
		return s.snapshots(), messages.Errorf(messages.Code_CONFLICT, "there is a snapshot %s", id).At(s.endpoint, fakeRequest)
	}
	f := &messages.SnapshotInfo{Id: id, CreatedAtMs: createdAtMs, Index: 99, Term: 5, Revision: s.revision, Writing: !messages.IsTransient(id), BytesTotal: 2_500_000}
	if s.files == nil {
		s.files = map[string][]*messages.SnapshotInfo{}
	}
	s.files[s.endpoint] = append(s.files[s.endpoint], f)
	return s.snapshots(f), nil
}

func (s *fakeStore) SnapshotDelete(_ context.Context, id string) (client.SnapshotsResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[s.endpoint] = slices.DeleteFunc(s.files[s.endpoint], func(f *messages.SnapshotInfo) bool { return f.Id == id })
	return s.snapshots(), nil
}

func (s *fakeStore) Close() {}

// run is one call of kvctl against the fake.
type run struct {
	cluster *fakeCluster
	stdin   io.Reader
	env     map[string]string
	inTTY   bool
	tty     bool // of both outputs
	ctx     context.Context
	login   func(context.Context, client.LoginOptions) (client.LoginResult, error)
}

type outcome struct {
	code        int
	out, stderr string
}

func (r run) kvctl(t *testing.T, argv ...string) outcome {
	t.Helper()
	var out, stderr bytes.Buffer
	if r.stdin == nil {
		r.stdin = strings.NewReader("")
	}
	if r.cluster == nil {
		r.cluster = newFake()
	}
	sh := Shell{
		Stdin: r.stdin, Stdout: &out, Stderr: &stderr, InTTY: r.inTTY, OutTTY: r.tty, ErrTTY: r.tty,
		Env:     func(name string) string { return r.env[name] },
		Invoked: "kvctl", Self: "/opt/kvctl", Connect: r.cluster.connect, ConnectTo: r.cluster.connectTo, Probe: r.cluster.probe, Login: r.login,
	}
	if r.ctx == nil {
		r.ctx = t.Context()
	}
	code := Run(r.ctx, sh, append([]string{"kvctl"}, argv...))
	return outcome{code, out.String(), stderr.String()}
}

// AskCluster answers with view, begins what it is asked for, and carries operations on a step
// at a question.
func (s *fakeStore) AskCluster(_ context.Context, m *messages.ClusterRequest) (client.ClusterAnswer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clusterAsked = append(s.clusterAsked, m)
	v := s.clusterView()
	r := &messages.ClusterReply{Node: "node" + s.endpoint[len(s.endpoint)-1:], View: v, Before: s.before}
	a := client.ClusterAnswer{ClusterReply: r, At: time.Unix(1_000_000, 0), Endpoint: s.endpoint, RequestID: fakeRequest}
	if m.GetQuery() != nil {
		if s.onQuestion != nil {
			s.onQuestion(v)
		}
		return a, nil
	}
	if m.GetAuthQuery() != nil {
		r.Auth, r.Principal = auth.ForAsker(s.auth, s.principal), s.principal
		return a, nil
	}
	if m.GetInvitationQuery() != nil {
		r.Invitations = auth.InvitationsTold(s.invitations.GetAll()...)
		return a, s.lacks(auth.Whole(messages.UserRole_OPERATOR))
	}
	r.After, r.Meanwhile, r.Warnings = s.after, s.meanwhile, s.warnings
	if s.refuse != nil {
		return a, s.refuse.At(s.endpoint, fakeRequest)
	}
	switch {
	case m.GetAuth() != nil:
		next, err := auth.Next(s.auth, m.GetAuth(), s.principal, fakeRequest)
		if err != nil {
			return a, err.At(s.endpoint, fakeRequest)
		}
		if !m.DryRun {
			s.auth = cmp.Or(next, s.auth)
		}
	case m.GetInvitation() != nil:
		next := auth.Uninvite(s.invitations, m.GetInvitation().GetRemove())
		if add := m.GetInvitation().GetAdd(); add != nil {
			var err *messages.Error
			if next, err = auth.Invite(s.invitations, add, s.principal, fakeRequest, time.Now().UnixMilli()); err != nil {
				return a, err.At(s.endpoint, fakeRequest)
			}
		}
		if next != nil {
			s.invitations, _ = auth.WriteInvitations(s.invitations, next)
		}
		if i := auth.FindInvitation(s.invitations, m.GetInvitation().GetAdd().GetId()); i != nil {
			r.Invitations = auth.InvitationsTold(i)
		}
	case m.DryRun:
	case m.Configuration != 0 && m.Configuration != v.ConfigurationIndex:
		return a, messages.Errorf(messages.Code_CONFLICT, "the configuration is %d now", v.ConfigurationIndex).At(s.endpoint, fakeRequest)
	case m.GetBegin() != nil:
		o := m.GetBegin().Operation
		o.Phase, o.StartedAtMs = messages.OperationPhase_ADD_LEARNER, 1_000_000_000
		v.Operations = append(v.Operations, o)
		r.Operation = o
	case m.GetAbort() != nil:
		for _, o := range v.Operations {
			if bytes.Equal(o.Id, m.GetAbort().Id) {
				o.Aborting = true
			}
		}
	case m.GetTransfer() != nil:
		for _, x := range v.Members {
			x.Role = "follower"
			if x.Member.Name == m.GetTransfer().To {
				x.Role = "leader"
			}
		}
	case m.GetAddress() != nil:
		for _, x := range v.Members {
			if x.Member.Name == m.GetAddress().Name {
				x.Member.Address = m.GetAddress().Address
			}
		}
	}
	return a, nil
}

// clusterView is three voters, if a test made no other.
func (f *fakeCluster) clusterView() *messages.ClusterView {
	if f.view == nil {
		f.view = &messages.ClusterView{ClusterId: []byte("one"), ConfigurationIndex: 12, Term: 3, Leader: 1, Commit: 100, PulseKnown: true}
		for i := range uint64(3) {
			m := &messages.MemberView{Role: "follower", ContactKnown: true, SilentMs: 100, Match: 100, Version: "test", Member: &messages.Member{
				RaftId: i + 1, Name: fmt.Sprint("node", i+1), Address: fmt.Sprint("127.0.0.1:700", i+1),
			}}
			if i == 0 {
				m.Role = "leader"
			}
			f.view.Members = append(f.view.Members, m)
		}
		f.before = &messages.FaultBudget{Voters: 3, Quorum: 2, Alive: 3, Slack: 1, Available: true, Survives: []string{"node1", "node2", "node3"}}
	}
	return f.view
}

// SnapshotFetch reads of what the cluster's file of this id holds, 1,000 bytes at most.
func (s *fakeStore) SnapshotFetch(_ context.Context, id string, from uint64) (client.SnapshotPart, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return client.SnapshotPart{}, s.refuse.At(s.endpoint, fakeRequest)
	}
	content, ok := s.contents[id]
	if !ok {
		content, ok = s.contents[""]
	}
	if !ok {
		return client.SnapshotPart{}, messages.Errorf(messages.Code_NOT_FOUND, "there is no snapshot %s", id).At(s.endpoint, fakeRequest)
	}
	from = min(from, uint64(len(content)))
	return client.SnapshotPart{Body: content[from:min(int(from)+1000, len(content))], Total: uint64(len(content))}, nil
}

func (s *fakeStore) PutAll(ctx context.Context, rows []client.KeyValue) (r client.PutResult, err error) {
	for _, row := range rows {
		if r, err = s.Put(ctx, row.Key, row.Value); err != nil {
			return r, err
		}
	}
	return r, nil
}

// lacks is what the principal lacks; nil: nothing.
func (s *fakeStore) lacks(need auth.Need) error {
	if why := auth.Missing(s.auth, s.principal, need); why != nil {
		return why.At(s.endpoint, fakeRequest)
	}
	return nil
}

package client

import (
	"slices"
	"sort"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

type kind int

const (
	write kind = iota
	read
	status
	snapshot
	ofCluster
	reach
)

// ofNode reports whether a request is for the node that is reached, which needs no
// session for it.
func (k kind) ofNode() bool { return k == status || k == snapshot || k == ofCluster || k == reach }

// numbering is what numbers requests of a kind.
func (k kind) numbering() messages.RequestKind {
	switch k {
	case write:
		return messages.RequestWrite
	case read:
		return messages.RequestRead
	}
	return messages.RequestOfNode
}

// changesCluster reports whether a cluster request is no question, and no dry run.
func changesCluster(m *messages.ClusterRequest) bool {
	return m != nil && m.GetQuery() == nil && m.GetAuthQuery() == nil && m.GetInvitationQuery() == nil && !m.DryRun
}

// changes reports whether a request may change something: what was sent may be done.
func (r *request) changes() bool { return r.kind == write || r.change }

// forLeader reports whether the leader is best asked.
func (r *request) forLeader() bool {
	return r.kind == write || r.kind == ofCluster && r.cluster.GetQuery() == nil
}

// requestOverhead is what a request costs beside the bytes that the asker handed over: in a
// command, its session, numbers and opening, with the holder that a node puts there.
const requestOverhead = 192

// request is one Submit on its way to its one answer.
type request struct {
	asker asker
	tag   uint64
	kind  kind
	size  int
	order uint64 // of submission

	limit    uint64 // the Submit's deadline_ms
	deadline uint64 // the same in tick time; never early, up to two ticks late

	trace *messages.Traceparent // of the Submit
	// command is a write's, without what it gets when it is numbered.
	command  *messages.Command
	read     *messages.Read
	events   bool // with a status
	snapshot *messages.SnapshotRequest
	cluster  *messages.ClusterRequest
	change   bool // of a cluster request: it is no question, and no dry run

	// From the first sending on. The message is made once and never changes, so
	// a command is the same however often it is sent.
	number  uint64
	client  []byte // ClientID; of a request to a node, what the client's address is made of
	epoch   uint64 // of a write: the session that numbered it
	message proto.Message

	via      *link // who has it now; nil: nobody
	endpoint string
	sentAt   uint64
	patience uint64 // ms without an answer before it is sent again
	retryAt  uint64 // while via is nil: not sent before

	silences int
	refusals int
	misses   int // silences and refusals since it came to its present node
	missedAt *link
	// live counts the sendings of what changes something whose fate is unknown. While
	// it is 0, it was surely not executed.
	live     int
	renewals int
	last     *messages.Error // the last refusal
	again    bool            // it is in requests.again
	done     bool
}

// requests is all that was submitted and is not answered.
type requests struct {
	count, bytes int
	order        uint64

	all     []*request    // in order of submission; answered ones go with compact
	waiting [2][]*request // writes and reads that were never sent, in order
	again   []*request    // those to be sent once more

	writes map[uint64]*request // numbered, by seq
	reads  map[uint64]*request
	ofNode map[uint64]*request // statuses, snapshot and cluster requests, numbered together
	fresh  []*request          // those of them that were never sent

	readNumber, ofNodeNumber uint64
	forLeaderCount           int // unanswered, sent or not
}

func newRequests() requests {
	return requests{writes: map[uint64]*request{}, reads: map[uint64]*request{}, ofNode: map[uint64]*request{}}
}

func (q *requests) anyForLeader() bool { return q.forLeaderCount > 0 }

func (q *requests) add(r *request, from uint64) {
	if len(q.all) >= 2*requestsMax {
		q.compact()
	}
	q.count++
	q.bytes += r.size
	q.order++
	r.order = q.order
	r.deadline = from + r.limit
	q.all = append(q.all, r)
	if r.forLeader() {
		q.forLeaderCount++
	}
	if r.kind.ofNode() {
		q.fresh = append(q.fresh, r)
	} else {
		q.waiting[r.kind] = append(q.waiting[r.kind], r)
	}
}

// compact drops what is answered. It runs with every tick.
func (q *requests) compact() {
	answered := func(r *request) bool { return r.done }
	q.all = without(q.all, answered)
	q.again = without(q.again, answered)
	q.fresh = without(q.fresh, answered)
	for k := range q.waiting {
		q.waiting[k] = without(q.waiting[k], answered)
	}
}

// waitAgain puts a request that lost its number back, by its order of submission.
func (q *requests) waitAgain(r *request) {
	if r.again {
		q.again = without(q.again, func(other *request) bool { return other == r })
		r.again = false
	}
	list := q.waiting[r.kind]
	at := sort.Search(len(list), func(i int) bool { return list[i].order > r.order })
	q.waiting[r.kind] = slices.Insert(list, at, r)
}

// newRequest checks a Submit. The request can be refused with the error.
func newRequest(from asker, m *messages.Submit) (*request, *messages.Error) {
	r := &request{asker: from, tag: m.Tag, limit: m.DeadlineMs, trace: m.Traceparent, read: m.Read, snapshot: m.Snapshot, cluster: m.Cluster, size: requestOverhead}
	if r.limit == 0 {
		r.limit = deadlineDefaultMs
	}
	r.limit = min(r.limit, deadlineMaxMs)
	switch {
	case m.Read != nil:
		r.kind = read
	case m.Status != nil:
		r.kind, r.events = status, m.Status.Events
	case m.Snapshot != nil:
		r.kind = snapshot
	case m.Cluster != nil:
		r.kind, r.change = ofCluster, changesCluster(m.Cluster)
	case m.Reach:
		r.kind = reach
	}
	asked := 0
	for _, is := range []bool{len(m.Operations)+len(m.Otherwise) > 0, m.Read != nil, m.Status != nil, m.Snapshot != nil, m.Cluster != nil, m.Reach} {
		if is {
			asked++
		}
	}
	if asked != 1 {
		return r, messages.Errorf(messages.Code_INVALID, "a Submit asks for one of operations, read, status, snapshot, cluster and reach, this one for %d", asked)
	}
	switch r.kind {
	case write:
		return r, r.checkWrite(m)
	case read:
		return r, r.checkRead()
	case snapshot:
		return r, r.checkSnapshot()
	case ofCluster:
		return r, r.checkCluster()
	default:
		return r, nil
	}
}

// anySession stands for the session that a command gets with its number.
var anySession = make([]byte, messages.ClientIDSize)

func (r *request) checkWrite(m *messages.Submit) *messages.Error {
	r.command = &messages.Command{Session: anySession, Seq: 1, Operations: m.Operations, Conditions: m.Conditions, Otherwise: m.Otherwise}
	size := proto.Size(r.command)
	r.size += size
	if err := messages.CheckCommand(r.command); err != nil {
		return err
	}
	if size+requestOverhead > messages.CommandSizeMax {
		return messages.Errorf(messages.Code_INVALID, "the command has %d bytes, %d are allowed", size+requestOverhead, messages.CommandSizeMax).
			WithHint("send fewer operations at once")
	}
	return nil
}

func (r *request) checkRead() *messages.Error {
	r.size += proto.Size(r.read)
	switch k := r.read.Kind.(type) {
	case *messages.Read_Get:
		return messages.CheckKey(k.Get.Key)
	case *messages.Read_Scan:
		return checkBounds(k.Scan.From, k.Scan.To)
	case *messages.Read_Digest:
		return checkBounds(k.Digest.From, k.Digest.To)
	default:
		return messages.Errorf(messages.Code_INVALID, "a read is a get, a scan or a digest")
	}
}

// checkBounds allows one byte more than a key: the place right behind the longest.
func checkBounds(from, to []byte) *messages.Error {
	if max(len(from), len(to)) > messages.KeySizeMax+1 {
		return messages.Errorf(messages.Code_INVALID, "the bounds of a range have up to %d bytes", messages.KeySizeMax+1)
	}
	return nil
}

func (r *request) checkSnapshot() *messages.Error {
	r.size += proto.Size(r.snapshot)
	switch k := r.snapshot.Kind.(type) {
	case *messages.SnapshotRequest_Create:
		return messages.CheckSnapshotID(k.Create.Id)
	case *messages.SnapshotRequest_Delete:
		return messages.CheckSnapshotID(k.Delete.Id)
	case *messages.SnapshotRequest_Fetch:
		return messages.CheckSnapshotID(k.Fetch.Id)
	case *messages.SnapshotRequest_List:
		if k.List.Id != "" {
			return messages.CheckSnapshotID(k.List.Id)
		}
		return nil
	default:
		return messages.Errorf(messages.Code_INVALID, "a snapshot request creates, lists, fetches or deletes")
	}
}

// clusterSizeMax bounds a cluster request, in bytes: nodes take no larger ones.
const clusterSizeMax = 32 << 10

func (r *request) checkCluster() *messages.Error {
	r.size += proto.Size(r.cluster)
	switch {
	case r.cluster.Kind == nil:
		return messages.Errorf(messages.Code_INVALID, "a cluster request asks a question, or for a change")
	case r.size > clusterSizeMax:
		return messages.Errorf(messages.Code_INVALID, "the request has %d bytes, %d are allowed", r.size, clusterSizeMax)
	}
	return nil
}

// failed is the answer that carries an error, with a reply of r's kind.
func (r *request) failed(why *messages.Error) *messages.Done {
	d := &messages.Done{Tag: r.tag, Hint: why.Hint}
	switch r.kind {
	case write:
		d.Write = &messages.WriteReply{Request: r.number, Code: why.Code, Message: why.Message}
	case read:
		d.Read = &messages.ReadReply{Request: r.number, Code: why.Code, Message: why.Message}
	case status, reach:
		// A StatusReply has no message: it is the hint's first line.
		d.Status = &messages.StatusReply{Request: r.number, Code: why.Code}
		d.Hint = why.Message + "\n" + why.Hint
	case snapshot:
		d.Snapshot = &messages.SnapshotReply{Request: r.number, Code: why.Code, Message: why.Message}
	case ofCluster:
		d.Cluster = &messages.ClusterReply{Request: r.number, Code: why.Code, Message: why.Message}
	}
	return d
}

package client

import (
	"slices"
	"sort"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/mutant"
)

type kind int

const (
	write kind = iota
	read
	status
	snapshot
)

// ofNode reports whether a request is for the node that is reached, which needs no
// session for it.
func (k kind) ofNode() bool { return k == status || k == snapshot }

// requestOverhead counts beside the bytes that the asker handed over.
const requestOverhead = 128

// request is one Submit on its way to its one answer.
type request struct {
	asker asker
	tag   uint64
	kind  kind
	size  int
	order uint64 // of submission

	limit    uint64 // the Submit's deadline_ms
	deadline uint64 // the same in tick time

	// command is a write's, without what it gets when it is numbered.
	command  *messages.Command
	read     *messages.Read
	snapshot *messages.SnapshotRequest

	// From the first sending on. The message is made once and never changes, so
	// a command is the same however often it is sent.
	number  uint64
	client  []byte // ClientID
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
	// live counts the sendings of a write whose fate is unknown. While it is 0,
	// the command was surely not executed.
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
	ofNode map[uint64]*request // statuses and snapshot requests, by one row of numbers
	fresh  []*request          // those of them that were never sent

	readNumber, ofNodeNumber uint64
	writesCount              int // unanswered, sent or not
}

func newRequests() requests {
	return requests{writes: map[uint64]*request{}, reads: map[uint64]*request{}, ofNode: map[uint64]*request{}}
}

func (q *requests) anyWrite() bool { return q.writesCount > 0 }

func (q *requests) add(r *request, now uint64) {
	if len(q.all) >= 2*requestsMax {
		q.compact()
	}
	q.count++
	q.bytes += r.size
	q.order++
	r.order = q.order
	r.deadline = now + r.limit
	q.all = append(q.all, r)
	if r.kind == write {
		q.writesCount++
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

// newRequest checks a Submit. The request can be refused with the error.
func newRequest(from asker, m *messages.Submit) (*request, *messages.Error) {
	r := &request{asker: from, tag: m.Tag, limit: m.DeadlineMs, read: m.Read, snapshot: m.Snapshot, size: requestOverhead}
	if r.limit == 0 {
		r.limit = deadlineDefaultMs
	}
	r.limit = min(r.limit, deadlineMaxMs)
	switch {
	case m.Read != nil:
		r.kind = read
	case m.Status != nil:
		r.kind = status
	case m.Snapshot != nil:
		r.kind = snapshot
	}
	asked := 0
	for _, is := range []bool{len(m.Operations)+len(m.Otherwise) > 0, m.Read != nil, m.Status != nil, m.Snapshot != nil} {
		if is {
			asked++
		}
	}
	if asked != 1 {
		return r, messages.Errorf(messages.Code_INVALID, "a Submit asks for one of operations, read, status and snapshot, this one for %d", asked)
	}
	switch r.kind {
	case write:
		return r, r.checkWrite(m)
	case read:
		return r, r.checkRead()
	case snapshot:
		return r, r.checkSnapshot()
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
	case *messages.SnapshotRequest_List:
		if k.List.Id != "" {
			return messages.CheckSnapshotID(k.List.Id)
		}
		return nil
	default:
		return messages.Errorf(messages.Code_INVALID, "a snapshot request creates, lists or deletes")
	}
}

// sendRequests sends what the link in use has credits for: what was sent before
// first, then in the order of submission.
func (c *core) sendRequests() {
	l, q := c.links.current, &c.requests
	if l == nil || l.session == "" {
		return
	}
	c.sendAgain(func(r *request) bool { return !r.kind.ofNode() && c.mayCarry(l, r) }, l)
	for {
		r := c.nextWaiting(l)
		if r == nil || !l.hasCredit(r) {
			return
		}
		q.waiting[r.kind] = q.waiting[r.kind][1:]
		c.number(r)
		c.send(r, l)
	}
}

// nextWaiting is the oldest request that could be sent for the first time.
func (c *core) nextWaiting(l *link) *request {
	var first *request
	for k := range c.requests.waiting {
		for len(c.requests.waiting[k]) > 0 && c.requests.waiting[k][0].done {
			c.requests.waiting[k] = c.requests.waiting[k][1:]
		}
		if len(c.requests.waiting[k]) == 0 {
			continue
		}
		r := c.requests.waiting[k][0]
		if r.kind == write && !c.mayNumber(l) || r.retryAt > c.now {
			continue
		}
		if first == nil || r.order < first.order {
			first = r
		}
	}
	return first
}

// mayNumber reports whether the session takes one more command now.
func (c *core) mayNumber(l *link) bool {
	s := &c.session
	return !s.retiring && l.epoch == s.epoch && s.next-s.acked < sessionWindow
}

func (c *core) mayCarry(l *link, r *request) bool {
	return (r.kind != write || r.epoch == l.epoch) && l.hasCredit(r)
}

func (l *link) hasCredit(r *request) bool {
	return l.requests < l.requestsMax && (l.bytes+r.size <= l.bytesMax || l.requests == 0)
}

// number gives a request the number and the message that it keeps.
func (c *core) number(r *request) {
	q := &c.requests
	r.client = c.session.client
	switch r.kind {
	case write:
		c.numberCommand(r)
	case read:
		q.readNumber++
		r.number = q.readNumber
		q.reads[r.number] = r
		r.message = &messages.Read{Request: r.number, Consistency: r.read.Consistency, Revision: r.read.Revision, Kind: r.read.Kind}
	default:
		q.ofNodeNumber++
		r.number = q.ofNodeNumber
		q.ofNode[r.number] = r
		r.message = &messages.StatusRequest{Request: r.number}
		if r.kind == snapshot {
			r.message = &messages.SnapshotRequest{Request: r.number, Kind: r.snapshot.Kind}
		}
	}
}

func (c *core) numberCommand(r *request) {
	s := &c.session
	if s.open == nil {
		s.open = &messages.OpenSession{TtlMs: c.sessionTTLMs, BeforeMs: c.links.current.logTimeMs + c.sessionTTLMs}
	}
	r.command.Session, r.command.Seq, r.command.AckedBelow, r.command.Open = s.client, s.next, s.acked, nil
	if !s.opened {
		r.command.Open = s.open
	}
	body, err := proto.Marshal(r.command)
	if err != nil {
		panic("a checked command cannot be marshalled: " + err.Error())
	}
	r.number, r.epoch = s.next, s.epoch
	r.message = &messages.Write{Request: r.number, Command: body}
	c.requests.writes[r.number] = r
	s.next++
}

// sendOfNode sends to any node that is up what needs no session.
func (c *core) sendOfNode() {
	q, l := &c.requests, c.links.current
	if l == nil {
		l = c.links.next
	}
	if l == nil || l.phase == dialling {
		return
	}
	for _, r := range q.fresh {
		if !r.done {
			c.number(r)
			c.send(r, l)
		}
	}
	q.fresh = q.fresh[:0]
	c.sendAgain(func(r *request) bool { return r.kind.ofNode() }, l)
}

// sendAgain sends over l what is due for one more sending and may go there.
func (c *core) sendAgain(may func(*request) bool, l *link) {
	q := &c.requests
	q.again = without(q.again, func(r *request) bool {
		if !r.done && r.via == nil && (r.retryAt > c.now || !may(r)) {
			return false
		}
		if !r.done && r.via == nil {
			if mutant.RetryRenumbered && r.kind == write { // the log takes it for another command
				c.dropNumber(r)
				c.numberCommand(r)
			}
			c.send(r, l)
		}
		r.again = false
		return true
	})
}

// send hands a numbered request to a link.
func (c *core) send(r *request, l *link) {
	to := l.session
	switch r.kind {
	case status:
		to = messages.ActorGateway
		l.ofNode++
	case snapshot:
		to = messages.ActorSnapshots
		l.ofNode++
	default:
		l.requests++
		l.bytes += r.size
	}
	if r.kind == write {
		r.live++
	}
	if r.missedAt != l {
		r.missedAt, r.misses = l, 0
	}
	r.via, r.endpoint, r.sentAt = l, l.at.name, c.now
	r.patience = grown(r.firstPatience(), r.silences-1, patienceMaxMs) + c.random.Uint64N(patienceMs/4)
	c.emit(send{l.address, to, r.message})
}

// firstPatience is longer for what a node has to read much for.
func (r *request) firstPatience() uint64 {
	if r.kind == snapshot || r.read.GetDigest() != nil {
		return patienceMaxMs
	}
	return patienceMs
}

// release takes a request off its link, to be sent again at the given time.
func (c *core) release(r *request, at uint64) {
	c.unlink(r)
	r.retryAt = at
	if !r.again {
		r.again = true
		c.requests.again = append(c.requests.again, r)
	}
}

func (c *core) unlink(r *request) {
	l := r.via
	if l == nil {
		return
	}
	r.via = nil
	if r.kind.ofNode() {
		l.ofNode--
		return
	}
	l.requests--
	l.bytes -= r.size
}

// releaseAll takes the requests off l that have missed at least so often.
func (c *core) releaseAll(l *link, misses int) {
	for _, r := range c.requests.all {
		if r.via == l && r.misses >= misses {
			c.release(r, c.now)
		}
	}
}

// releaseSessions takes off l what its session actor should have answered.
func (c *core) releaseSessions(l *link) {
	for _, r := range c.requests.all {
		if r.via == l && !r.kind.ofNode() {
			c.release(r, c.now)
		}
	}
}

// silence sends a request once more that was not answered in time.
func (c *core) silence(r *request) {
	l := r.via
	r.silences++
	c.release(r, c.now)
	c.miss(r, l, messages.Errorf(messages.Code_TIMED_OUT, "no answer within %d ms", c.now-r.sentAt))
}

// refuse sends a request once more that a node did not take, after a while. A
// node that is busy is not left for it, one that is unsound at once.
func (c *core) refuse(r *request, why *messages.Error) {
	l := r.via
	r.last = why
	c.release(r, c.now+c.jitter(grown(retryMs, r.refusals, retryMaxMs)))
	r.refusals++
	switch {
	case l == nil || why.Code == messages.Code_BUSY:
	case why.Code == messages.Code_DAMAGED || why.Code == messages.Code_INTERNAL:
		c.leave(l, why)
	default:
		c.miss(r, l, why)
	}
}

// miss counts against the node; it is left when it was of no use to a request
// several times, and to no other request meanwhile.
func (c *core) miss(r *request, l *link, why *messages.Error) {
	r.misses++
	if r.misses >= missesMax && l.heard < r.sentAt {
		c.leave(l, why)
	}
}

// useful notes an answer of consequence.
func (c *core) useful(l *link) {
	if l == nil {
		return
	}
	l.heard, l.unwanted = c.now, false
	l.at.failures, l.at.note, l.at.refused = 0, nil, false
}

// writeReply: what became of a command, or that it was not taken.
func (c *core) writeReply(m *messages.WriteReply) []effect {
	c.learn(m.Leader)
	r := c.requests.writes[m.Request]
	if r == nil {
		return c.settle() // answered or abandoned before
	}
	why := func() *messages.Error { return explainReply(m.Code, m.Message, m.Leader) }
	switch fate := fateOf(m.Code); {
	case m.Code == messages.Code_SESSION_EXPIRED:
		r.live = max(0, r.live-1)
		c.expireSession(r, why())
	case fate == notTaken:
		r.live = max(0, r.live-1)
		c.refuse(r, why())
	case fate == unsure:
		c.refuse(r, why())
	case !ofLog(m) && m.Code != messages.Code_INVALID && r.live > 1:
		// A node's refusal, not the log's outcome: it says nothing about the other sendings.
		c.fail(r, explainUnknown(r, "another sending of this command was refused: "+why().Message))
	default:
		c.useful(r.via)
		c.session.opened = c.session.opened || ofLog(m)
		c.finish(r, &messages.Done{Write: m})
	}
	return c.settle()
}

// ofLog reports whether a reply is surely the log's outcome. At revision 0, before the
// first write, a refusal by the log looks like one by a node, but for a condition's.
func ofLog(m *messages.WriteReply) bool {
	return m.Code == messages.Code_OK || m.Revision > 0 || m.FailedCondition > 0
}

// expireSession: the log does not know the session any more. A command whose
// only sending was refused goes into a new session; of others nobody knows.
func (c *core) expireSession(r *request, why *messages.Error) {
	c.session.retiring = true
	switch {
	case r.live > 0:
		c.fail(r, explainUnknown(r, "the session expired while the command was sent more than once"))
	case r.renewals >= renewalsMax:
		c.fail(r, why.WithHint("the cluster drops sessions faster than they can be used; nothing was executed; try later"))
	default:
		c.useful(r.via)
		c.unlink(r)
		c.dropNumber(r)
		r.number, r.message, r.client = 0, nil, nil
		r.retryAt = c.now
		if r.renewals > 0 {
			r.retryAt += c.jitter(grown(retryMs, r.renewals, retryMaxMs))
		}
		r.renewals++
		c.requests.waitAgain(r)
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

// readReply: what was read, or that the node could not.
func (c *core) readReply(m *messages.ReadReply) []effect {
	c.learn(m.Leader)
	r := c.requests.reads[m.Request]
	if r == nil {
		return c.settle()
	}
	switch {
	case fateOf(m.Code) != settled || m.Code == messages.Code_SESSION_EXPIRED:
		c.refuse(r, explainReply(m.Code, m.Message, m.Leader))
	default:
		if r.read.GetConsistency() == messages.Consistency_LINEARIZABLE {
			c.useful(r.via) // a stale answer does not say that the node has its cluster
		}
		c.finish(r, &messages.Done{Read: m})
	}
	return c.settle()
}

func (c *core) statusReply(m *messages.StatusReply) []effect {
	c.learn(m.Leader)
	r := c.requests.ofNode[m.Request]
	switch {
	case r == nil || r.kind != status:
	case m.Code == messages.Code_BUSY:
		c.refuse(r, explainReply(m.Code, "", m.Leader))
	default:
		c.finish(r, &messages.Done{Status: m})
	}
	return c.settle()
}

// snapshotReply: what a node says of its own snapshots. Whatever it says, another
// node could not say it better.
func (c *core) snapshotReply(m *messages.SnapshotReply) []effect {
	r := c.requests.ofNode[m.Request]
	switch {
	case r == nil || r.kind != snapshot:
	case m.Code == messages.Code_BUSY:
		c.refuse(r, explainReply(m.Code, m.Message, nil))
	default:
		c.finish(r, &messages.Done{Snapshot: m})
	}
	return c.settle()
}

type fate int

const (
	settled  fate = iota // the answer that the asker gets
	notTaken             // surely not done by this sending: try again
	unsure               // perhaps done by this sending: try again, the number keeps it from happening twice
)

// fateOf says what a reply's code means for the sending that it answers.
func fateOf(code messages.Code) fate {
	switch code {
	case messages.Code_NO_LEADER, messages.Code_REDIRECT, messages.Code_BUSY, messages.Code_TIMED_OUT, messages.Code_UNREACHABLE:
		return notTaken
	case messages.Code_OUTCOME_UNKNOWN, messages.Code_DAMAGED, messages.Code_INTERNAL:
		return unsure
	}
	return settled
}

// expire answers a request whose deadline has passed.
func (c *core) expire(r *request) { c.fail(r, c.explainExpired(r)) }

// failUnsent answers what was surely not done: nobody will take it.
func (c *core) failUnsent() {
	for _, r := range c.requests.all {
		if !r.done && r.live == 0 {
			c.fail(r, c.explainUnreachable())
		}
	}
}

func (c *core) fail(r *request, why *messages.Error) { c.finish(r, r.failed(why)) }

// failed is the answer that carries an error, with a reply of r's kind.
func (r *request) failed(why *messages.Error) *messages.Done {
	d := &messages.Done{Tag: r.tag, Hint: why.Hint}
	switch r.kind {
	case write:
		d.Write = &messages.WriteReply{Request: r.number, Code: why.Code, Message: why.Message}
	case read:
		d.Read = &messages.ReadReply{Request: r.number, Code: why.Code, Message: why.Message}
	case status:
		// A StatusReply has no message: it is the hint's first line.
		d.Status = &messages.StatusReply{Request: r.number, Code: why.Code}
		d.Hint = why.Message + "\n" + why.Hint
	case snapshot:
		d.Snapshot = &messages.SnapshotReply{Request: r.number, Code: why.Code, Message: why.Message}
	}
	return d
}

// finish gives the one answer. The number of a write is answered or abandoned
// with it.
func (c *core) finish(r *request, d *messages.Done) {
	if r.done {
		panic("a request is answered twice")
	}
	q := &c.requests
	d.Tag, d.Endpoint = r.tag, r.endpoint
	if d.Endpoint == "" {
		d.Endpoint = c.links.last
	}
	if r.number != 0 {
		d.RequestId = messages.RequestID(r.client, r.number)
	}
	c.unlink(r)
	c.dropNumber(r)
	r.done = true
	q.count--
	q.bytes -= r.size
	if r.kind == write {
		q.writesCount--
	}
	c.emit(answer{r.asker, d})
}

// dropNumber ends the wait for replies to r.
func (c *core) dropNumber(r *request) {
	q, s := &c.requests, &c.session
	switch {
	case r.number == 0:
	case r.kind == read:
		delete(q.reads, r.number)
	case r.kind.ofNode():
		delete(q.ofNode, r.number)
	default:
		delete(q.writes, r.number)
		for s.acked < s.next && q.writes[s.acked] == nil {
			s.acked++
		}
	}
}

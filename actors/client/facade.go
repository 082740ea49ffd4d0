package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.opentelemetry.io/otel/trace"

	"keyval/actors/seam"
	"keyval/actors/seam/production"
	"keyval/actors/telemetry"
	"keyval/actors/transport/grpc"
	"keyval/actors/transport/keys"
	"keyval/messages"
)

// DefaultTimeout bounds a request whose context has no earlier deadline.
const DefaultTimeout = 10 * time.Second

// Options say how to reach a cluster.
type Options struct {
	// Endpoints are nodes of the cluster as host:port. One that answers suffices: the
	// client learns of the other members, and of those that come later.
	Endpoints []string
	// Pinned asks the nodes at Endpoints and no others, but for the leader, when there
	// is something to change: to ask one node about itself.
	Pinned bool
	// Impatient ends calls at once, as STARTING, where all nodes that are reached say that
	// they do not serve yet; else those are waited for.
	Impatient bool
	// Timeout bounds each request, in wall time; 0: DefaultTimeout. A context's
	// earlier deadline goes before it.
	Timeout time.Duration
	// SessionTTL is how long the cluster remembers this client while it is idle;
	// 0: DefaultSessionTTL. Programs that end after one request take OneShotSessionTTL.
	SessionTTL time.Duration
	// Logger is told what goes wrong inside; nil discards.
	Logger *slog.Logger
	// Keys are the client's, for a cluster that is reached with keys alone: keys.Load
	// reads them. nil: none. They are loaded again when their files change.
	Keys *keys.Ring
	// Token is what a client shows whose Keys hold no certificate, as Login returns it. It is asked
	// for each time that a node is dialled, by one goroutine or another, so it may log in again when
	// the one that it has expires soon. nil: the one in the file that Keys name, if they do.
	Token func() string
	// Network reaches the nodes; nil: gRPC, with Keys.
	Network seam.Network
	// Version is told to the nodes.
	Version string
	// TracerProvider makes a span of each read and write, below that of the call's context;
	// what nodes do for it stands below that. nil: none is made, and nodes decide for
	// themselves what they trace.
	TracerProvider trace.TracerProvider
}

// Client is a connection to a cluster. Its methods are safe for any number of
// goroutines. They block until the cluster has answered, the timeout has passed
// or the context has ended, and return errors that are or wrap a *messages.Error. When
// the time was up or the context was cancelled, they wrap context.DeadlineExceeded or
// context.Canceled too, so that errors.Is tells. A call never ends before its deadline, and
// behind it only waits for what the client itself knows of the request, which takes
// milliseconds: no node is waited for. The slices that a method is given are the
// caller's again when it returns: nothing of a call that was given up is sent
// afterwards.
type Client struct {
	system  *actor.ActorSystem
	root    *actor.RootContext
	desk    *desk
	timeout time.Duration
	tracer  trace.Tracer // nil: nobody traces
	close   sync.Once
}

// Connect makes a client and waits until a node is reached that serves; there need not
// be a leader. If none is before the timeout has passed or the context has ended, the
// error says what is wrong with each endpoint. It is INVALID for options that cannot work.
func Connect(ctx context.Context, o Options) (*Client, error) {
	if err := ctx.Err(); err != nil {
		return nil, &unfinished{messages.Errorf(messages.Code_TIMED_OUT, "nothing was sent"), err}
	}
	if o.Network == nil {
		o.Network = grpc.New(grpc.Options{Logger: o.Logger, Keys: o.Keys, Token: o.Token})
	}
	c, err := connect(o, production.World(o.Logger, nil))
	if err != nil {
		return nil, err
	}
	if _, err := c.call(ctx, &messages.Submit{Reach: true}); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// connect spawns the client actor in a system of its own. It waits for no node.
func connect(o Options, world seam.World) (*Client, error) {
	if err := checkEndpoints(o.Endpoints); err != nil {
		return nil, err
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	var id [messages.ClientIDSize]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, messages.Errorf(messages.Code_INTERNAL, "read randomness: %v", err)
	}
	system, root := world.Runtime.NewSystem(messages.ClientAddress(id[:]), world.Logger)
	c := &Client{system: system, root: root, timeout: o.Timeout}
	if o.TracerProvider != nil {
		c.tracer = o.TracerProvider.Tracer(telemetry.Scope)
	}
	world.Fatal = func(reason error) {
		world.Logger.Error("the client ends", "reason", reason)
		c.desk.shut(messages.Errorf(messages.Code_INTERNAL, "the client failed: %v", reason))
	}
	c.desk = newDesk(system)
	c.desk.client = root.Spawn(actor.PropsFromProducer(New(Config{
		Endpoints: o.Endpoints, Pinned: o.Pinned, Impatient: o.Impatient, Network: o.Network, World: world, SessionTTL: o.SessionTTL, Version: o.Version,
	}), actor.WithGuardian(actor.NewOneForOneStrategy(0, 0, func(reason any) actor.Directive {
		world.Logger.Error("the client actor failed", "reason", reason)
		c.desk.shut(messages.Errorf(messages.Code_INTERNAL, "the client failed: %v", reason))
		return actor.StopDirective
	}))))
	return c, nil
}

func checkEndpoints(endpoints []string) error {
	if len(endpoints) == 0 {
		return messages.Errorf(messages.Code_INVALID, "there is no endpoint").WithHint("name a node as HOST:PORT")
	}
	for _, e := range endpoints {
		if err := grpc.CheckReachable(e); err != nil {
			return messages.Errorf(err.Code, "endpoint %s", err.Message).WithHint("%s", err.Hint)
		}
	}
	return nil
}

// Close ends the client. Calls that are under way, and later ones, return errors that
// wrap ErrClosed; their code is OUTCOME_UNKNOWN for writes that were sent and INVALID for
// all others. It may be called more than once.
func (c *Client) Close() {
	c.close.Do(func() {
		_ = c.root.StopFuture(c.desk.client).Wait()
		c.desk.shut(&unfinished{messages.Errorf(messages.Code_INVALID, "the client was closed"), ErrClosed})
		c.system.Shutdown()
	})
}

// WriteOption makes the write of a key conditional. A condition that does not hold is
// the error ErrConflict: nothing was written, and the result's Revision is the one at
// which it did not hold; a read at that revision shows what stood there.
type WriteOption func(key []byte) *messages.Condition

// IfRevision writes only while the key's last write is of this revision; 0: while
// there is no such key.
func IfRevision(revision uint64) WriteOption {
	return func(key []byte) *messages.Condition {
		return &messages.Condition{Key: key, Target: &messages.Condition_ModRevision{ModRevision: revision}}
	}
}

// IfAbsent writes only while there is no such key.
func IfAbsent() WriteOption { return IfRevision(0) }

// PutResult is the outcome of a Put.
type PutResult struct {
	Key       []byte
	Revision  uint64 // of this write
	RequestID string
}

// Put writes a value. The key has 1 byte to 16 KiB, the value up to 512 KiB;
// others are INVALID.
func (c *Client) Put(ctx context.Context, key, value []byte, options ...WriteOption) (PutResult, error) {
	d, err := c.writeIf(ctx, key, options, &messages.Operation{Kind: &messages.Operation_Put{Put: &messages.Put{Key: key, Value: value}}})
	return PutResult{Key: key, Revision: d.GetWrite().GetRevision(), RequestID: d.GetRequestId()}, err
}

// KeyValue is a key and what it is to hold.
type KeyValue struct{ Key, Value []byte }

// PutAll writes several values at once: all of them, at one revision, or none. Up to 128,
// and about 512 KiB together; more are INVALID.
func (c *Client) PutAll(ctx context.Context, rows []KeyValue) (PutResult, error) {
	var t Transaction
	for _, r := range rows {
		t.Then = append(t.Then, PutOperation(r.Key, r.Value))
	}
	d, err := c.Transact(ctx, t)
	return PutResult{Revision: d.Revision, RequestID: d.RequestID}, err
}

// DeleteResult is the outcome of a Delete.
type DeleteResult struct {
	Key       []byte
	Deleted   bool   // it was there
	Revision  uint64 // of this write; if the key was not there, the one at which it was not
	RequestID string
}

// Delete removes a key. A key that is not there is no error, unless an option says so.
func (c *Client) Delete(ctx context.Context, key []byte, options ...WriteOption) (DeleteResult, error) {
	d, err := c.writeIf(ctx, key, options, &messages.Operation{Kind: &messages.Operation_Delete{Delete: &messages.Delete{Key: key}}})
	return DeleteResult{Key: key, Deleted: d.GetWrite().GetDeleted() > 0, Revision: d.GetWrite().GetRevision(), RequestID: d.GetRequestId()}, err
}

// Status asks the node in use how it is, and returns its endpoint. It needs no
// leader. To ask a certain node, pin a client to its endpoint.
func (c *Client) Status(ctx context.Context) (*messages.StatusReply, string, error) {
	return c.status(ctx, &messages.StatusRequest{})
}

// StatusAndEvents is Status with what the node's log said lately.
func (c *Client) StatusAndEvents(ctx context.Context) (*messages.StatusReply, string, error) {
	return c.status(ctx, &messages.StatusRequest{Events: true})
}

func (c *Client) status(ctx context.Context, m *messages.StatusRequest) (*messages.StatusReply, string, error) {
	d, err := c.call(ctx, &messages.Submit{Status: m})
	if err != nil {
		return nil, "", err
	}
	return d.Status, d.Endpoint, nil
}

func (c *Client) write(ctx context.Context, operations ...*messages.Operation) (*messages.Done, error) {
	return c.call(ctx, &messages.Submit{Operations: operations})
}

// writeIf is a write of one key under conditions.
func (c *Client) writeIf(ctx context.Context, key []byte, options []WriteOption, operation *messages.Operation) (*messages.Done, error) {
	m := &messages.Submit{Operations: []*messages.Operation{operation}}
	for _, option := range options {
		m.Conditions = append(m.Conditions, option(key))
	}
	return c.call(ctx, m)
}

// timers are those of calls that have ended, to be used again.
var timers = sync.Pool{New: func() any { return time.NewTimer(time.Hour) }}

// call submits one request and waits for its answer.
func (c *Client) call(ctx context.Context, m *messages.Submit) (*messages.Done, error) {
	operation := operationOf(m)
	if c.tracer == nil || operation == "" {
		return c.submit(ctx, m)
	}
	return c.traced(ctx, operation, m)
}

func (c *Client) submit(ctx context.Context, m *messages.Submit) (*messages.Done, error) {
	if err := ctx.Err(); err != nil {
		return nil, &unfinished{messages.Errorf(messages.Code_TIMED_OUT, "nothing was sent"), err}
	}
	limit := c.timeout
	if at, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(at))
	}
	m.DeadlineMs = uint64(max(1, limit.Milliseconds()))
	tag, answered, ended := c.desk.expect()
	if ended != nil {
		return nil, reworded(ended, func(e *messages.Error) { e.Message += "; nothing was sent" })
	}
	defer c.desk.forget(tag)
	m.Tag = tag
	overdue := timers.Get().(*time.Timer) // the actor counts ticks, which stretch when the process stands still
	overdue.Reset(limit)
	defer func() {
		overdue.Stop()
		timers.Put(overdue)
	}()
	c.root.RequestWithCustomSender(c.desk.client, m, c.desk.pid)
	select {
	case d := <-answered:
		return judge(d)
	case <-c.desk.ended:
		return c.last(answered, m)
	case <-ctx.Done():
		return c.withdraw(ctx.Err(), m, answered)
	case <-overdue.C:
		return c.withdraw(context.DeadlineExceeded, m, answered)
	}
}

// withdraw ends a call whose context has ended or whose time is up. It waits for the
// client actor, which says at once what is known of the request: from then on the actor
// sends nothing more of it, and holds none of the caller's slices.
func (c *Client) withdraw(cause error, m *messages.Submit, answered <-chan *messages.Done) (*messages.Done, error) {
	w := &messages.Withdraw{Tag: m.Tag, Late: errors.Is(cause, context.DeadlineExceeded)}
	c.root.RequestWithCustomSender(c.desk.client, w, c.desk.pid)
	select {
	case d := <-answered:
		return judge(d)
	case <-c.desk.ended:
		return c.last(answered, m)
	}
}

// last is a call that was under way when the client ended.
func (c *Client) last(answered <-chan *messages.Done, m *messages.Submit) (*messages.Done, error) {
	select {
	case d := <-answered:
		return judge(d)
	default:
		return nil, reworded(c.desk.reason(), func(e *messages.Error) {
			e.Message += " before the answer came"
			switch {
			case m.Operations != nil:
				e.Code, e.Hint = messages.Code_OUTCOME_UNKNOWN, hintUnknown
			case changesCluster(m.Cluster):
				e.Code, e.Hint = messages.Code_OUTCOME_UNKNOWN, hintUnknownChange
			}
		})
	}
}

// judge adds the error to an answer whose code is not OK.
func judge(d *messages.Done) (*messages.Done, error) {
	code, message, hint := messages.Code_OK, "", d.Hint
	switch {
	case d.Write != nil:
		code, message = d.Write.Code, d.Write.Message
		hint = cmp.Or(d.Write.Hint, hint)
	case d.Read != nil:
		code, message = d.Read.Code, d.Read.Message
		hint = cmp.Or(d.Read.Hint, hint)
	case d.Status != nil:
		code, message, hint = d.Status.Code, d.Status.Message, d.Status.Hint
		if message == "" {
			message, hint, _ = strings.Cut(d.Hint, "\n")
		}
	case d.Snapshot != nil:
		code, message = d.Snapshot.Code, d.Snapshot.Message
		hint = cmp.Or(d.Snapshot.Hint, hint)
	case d.Cluster != nil:
		code, message = d.Cluster.Code, d.Cluster.Message
		hint = cmp.Or(d.Cluster.Hint, hint)
	}
	if code == messages.Code_OK {
		return d, nil
	}
	if message == "" {
		message = wordsOf(code)
	}
	if hint == "" && code == messages.Code_COMPACTED {
		hint = "read at a later revision, or at the newest"
	}
	return d, ending(d, &messages.Error{Code: code, Message: message, Endpoint: d.Endpoint, RequestID: d.RequestId, Hint: hint})
}

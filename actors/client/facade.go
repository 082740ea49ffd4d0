package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/actors/seam"
	"keyval/actors/seam/production"
	"keyval/actors/transport"
	"keyval/messages"
)

// DefaultTimeout bounds a request whose context has no earlier deadline.
const DefaultTimeout = 10 * time.Second

// grace is how long a call goes on after its context's deadline for the answer
// that says more than "deadline exceeded". The client actor gives it by then.
const grace = 500 * time.Millisecond

// Options say how to reach a cluster.
type Options struct {
	// Endpoints are nodes of the cluster as host:port. One suffices; with several
	// the client lives through the loss of some.
	Endpoints []string
	// Timeout bounds each request; 0: DefaultTimeout. A context's earlier deadline
	// goes before it.
	Timeout time.Duration
	// SessionTTL is how long the cluster remembers this client while it is idle;
	// 0: DefaultSessionTTL. Programs that end after one request take OneShotSessionTTL.
	SessionTTL time.Duration
	// Logger is told what goes wrong inside; nil discards.
	Logger *slog.Logger
	// Network reaches the nodes; nil: gRPC.
	Network transport.Network
	// Version is told to the nodes.
	Version string
}

// Client is a connection to a cluster. Its methods are safe for any number of
// goroutines. They block until the cluster has answered, the timeout has passed
// or the context has ended, and return errors that are *messages.Error, or wrap
// one when the context was cancelled.
type Client struct {
	system  *actor.ActorSystem
	root    *actor.RootContext
	desk    *desk
	timeout time.Duration
	close   sync.Once
}

// Connect makes a client and begins to dial. It does not wait for a node: the
// first request does, and says what is wrong with each endpoint if none serves.
// The error is INVALID for options that cannot work, or the context's.
func Connect(ctx context.Context, o Options) (*Client, error) {
	if err := ctx.Err(); err != nil {
		return nil, interrupted(err, "nothing was sent", messages.Code_TIMED_OUT)
	}
	if o.Network == nil {
		o.Network = transport.NewGRPC(transport.Options{Logger: o.Logger})
	}
	return connect(o, production.World(o.Logger, nil))
}

// connect spawns the client actor in a system of its own.
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
	world.Fatal = func(reason error) {
		world.Logger.Error("the client ends", "reason", reason)
		c.desk.shut("the client failed: " + reason.Error())
	}
	c.desk = newDesk(system)
	c.desk.client = root.Spawn(actor.PropsFromProducer(New(Config{
		Endpoints: o.Endpoints, Network: o.Network, World: world, SessionTTL: o.SessionTTL, Version: o.Version,
	}), actor.WithGuardian(actor.NewOneForOneStrategy(0, 0, func(reason any) actor.Directive {
		world.Logger.Error("the client actor failed", "reason", reason)
		c.desk.shut(fmt.Sprintf("the client failed: %v", reason))
		return actor.StopDirective
	}))))
	return c, nil
}

func checkEndpoints(endpoints []string) error {
	if len(endpoints) == 0 {
		return messages.Errorf(messages.Code_INVALID, "there is no endpoint").WithHint("name a node as HOST:PORT")
	}
	for _, e := range endpoints {
		host, port, err := net.SplitHostPort(e)
		number, notNumber := strconv.ParseUint(port, 10, 16)
		if err != nil || notNumber != nil || number == 0 || host == "" {
			return messages.Errorf(messages.Code_INVALID, "%q is no endpoint", e).WithHint("give HOST:PORT, for example 127.0.0.1:7001")
		}
	}
	return nil
}

// Close ends the client. Calls that are under way return; writes among them with
// the code OUTCOME_UNKNOWN if they were sent. It may be called more than once.
func (c *Client) Close() {
	c.close.Do(func() {
		_ = c.root.StopFuture(c.desk.client).Wait()
		c.desk.shut("the client was closed")
		c.system.Shutdown()
	})
}

// WriteOption makes the write of a key conditional. A condition that does not hold is
// the error CONFLICT: nothing was written, and the result's Revision is the one at
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
// leader. A client that never wrote asks its own endpoints only.
func (c *Client) Status(ctx context.Context) (*messages.StatusReply, string, error) {
	d, err := c.call(ctx, &messages.Submit{Status: &messages.StatusRequest{}})
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

// call submits one request and waits for its answer.
func (c *Client) call(ctx context.Context, m *messages.Submit) (*messages.Done, error) {
	unfinished := messages.Code_TIMED_OUT
	if m.Operations != nil {
		unfinished = messages.Code_OUTCOME_UNKNOWN
	}
	if err := ctx.Err(); err != nil {
		return nil, interrupted(err, "nothing was sent", messages.Code_TIMED_OUT)
	}
	limit := c.timeout
	if at, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(at))
	}
	m.DeadlineMs = uint64(max(1, limit.Milliseconds()))
	tag, answered, ended := c.desk.expect()
	if ended != "" {
		return nil, messages.Errorf(messages.Code_TIMED_OUT, "%s; nothing was sent", ended)
	}
	defer c.desk.forget(tag)
	m.Tag = tag
	c.root.RequestWithCustomSender(c.desk.client, m, c.desk.pid)
	select {
	case d := <-answered:
		return judge(d)
	case <-c.desk.ended:
		return c.last(answered, unfinished)
	case <-ctx.Done():
		return c.late(ctx, answered, unfinished)
	}
}

// late is a call whose context has ended. At its deadline the answer that says
// more is due; whoever cancels does not wait.
func (c *Client) late(ctx context.Context, answered <-chan *messages.Done, code messages.Code) (*messages.Done, error) {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		patience := time.NewTimer(grace)
		defer patience.Stop()
		select {
		case d := <-answered:
			return judge(d)
		case <-patience.C:
		}
	}
	what := "the read was given up"
	if code == messages.Code_OUTCOME_UNKNOWN {
		what = "the wait was given up: the write may or may not have happened"
	}
	return nil, interrupted(ctx.Err(), what, code)
}

// last is a call that was under way when the client ended.
func (c *Client) last(answered <-chan *messages.Done, code messages.Code) (*messages.Done, error) {
	select {
	case d := <-answered:
		return judge(d)
	default:
		e := messages.Errorf(code, "%s before the answer came", c.desk.reason())
		if code == messages.Code_OUTCOME_UNKNOWN {
			e = e.WithHint(hintUnknown)
		}
		return nil, e
	}
}

// interrupted is the error of a context that ended: both a *messages.Error and ctx's.
func interrupted(cause error, what string, code messages.Code) error {
	e := messages.Errorf(code, "%s", what)
	if code == messages.Code_OUTCOME_UNKNOWN {
		e = e.WithHint(hintUnknown)
	}
	return fmt.Errorf("%w (%w)", e, cause)
}

// judge adds the error to an answer whose code is not OK.
func judge(d *messages.Done) (*messages.Done, error) {
	code, message, hint := messages.Code_OK, "", d.Hint
	switch {
	case d.Write != nil:
		code, message = d.Write.Code, d.Write.Message
	case d.Read != nil:
		code, message = d.Read.Code, d.Read.Message
	case d.Status != nil:
		code = d.Status.Code
		message, hint, _ = strings.Cut(d.Hint, "\n")
	case d.Snapshot != nil:
		code, message = d.Snapshot.Code, d.Snapshot.Message
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
	return d, &messages.Error{Code: code, Message: message, Endpoint: d.Endpoint, RequestID: d.RequestId, Hint: hint}
}

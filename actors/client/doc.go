// Package client talks to a KeyVal cluster.
//
// # A program
//
// Connect gives a Client that has reached a node. It is safe for any number of
// goroutines, which share one stream, and it lasts: make one, and close it at the end.
//
//	c, err := client.Connect(ctx, client.Options{Endpoints: []string{"127.0.0.1:7001", "127.0.0.1:7002"}})
//	if err != nil { ... }
//	defer c.Close()
//	put, err := c.Put(ctx, []byte("color"), []byte("red"))
//	got, err := c.Get(ctx, []byte("color"))
//
// Any node serves any request. The client dials the endpoints in turn, starting
// with one by chance, and stays with the first that serves. When it has writes,
// it moves to the leader; while the leader cannot be reached, the node in use passes
// writes on to it. It learns where the members are, and is told when they change: so it
// outlives all nodes that it was told of at first. Pinned turns that off.
//
// # What a write's answer means
//
// A write has its effect at most once, however often the client has to send it:
// it carries the client's number and a sequence number, and the cluster executes
// a number once. So retries are never the caller's business. When time is up,
// the error's code (CodeOf) tells apart what must be told apart:
//
//   - OutcomeUnknown: it was sent and nobody knows what became of it. It may or
//     may not have happened, or may still happen. Read the key before you try
//     again. A later write of the same client, sent while nothing earlier is under
//     way, settles it: once that one is executed, this one cannot happen any more.
//   - Unreachable, NoLeader, Busy, TimedOut, Invalid: it surely did not happen.
//
// A Transaction is several operations in one such command, with conditions and an
// alternative: all of it happens, at one revision, or nothing.
//
// Every error is or wraps an *Error: what was wrong, at which endpoint, in which request, and
// a hint at the next step. errors.Is(err, ErrNotFound) tells that a key is not there,
// ErrConflict that a condition does not hold, ErrOutcomeUnknown that nobody knows; when time
// was up or the caller gave up, errors.Is finds context.DeadlineExceeded or context.Canceled
// as well.
//
// # Reads
//
// Reads are linearizable: they see every write that was answered before they
// began, whoever made it. Stale asks the node in use alone, which may lag, but
// answers without a leader too. AtRevision reads history. A Scan reads all its
// pages at one revision. ErrCompacted is the error where a revision is older than the
// history that is kept; Compact gives history up.
//
// # One node
//
// Status, Snapshots and the other snapshot calls, Digest and Stale reads are answered
// by the node in use. To ask a certain node, connect to its endpoint alone, pinned.
//
// # Actors
//
// Programs that are made of actors skip the façade: spawn New in a system of its
// own address and Request a messages.Submit of it.
//
//	world := production.World(logger, nil)
//	system, root := world.Runtime.NewSystem(messages.ClientAddress(random), logger)
//	pid, err := root.SpawnNamed(actor.PropsFromProducer(client.New(client.Config{
//		Endpoints: endpoints, Network: grpc.New(grpc.Options{}), World: world,
//	})), "client")
//	// in an actor of system:
//	ctx.Request(pid, &messages.Submit{Tag: 1, DeadlineMs: 2000, Operations: operations})
//	// ... and later it receives one *messages.Done with Tag 1
//
// It holds up to 8,192 requests or 64 MiB; beyond that it answers BUSY at once.
// The simulator runs the very same actor.
package client

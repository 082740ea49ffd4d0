// Actors is a program made of actors that use a KeyVal cluster with messages alone.
// No call blocks and nobody waits: a Submit goes out, and some time later a Done
// comes in, with the tag that its asker gave it.
//
//	recorder ──Submit──► client ◄──Submit── auditor
//	    ▲ └────Done────────┘ └────Done─────────▲
//	    └──────────────recorded────────────────┘
//
// The recorder writes measurements, several at a time, and tells the auditor of each
// that the cluster has acknowledged. The auditor reads every one of them back at the
// revision that wrote it. The client is an actor too: it keeps the link to the
// cluster, follows the leader, and sends again what was lost.
//
//	go run ./examples/actors --endpoints 127.0.0.1:7001,127.0.0.1:7002
package main

import (
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/actors/client"
	"keyval/actors/seam/production"
	"keyval/actors/transport/grpc"
	"keyval/messages"
)

// atOnce bounds the measurements under way, in number.
const atOnce = 8

func main() {
	endpoints := flag.String("endpoints", "127.0.0.1:7001,127.0.0.1:7002,127.0.0.1:7003", "nodes of the cluster, as `HOST:PORT,...`")
	count := flag.Uint64("count", 20, "write `N` measurements")
	timeout := flag.Duration("timeout", 10*time.Second, "give each request up after `DURATION`")
	flag.Parse()
	if *count == 0 {
		return
	}
	if err := run(strings.Split(*endpoints, ","), *count, uint64(timeout.Milliseconds())); err != nil {
		fmt.Fprintln(os.Stderr, "actors:", err)
		os.Exit(1)
	}
}

// run is where the actors meet the rest of the program: it waits for the one thing
// that the auditor has to say in the end.
func run(endpoints []string, count, deadlineMs uint64) error {
	// A client is an actor system of its own; its address is random and proves nothing.
	var id [messages.ClientIDSize]byte
	if _, err := rand.Read(id[:]); err != nil {
		return err
	}
	world := production.World(slog.New(slog.NewTextHandler(os.Stderr, nil)), nil)
	system, root := world.Runtime.NewSystem(messages.ClientAddress(id[:]), world.Logger)
	defer system.Shutdown()

	// A client that failed cannot join the network again: it stops. Its system goes with it.
	stops := actor.WithGuardian(actor.NewOneForOneStrategy(0, 0, func(any) actor.Directive { return actor.StopDirective }))
	keeper, err := root.SpawnNamed(actor.PropsFromProducer(client.New(client.Config{
		Endpoints: endpoints, Network: grpc.New(grpc.Options{Logger: world.Logger}), World: world, Version: "example",
	}), stops), "client")
	if err != nil {
		return err
	}
	verdict := make(chan error, 1)
	watcher := root.Spawn(actor.PropsFromProducer(func() actor.Actor {
		return &auditor{client: keeper, deadlineMs: deadlineMs, left: count, asked: map[uint64]recorded{}, verdict: verdict}
	}))
	root.Spawn(actor.PropsFromProducer(func() actor.Actor {
		return &recorder{client: keeper, auditor: watcher, deadlineMs: deadlineMs, count: count}
	}))
	err = <-verdict
	_ = root.StopFuture(keeper).Wait() // says goodbye to the cluster
	return err
}

// What the actors of this program say to each other, beside the cluster's messages.
type (
	// recorded: recorder -> auditor: a measurement is in the cluster.
	recorded struct {
		key, value string
		revision   uint64
	}
	// failed: recorder -> auditor: one is not, or nobody knows.
	failed struct{ reason error }
)

// recorder writes measurements. The tag of a Submit is the measurement's number.
type recorder struct {
	client     *actor.PID
	auditor    *actor.PID
	deadlineMs uint64
	count      uint64
	next       uint64 // how many were submitted
}

// Receive takes one message.
func (a *recorder) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		for range min(atOnce, a.count) {
			a.submit(ctx)
		}
	case *messages.Done:
		a.onDone(ctx, m)
	}
}

func (a *recorder) submit(ctx actor.Context) {
	if a.next == a.count {
		return
	}
	a.next++
	key, value := measurement(a.next)
	ctx.Request(a.client, &messages.Submit{Tag: a.next, DeadlineMs: a.deadlineMs, Operations: []*messages.Operation{
		{Kind: &messages.Operation_Put{Put: &messages.Put{Key: []byte(key), Value: []byte(value)}}},
	}})
}

func (a *recorder) onDone(ctx actor.Context, m *messages.Done) {
	key, value := measurement(m.Tag)
	if m.Write.Code != messages.Code_OK {
		ctx.Send(a.auditor, failed{problem("put "+key, m.Write.Code, m.Write.Message, m)})
		return
	}
	ctx.Send(a.auditor, recorded{key, value, m.Write.Revision})
	a.submit(ctx)
}

func measurement(number uint64) (key, value string) {
	return fmt.Sprintf("measurement/%06d", number), fmt.Sprintf("%d.%d degrees", 15+number%10, number*7%10)
}

// auditor reads back what was recorded. The tag of a Submit is the revision it
// asks for, which no two writes share.
type auditor struct {
	client     *actor.PID
	deadlineMs uint64
	left       uint64 // to be read back
	asked      map[uint64]recorded
	verdict    chan<- error // has room for one
}

// Receive takes one message.
func (a *auditor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		ctx.Watch(a.client)
	case *actor.Terminated:
		a.end(ctx, errors.New("the client has ended"))
	case recorded:
		a.asked[m.revision] = m
		ctx.Request(a.client, &messages.Submit{Tag: m.revision, DeadlineMs: a.deadlineMs, Read: &messages.Read{
			Revision: m.revision, Kind: &messages.Read_Get{Get: &messages.Get{Key: []byte(m.key)}},
		}})
	case failed:
		a.end(ctx, m.reason)
	case *messages.Done:
		a.onDone(ctx, m)
	}
}

func (a *auditor) onDone(ctx actor.Context, m *messages.Done) {
	want := a.asked[m.Tag]
	delete(a.asked, m.Tag)
	switch {
	case m.Read.Code != messages.Code_OK:
		a.end(ctx, problem("get "+want.key, m.Read.Code, m.Read.Message, m))
		return
	case len(m.Read.Items) != 1 || string(m.Read.Items[0].Value) != want.value:
		a.end(ctx, fmt.Errorf("%s is not %q at revision %d", want.key, want.value, want.revision))
		return
	}
	fmt.Printf("%s = %s, revision %d, read from %s\n", want.key, want.value, want.revision, m.Endpoint)
	if a.left--; a.left == 0 {
		a.end(ctx, nil)
	}
}

// end gives the verdict, once: what comes later finds a stopped actor.
func (a *auditor) end(ctx actor.Context, verdict error) {
	select {
	case a.verdict <- verdict:
	default: // it was given
	}
	ctx.Stop(ctx.Self())
}

func problem(what string, code messages.Code, message string, d *messages.Done) error {
	if message == "" {
		message = code.String()
	}
	e := messages.Errorf(code, "%s: %s", what, message).At(d.Endpoint, d.RequestId)
	if d.Hint != "" {
		return fmt.Errorf("%w; next: %s", e, d.Hint)
	}
	return e
}

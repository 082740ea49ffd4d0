package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/actors/client"
	"keyval/messages"
)

// stillsMax bounds the keys that are written once, so that one scan shows all.
const stillsMax = 500

// deadline bounds every operation, in milliseconds of the client's ticks.
const deadlineMS = 8000

// customer is one client on hardware of its own: the client actor of production,
// and what this one wants of the cluster.
type customer struct {
	run    *run
	number int
	name   string
	host   *host   // of the client's process now
	probes *server // the one node that it was made to try; nil: it is of the load
	// tireless: it goes on when clients are to fall silent.
	tireless bool
	starts   int
	under    map[uint64]*operation // under way, by tag
	tags     uint64
	seen     map[string]sight // what it saw of keys last, in this process
	// expects belongs to the operation that is drawn, until it is submitted.
	expects *expectation
}

const (
	actorClient = "client"
	actorAsker  = "asker"
)

// customer adds a client, whose process does not run yet.
func (r *run) customer(name string) *customer {
	c := &customer{run: r, number: len(r.clients), name: name}
	r.clients = append(r.clients, c)
	return c
}

// start runs a client process, which knows all nodes' endpoints.
func (c *customer) start() { c.startWith(c.run.endpoints(), false) }

func (c *customer) startWith(endpoints []string, pinned bool) {
	w := c.run.world
	c.starts++
	c.under, c.seen = map[uint64]*operation{}, map[string]sight{}
	c.host = &host{world: w, name: c.name, node: -1, pace: pace{rate: 1}}
	chance := stream(c.run.options.Seed, fmt.Sprintf("%s/%d", c.name, c.starts))
	random := reader{chance}
	var id [messages.ClientIDSize]byte
	random.Read(id[:])
	seams := c.host.seams(random)
	_, root := seams.Runtime.NewSystem(messages.ClientAddress(id[:]), seams.Logger)
	c.spawn(root, actorClient, client.New(client.Config{
		Endpoints: endpoints, Pinned: pinned, Network: place{w.net, c.host}, World: seams, Version: "simulated", SessionTTL: c.ttl(),
	}))
	c.spawn(root, actorAsker, func() actor.Actor { return asker{c} })
}

func (c *customer) spawn(root *actor.RootContext, name string, producer actor.Producer) {
	if _, err := root.SpawnNamed(actor.PropsFromProducer(producer), name); err != nil {
		panic(fmt.Sprintf("sim: spawn %s: %v", name, err))
	}
}

// ttl is that of the swarm; a probe's session does not expire while it tries.
func (c *customer) ttl() time.Duration {
	if c.probes != nil {
		return 0
	}
	return c.run.swarm.ttl
}

// asker takes the client's answers.
type asker struct{ customer *customer }

func (a asker) Receive(ctx actor.Context) {
	if done, ok := ctx.Message().(*messages.Done); ok {
		a.customer.done(done)
	}
}

// crash ends the client's process: nobody will ever know what became of what it
// had under way.
func (c *customer) crash() {
	c.run.world.note(c.host, "the process is killed")
	c.run.world.kill(c.host, false)
	c.under = nil
}

func (r *run) restartClient(c *customer) {
	c.crash()
	c.start()
}

// submit hands an operation to the client.
func (c *customer) submit(s *messages.Submit) *operation {
	c.tags++
	s.Tag = c.tags
	if s.DeadlineMs == 0 {
		s.DeadlineMs = deadlineMS
	}
	op := c.run.history.begin(c.number, s, c.run.world.clock.now)
	op.expects, c.expects, op.principal = c.expects, nil, c.name
	c.under[s.Tag] = op
	root := c.host.system.Root
	root.RequestWithCustomSender(c.host.system.NewLocalPID(actorClient), s, c.host.system.NewLocalPID(actorAsker))
	return op
}

func (c *customer) done(d *messages.Done) {
	op := c.under[d.Tag]
	if op == nil {
		c.run.world.fail("one answer", "%s got an answer to request %d twice, or never asked", c.name, d.Tag)
		return
	}
	delete(c.under, d.Tag)
	op.untrusted = op.submit.Read != nil && c.run.rotten(d)
	c.look(op, d)
	c.run.history.end(op, d, c.run.world.clock.now)
	c.run.meet(op, d)
	if op.then != nil && (!c.run.quiet || c.tireless) && op.certain() {
		op.then(d)
	}
}

// work submits operations at random times for as long as the run wants load.
func (c *customer) work() {
	r := c.run
	r.world.clock.after(time.Duration(r.load.ExpFloat64()*float64(r.swarm.think)), nil, func() {
		if r.quiet {
			return
		}
		switch {
		case len(c.under) >= r.swarm.depth:
		case r.load.IntN(100) < 2:
			c.loop()
		default:
			c.submit(c.hasten(c.draw()))
		}
		c.work()
	})
}

// hasten leaves some operations hardly any time: it is over while they are tried again.
func (c *customer) hasten(s *messages.Submit) *messages.Submit {
	if load := c.run.load; load.IntN(100) < c.run.swarm.hasty {
		s.DeadlineMs = 1 + load.Uint64N(uint64(c.run.swarm.electionTimeout().Milliseconds()))
	}
	return s
}

// idle reports a client that only reads.
func (c *customer) idle() bool { return c.number < c.run.swarm.idlers }

// draw makes an operation. Every value is written once only, so what is read
// says who wrote it.
func (c *customer) draw() *messages.Submit {
	r := c.run
	switch n := r.load.IntN(100); {
	case n < 4:
		return c.drawRare()
	case n < 4+r.swarm.conditional:
		return c.drawConditional()
	}
	n := r.load.IntN(100)
	if r.load.IntN(100) < r.swarm.reading || c.idle() {
		n = 56 + n*44/100
	}
	switch {
	case n < 8 && r.swarm.still && r.stills < stillsMax:
		r.stills++
		return writing(c.put(fmt.Appendf(nil, "still-%d", r.values)))
	case n < 40:
		return writing(c.put(c.key()))
	case n < 48:
		return writing(&messages.Operation{Kind: &messages.Operation_Delete{Delete: &messages.Delete{Key: c.key()}}})
	case n < 51 && r.swarm.ranges:
		from, to := c.span()
		return writing(&messages.Operation{Kind: &messages.Operation_DeleteRange{DeleteRange: &messages.DeleteRange{
			From: from, To: to, Limit: uint32(r.load.IntN(4)),
		}}})
	case n < 56:
		return writing(c.several()...)
	case n < 66:
		from, to := c.span()
		return c.reading(&messages.Read{Kind: &messages.Read_Scan{Scan: &messages.Scan{
			From: from, To: to, Limit: uint32(r.load.IntN(4)), Reverse: r.load.IntN(2) == 0, KeysOnly: r.load.IntN(4) == 0,
		}}})
	default:
		return c.reading(&messages.Read{Kind: &messages.Read_Get{Get: &messages.Get{Key: c.key()}}})
	}
}

// several operations are one command: each sees what those before it did.
func (c *customer) several() []*messages.Operation {
	r := c.run
	var all []*messages.Operation
	for range 1 + r.load.IntN(5) {
		switch n := r.load.IntN(8); {
		case n < 2:
			all = append(all, &messages.Operation{Kind: &messages.Operation_Delete{Delete: &messages.Delete{Key: c.key()}}})
		case n < 4 && r.swarm.ranges:
			from, to := c.span()
			all = append(all, &messages.Operation{Kind: &messages.Operation_DeleteRange{DeleteRange: &messages.DeleteRange{
				From: from, To: to, Limit: uint32(r.load.IntN(4)),
			}}})
		case n == 4 && r.swarm.compacts:
			all = append(all, compaction(1+r.load.Uint64N(r.history.newest+1+r.history.newest/8)))
		default:
			all = append(all, c.put(c.key()))
		}
	}
	return all
}

// drawRare makes what is asked of a cluster now and then.
func (c *customer) drawRare() *messages.Submit {
	r := c.run
	from, to := c.span()
	switch n := r.load.IntN(6); {
	case r.swarm.levels && n < 2:
		level := pick[uint32](r.load, 0, 0, 1, 2, 3)
		return &messages.Submit{Cluster: &messages.ClusterRequest{Kind: &messages.ClusterRequest_LevelRaise{LevelRaise: &messages.LevelRaise{Level: level}}}}
	case n < 2 && r.swarm.compacts && !c.idle():
		// Some of it is given up already, and some is of the future.
		return writing(compaction(1 + r.load.Uint64N(r.history.newest+1+r.history.newest/8)))
	case n < 4:
		return c.reading(&messages.Read{Kind: &messages.Read_Digest{Digest: &messages.Digest{From: from, To: to, Limit: uint32(r.load.IntN(4))}}})
	}
	return &messages.Submit{Snapshot: c.drawSnapshot()}
}

func compaction(revision uint64) *messages.Operation {
	return &messages.Operation{Kind: &messages.Operation_Compact{Compact: &messages.Compact{Revision: revision}}}
}

// drawSnapshot makes a request for files. Names come again, and may be in use.
func (c *customer) drawSnapshot() *messages.SnapshotRequest {
	load := c.run.load
	id := fmt.Sprintf("snapshot-%d", load.IntN(4))
	switch load.IntN(4) {
	case 0:
		return &messages.SnapshotRequest{Kind: &messages.SnapshotRequest_List{List: &messages.SnapshotList{}}}
	case 1:
		return &messages.SnapshotRequest{Kind: &messages.SnapshotRequest_Delete{Delete: &messages.SnapshotDelete{Id: id}}}
	}
	return &messages.SnapshotRequest{Kind: &messages.SnapshotRequest_Create{Create: &messages.SnapshotCreate{Id: id}}}
}

// rotten reports whether an answer may come from a node whose data the world has altered.
// A read that was sent to two nodes names the second, and the first may have answered it.
func (r *run) rotten(d *messages.Done) bool {
	for _, s := range r.servers {
		switch {
		case !s.rotten():
		case slices.Contains(s.addresses(), d.Endpoint), d.Read.GetDigest() != nil, slices.ContainsFunc(d.Read.GetItems(), s.rot.is):
			return true
		}
	}
	return false
}

func writing(operations ...*messages.Operation) *messages.Submit {
	return &messages.Submit{Operations: operations}
}

// reading makes most reads linearizable and of the latest revision. Some are of the oldest
// that is kept, which may be given up while they are on their way.
func (c *customer) reading(read *messages.Read) *messages.Submit {
	r := c.run
	switch n := r.load.IntN(10); {
	case n == 0:
		read.Consistency = messages.Consistency_STALE
	case n == 1 && r.history.newest > 0:
		read.Revision = 1 + r.load.Uint64N(r.history.newest)
	case n == 2 && r.check.model.compacted > 0:
		read.Revision = r.check.model.compacted + r.load.Uint64N(4)
	}
	return &messages.Submit{Read: read}
}

func (c *customer) put(key []byte) *messages.Operation {
	r := c.run
	r.values++
	value := fmt.Appendf(nil, "%s/%d/", c.name, r.values)
	if r.load.IntN(20) == 0 {
		value = append(value, make([]byte, r.load.IntN(8<<10))...)
	}
	return &messages.Operation{Kind: &messages.Operation_Put{Put: &messages.Put{Key: key, Value: value}}}
}

func (c *customer) key() []byte { return fmt.Appendf(nil, "k%02d", c.run.load.IntN(c.run.swarm.keys)) }

// span is a range of keys; sometimes all of them, sometimes none.
func (c *customer) span() (from, to []byte) {
	from = c.key()
	if c.run.load.IntN(3) > 0 {
		to = c.key()
	}
	return from, to
}

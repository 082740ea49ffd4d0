package messages

import "strings"

// Names of the actors of a node: the only place where they are spelled out. An
// actor's name is its parent's name and its own. A name that ends in a dash is the
// prefix of many, which are numbered.
const (
	ActorNode          = "node"
	ActorTransport     = "node/transport"
	ActorFounding      = "node/founding"
	ActorJoining       = "node/joining"
	ActorTicker        = "node/ticker"
	ActorRaft          = "node/raft"
	ActorLog           = "node/log"
	ActorMachine       = "node/machine"
	ActorCheckpoint    = "node/machine/checkpoint"
	ActorReclaim       = "node/machine/reclaim"
	ActorReaderPrefix  = "node/machine/reader-"
	ActorSnapshots     = "node/snapshots"
	ActorIntake        = "node/snapshots/intake"
	ActorArchive       = "node/snapshots/archive"
	ActorAudit         = "node/audit"
	ActorMembership    = "node/membership"
	ActorLogin         = "node/login"
	ActorVerifier      = "node/login/verifier"
	ActorGateway       = "node/gateway"
	ActorSessionPrefix = "node/gateway/session-"
)

// Policy is what becomes of an actor that panics.
type Policy int

const (
	// EndsProcess: a panic is a broken invariant, and the process ends before it can
	// do harm.
	EndsProcess Policy = iota
	// Restarts: the actor keeps nothing that cannot be asked for again. It starts with
	// an empty memory and is introduced anew.
	Restarts
	// Stops: the actor is gone, and whoever needs one like it makes another.
	Stops
)

func (p Policy) String() string { return [...]string{"ends", "restarts", "stops"}[p] }

// Actor is what is true of one actor of a node, or of many of one kind.
type Actor struct {
	Name       string // one of the constants above
	OnPanic    Policy
	HearsTicks bool   // from the ticker
	Purpose    string // for the tree in docs/ARCHITECTURE.md
}

// Actors are all actors of a node, each after its parent. Supervision, the ticker's
// hearers, the panics that the simulator injects and the tree in the documentation
// follow from this table.
var Actors = []*Actor{
	{ActorNode, EndsProcess, false, "spawns the others and supervises them"},
	{ActorTransport, Restarts, false, "owns the node's place in the network"},
	{ActorFounding, Restarts, true, "finds the other founders; later answers those that are late"},
	{ActorJoining, Restarts, true, "asks to be let in, where a node is no founder, and ends when it is"},
	{ActorTicker, EndsProcess, false, "the only clock; at most one unprocessed Tick an actor"},
	{ActorRaft, EndsProcess, true, "consensus, around raft's RawNode"},
	{ActorLog, EndsProcess, false, "appends to the WAL and syncs it"},
	{ActorMachine, EndsProcess, true, "applies committed entries, and holds the state"},
	{ActorCheckpoint, EndsProcess, false, "makes the state durable"},
	{ActorReclaim, Stops, false, "gives space back after a compaction; the next one takes up what it left"},
	{ActorReaderPrefix, Restarts, false, "reads at published revisions, beside the machine"},
	{ActorSnapshots, Restarts, true, "brings snapshots to other nodes, takes those that come"},
	{ActorIntake, Restarts, false, "stages and verifies what comes"},
	{ActorArchive, Restarts, false, "writes, lists and deletes snapshot files"},
	{ActorAudit, Restarts, true, "compares what the members hold; only the leader's asks"},
	{ActorMembership, Restarts, true, "holds the view of the members, answers questions about it, and has the cluster's level raised"},
	{ActorLogin, Restarts, true, "gives tokens to users whose passwords fit, and bounds how many are tried"},
	{ActorVerifier, Restarts, false, "compares a password with a hash, which takes long"},
	{ActorGateway, Restarts, true, "spawns a session for each client, and brings it the outcomes"},
	{ActorSessionPrefix, Stops, false, "one attached client, which attaches again"},
}

// ActorOf finds what is true of the actor of this name. It is nil for an actor of
// another system than a node's.
func ActorOf(name string) *Actor {
	for _, a := range Actors {
		if a.Covers(name) {
			return a
		}
	}
	return nil
}

// Covers reports whether this is the actor of that name, or one of that prefix.
func (a *Actor) Covers(name string) bool {
	return name == a.Name || strings.HasSuffix(a.Name, "-") && strings.HasPrefix(name, a.Name)
}

// Parent is the name of the actor that spawns this one; empty for the node.
func (a *Actor) Parent() string { return a.Name[:max(0, strings.LastIndexByte(a.Name, '/'))] }

// Own is the part of the name that its parent spawns it under, or its prefix.
func (a *Actor) Own() string { return a.Name[strings.LastIndexByte(a.Name, '/')+1:] }

// Kind is what people call such an actor: "session".
func (a *Actor) Kind() string { return strings.TrimSuffix(a.Own(), "-") }

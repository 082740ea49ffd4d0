package script

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"keyval/messages"
	"keyval/sim"
)

// verb is one word that a script knows.
type verb struct {
	name    string
	usage   string // its words
	about   string
	args    [2]int   // least and most words that are neither options nor flags; -1: any number
	options []string // words of the form name=value
	flags   []string
	early   bool // it needs no cluster
	do      func(*player, words) *messages.Error
}

// words are what stands behind a verb.
type words struct {
	args    []string
	options map[string]string
	flags   map[string]bool
}

// verbs is every verb of a script. It is filled in init, since one of them reads it.
var verbs []verb

func init() {
	verbs = []verb{
		{name: "cluster", usage: "nodes=N [ttl=DURATION] [checkpoint=ENTRIES] [keep=ENTRIES] [chunk=BYTES] [audit=TICKS] [levels=N,...]",
			about:   "found a cluster and wait until it rests; ttl is that of clients' sessions, keep what logs keep behind a checkpoint, chunk the size of a snapshot's pieces, levels the highest cluster levels that n1, n2, ... support",
			options: []string{"nodes", "ttl", "checkpoint", "keep", "chunk", "audit", "levels"}, early: true, do: (*player).cluster},
		{name: "trace", usage: "on|off [ACTOR,...] [MESSAGE,...]", about: "show what is said, all or by these actors and in these messages; heartbeats and ticks only if named",
			args: [2]int{1, -1}, early: true, do: (*player).trace},
		{name: "put", usage: "KEY VALUE [at=NODE] [nowait]", about: "write, through a client that knows all nodes, or only one (client c2 knows n2)",
			args: [2]int{2, 2}, options: []string{"at"}, flags: []string{"nowait"}, do: (*player).put},
		{name: "get", usage: "KEY [at=NODE] [revision=N] [stale] [nowait]", about: "read; stale: what the node at hand has",
			args: [2]int{1, 1}, options: []string{"at", "revision"}, flags: []string{"stale", "nowait"}, do: (*player).get},
		{name: "delete", usage: "KEY [at=NODE] [nowait]", about: "delete a key",
			args: [2]int{1, 1}, options: []string{"at"}, flags: []string{"nowait"}, do: (*player).delete},
		{name: "await", about: "wait for the answers to what was asked with nowait", do: func(p *player, _ words) *messages.Error { return p.await() }},
		{name: "until", usage: "MESSAGE [to=HOST] [from=HOST]", about: "let time pass until an actor has taken such a message (Write, MsgAppResp, ...)",
			args: [2]int{1, 1}, options: []string{"to", "from"}, do: (*player).waitUntil},
		{name: "tick", usage: "N", about: "let N ticks of 50 ms pass", args: [2]int{1, 1}, do: (*player).ticks},
		{name: "stabilize", about: "let time pass until nothing more is said but heartbeats", do: (*player).stabilize},
		{name: "leader", about: "who leads, as each node knows", do: (*player).leaders},
		{name: "status", about: "what each node has", do: (*player).status},
		{name: "crash", usage: "NODE", about: "kill the process: what it wrote stays", args: [2]int{1, 1}, do: onProcess(sim.Server.Crash)},
		{name: "power-cut", usage: "NODE", about: "cut the power: what was not synced is lost", args: [2]int{1, 1}, do: onProcess(sim.Server.CutPower)},
		{name: "wipe", usage: "NODE", about: "empty the data directory of a node that is down", args: [2]int{1, 1}, do: onHardware(wipe)},
		{name: "empty", usage: "NODE", about: "take log and state out of the data directory of a node that is down", args: [2]int{1, 1}, do: onHardware(empty)},
		{name: "copy", usage: "NODE", about: "copy the data directory of a node that is down", args: [2]int{1, 1}, do: onHardware((*player).copy)},
		{name: "restore", usage: "NODE [parts]", about: "put the copy in the place of the data directory of a node that is down; parts: its log and state alone, as if they belonged there",
			args: [2]int{1, 1}, flags: []string{"parts"}, do: onNode(restore)},
		{name: "restart", usage: "NODE", about: "start a node that is down", args: [2]int{1, 1}, do: onHardware((*player).start)},
		{name: "freeze", usage: "NODE", about: "let a process stand still", args: [2]int{1, 1}, do: onProcess(sim.Server.Freeze)},
		{name: "thaw", usage: "NODE", about: "let it go on", args: [2]int{1, 1}, do: onProcess(sim.Server.Thaw)},
		{name: "partition", usage: "HOSTS | HOSTS...", about: "let nothing through between the groups; clients are hosts too (c, c2)",
			args: [2]int{3, -1}, do: (*player).partition},
		{name: "heal", about: "end all partitions", do: (*player).heal},
		{name: "forget", usage: "NODE OTHER", about: "take another node out of a node's table of peers, as if it had not heard of it yet",
			args: [2]int{2, 2}, do: onNode(forget)},
		{name: "forge", usage: "NODE OTHER INDEX", about: "let a node hear a heartbeat that another never sent, of their term, which counts on entries up to an index",
			args: [2]int{3, 3}, do: onNode(forge)},
		{name: "panic", usage: "NODE ACTOR", about: "let the next message to an actor (gateway, session, ...) end in a panic",
			args: [2]int{2, 2}, do: onNode(panicNext)},
		{name: "fill", usage: "COUNT", about: "write so many keys, one after the other, and say only how it ended",
			args: [2]int{1, 1}, do: (*player).fill},
		{name: "compact", usage: "REVISION [at=NODE] [nowait]", about: "give up history below a revision",
			args: [2]int{1, 1}, options: []string{"at"}, flags: []string{"nowait"}, do: (*player).compact},
		{name: "raise", usage: "[LEVEL] [at=NODE] [nowait]", about: "raise the cluster's level, without LEVEL to the newest that any member supports",
			args: [2]int{0, 1}, options: []string{"at"}, flags: []string{"nowait"}, do: (*player).raise},
		{name: "upgrade", usage: "NODE LEVEL", about: "install software that supports cluster levels up to LEVEL on a node that is down",
			args: [2]int{2, 2}, do: onNode(upgrade)},
		{name: "snapshot", usage: "create|list|delete [ID] at=NODE", about: "ask a node for its snapshot files",
			args: [2]int{1, 2}, options: []string{"at"}, do: (*player).snapshot},
		{name: "crash-in", usage: "NODE PLACE", about: "let the process crash when its disk comes to a place (" + crashPlaces() + ")",
			args: [2]int{2, 2}, do: onNode(crashIn)},
		{name: "rot", usage: "NODE [written]", about: "alter a value on the disk of a node; written: it was written so, with a checksum that fits",
			args: [2]int{1, 1}, flags: []string{"written"}, do: onNode(rot)},
		{name: "join", usage: "NODE [knows=NODE]", about: "start a node that asks to be let in, on a new machine or one that was wiped; it knows all nodes that are up, or one",
			args: [2]int{1, 1}, options: []string{"knows"}, do: (*player).join},
		{name: "add", usage: "NODE [learner] [at=NODE] [nowait]", about: "have a node added, and wait for the end of that; learner: it is not to vote",
			args: [2]int{1, 1}, options: []string{"at"}, flags: []string{"learner", "nowait"}, do: operation(messages.OperationKind_ADD)},
		{name: "promote", usage: "NODE [at=NODE] [nowait]", about: "have a learner vote",
			args: [2]int{1, 1}, options: []string{"at"}, flags: []string{"nowait"}, do: operation(messages.OperationKind_PROMOTE)},
		{name: "remove", usage: "NODE [at=NODE] [nowait]", about: "have a member removed",
			args: [2]int{1, 1}, options: []string{"at"}, flags: []string{"nowait"}, do: operation(messages.OperationKind_REMOVE)},
		{name: "replace", usage: "OLD NEW [at=NODE] [nowait]", about: "have a node that waits to be added take a member's place",
			args: [2]int{2, 2}, options: []string{"at"}, flags: []string{"nowait"}, do: operation(messages.OperationKind_REPLACE)},
		{name: "abort", usage: "[at=NODE]", about: "give up the operation that was asked for last", options: []string{"at"}, do: (*player).abort},
		{name: "operation", about: "how far the operation is that was asked for last", do: (*player).operation},
		{name: "healing", usage: "off|dry|on SECONDS [SPARE] [at=NODE]", about: "say whether the cluster is to replace a voter by itself that is out of contact for so long, and by which node",
			args: [2]int{2, 3}, options: []string{"at"}, do: (*player).healing},
		{name: "heals", about: "what the leader says of a voter that is lost, and the operations that there are", do: (*player).heals},
		{name: "user", usage: "add|remove|grant|revoke NAME [ROLE [PREFIX]] [at=NODE] [nowait]", about: "say who may do what; a user has the name of his client (c, c2)",
			args: [2]int{2, 4}, options: []string{"at"}, flags: []string{"nowait"}, do: (*player).user},
		{name: "auth", usage: "on|off [at=NODE]", about: "have roles count, or not", args: [2]int{1, 1}, options: []string{"at"}, do: (*player).auth},
		{name: "transfer", usage: "NODE [at=NODE]", about: "have another node lead", args: [2]int{1, 1}, options: []string{"at"}, do: (*player).transfer},
		{name: "move", usage: "NODE", about: "give a node that is down another address", args: [2]int{1, 1}, do: onHardware((*player).move)},
		{name: "update", usage: "NODE HOST:PORT [at=NODE]", about: "say where a member is reached from now on", args: [2]int{2, 2}, options: []string{"at"}, do: (*player).update},
		{name: "members", about: "who the members are", do: (*player).members},
		{name: "help", about: "list the verbs", early: true, do: func(p *player, _ words) *messages.Error { p.out.WriteString(Verbs()); return nil }},
	}
}

// Verbs lists what a script can say, a line a verb.
func Verbs() string {
	var b strings.Builder
	for _, v := range verbs {
		fmt.Fprintf(&b, "%s\n    %s\n", strings.TrimSpace(v.name+" "+v.usage), v.about)
	}
	return b.String()
}

// parse is a line as a verb and its words.
func parse(line string) (verb, words, error) {
	fields := strings.Fields(line)
	if len(fields) == 0 {
		return verb{}, words{}, messages.Errorf(messages.Code_INVALID, "a line without a verb")
	}
	i := slices.IndexFunc(verbs, func(v verb) bool { return v.name == fields[0] })
	if i < 0 {
		return verb{}, words{}, messages.Errorf(messages.Code_INVALID, "unknown verb %q", fields[0]).WithHint("the verb help lists all")
	}
	v := verbs[i]
	w := words{options: map[string]string{}, flags: map[string]bool{}}
	for _, word := range fields[1:] {
		name, value, isOption := strings.Cut(word, "=")
		switch {
		case isOption && slices.Contains(v.options, name):
			w.options[name] = value
		case slices.Contains(v.flags, word):
			w.flags[word] = true
		default:
			w.args = append(w.args, word)
		}
	}
	if len(w.args) < v.args[0] || v.args[1] >= 0 && len(w.args) > v.args[1] {
		return verb{}, words{}, messages.Errorf(messages.Code_INVALID, "the verb is used as: %s", strings.TrimSpace(v.name+" "+v.usage))
	}
	return v, w, nil
}

// number is an option's value, or what holds without it.
func (w words) number(option string, without uint64) (uint64, *messages.Error) {
	text, given := w.options[option]
	if !given {
		return without, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, messages.Errorf(messages.Code_INVALID, "%s=%q is no number", option, text)
	}
	return n, nil
}

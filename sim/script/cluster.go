package script

import (
	"time"

	"keyval/actors"
	"keyval/messages"
)

// nodesMax bounds a cluster, in nodes.
const nodesMax = 7

func (p *player) cluster(w words) *messages.Error {
	nodes, refusal := w.number("nodes", 3)
	// Checkpoints come when a script orders them, not with time; audits too.
	options := actors.Options{TickInterval: tick, CheckpointTicks: 1 << 30}
	numbers := map[string]uint64{"audit": 1 << 30}
	for _, name := range []string{"checkpoint", "keep", "chunk", "audit"} {
		n, bad := w.number(name, numbers[name])
		if refusal == nil {
			refusal = bad
		}
		numbers[name] = n
	}
	options.CheckpointEntries, options.SnapshotChunkBytes, options.AuditTicks = numbers["checkpoint"], int(numbers["chunk"]), uint32(numbers["audit"])
	options.Raft.LogEntriesKeep, options.Raft.LogEntriesMax = numbers["keep"], numbers["keep"]
	var ttl time.Duration
	if text, given := w.options["ttl"]; given {
		var err error
		if ttl, err = time.ParseDuration(text); err != nil || ttl <= 0 {
			return messages.Errorf(messages.Code_INVALID, "ttl=%q is no duration", text)
		}
	}
	switch {
	case p.scene != nil:
		return messages.Errorf(messages.Code_CONFLICT, "there is a cluster already")
	case refusal != nil:
		return refusal
	case nodes < 1 || nodes > nodesMax:
		return messages.Errorf(messages.Code_INVALID, "a scenario has 1 to %d nodes, not %d", nodesMax, nodes)
	}
	p.found(int(nodes), ttl, options)
	return p.stabilize(words{})
}

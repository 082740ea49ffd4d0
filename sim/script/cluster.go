package script

import (
	"strconv"
	"strings"
	"time"

	"keyval/actors"
	"keyval/messages"
	"keyval/sim"
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
	levels, bad := levelsOf(w.options["levels"])
	if refusal == nil {
		refusal = bad
	}
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
	if len(levels) > int(nodes) {
		return messages.Errorf(messages.Code_INVALID, "there are %d levels for %d nodes", len(levels), nodes)
	}
	p.found(sim.SceneConfig{Nodes: int(nodes), Levels: levels, SessionTTL: ttl, Options: options})
	return p.stabilize(words{})
}

// levelsOf are the highest cluster levels that nodes support, n1 first.
func levelsOf(text string) ([]uint32, *messages.Error) {
	var levels []uint32
	for word := range strings.SplitSeq(text, ",") {
		if text == "" {
			break
		}
		level, err := strconv.ParseUint(word, 10, 32)
		if err != nil {
			return nil, messages.Errorf(messages.Code_INVALID, "levels=%q is not of the form 1,2,2", text)
		}
		levels = append(levels, uint32(level))
	}
	return levels, nil
}

package raftactor

import (
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"

	"keyval/messages"
)

// Bounds of packing, in bytes: commands share an entry up to entryBytesMax, and
// entries share a proposal up to proposalBytesMax.
const (
	entryBytesMax    = 256 << 10
	proposalBytesMax = 1 << 20
)

// pack takes proposals from the front of the queue and lays them into entries,
// each a messages.Commands with the leader's stamps. It returns how many it took,
// at least one of a non-empty queue. Commands are copied here, once, on their way
// from the client to the log.
func pack(queue []proposal, logTimeMS uint64) (entries []*raftpb.Entry, taken int) {
	total := 0
	for taken < len(queue) && (taken == 0 || total < proposalBytesMax) {
		n, size := fill(queue[taken:])
		entries = append(entries, &raftpb.Entry{Data: encodeCommands(queue[taken:taken+n], size, logTimeMS)})
		taken += n
		total += size
	}
	return entries, taken
}

// fill says how many proposals share the next entry and their encoded size.
func fill(queue []proposal) (n, size int) {
	for n < len(queue) {
		next := encodedSize(queue[n])
		if n > 0 && size+next > entryBytesMax {
			break
		}
		size += next
		n++
	}
	return n, size
}

func bodySize(p proposal) int {
	return protowire.SizeTag(1) + protowire.SizeVarint(p.origin) + protowire.SizeTag(2) + protowire.SizeBytes(len(p.command))
}

func encodedSize(p proposal) int {
	return protowire.SizeTag(3) + protowire.SizeBytes(bodySize(p))
}

// encodeCommands writes the wire form of messages.Commands without an
// intermediate message; size is the sum of encodedSize.
func encodeCommands(proposals []proposal, size int, logTimeMS uint64) []byte {
	b := make([]byte, 0, size+24)
	b = protowire.AppendTag(b, 1, protowire.VarintType)
	b = protowire.AppendVarint(b, messages.Level)
	b = protowire.AppendTag(b, 2, protowire.VarintType)
	b = protowire.AppendVarint(b, logTimeMS)
	for _, p := range proposals {
		b = protowire.AppendTag(b, 3, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(bodySize(p)))
		b = protowire.AppendTag(b, 1, protowire.VarintType)
		b = protowire.AppendVarint(b, p.origin)
		b = protowire.AppendTag(b, 2, protowire.BytesType)
		b = protowire.AppendBytes(b, p.command)
	}
	return b
}

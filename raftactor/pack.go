package raftactor

import (
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// Bounds of packing, in bytes: commands share an entry up to entryBytesMax, and
// entries share a proposal up to proposalBytesMax.
const (
	entryBytesMax    = 256 << 10
	proposalBytesMax = 1 << 20
)

// turnBytes is how many bytes of commands a session has in the log before the next one
// that waits has its turn.
const turnBytes = 16 << 10

// stamp is what a leader says of an entry.
type stamp struct {
	level     uint32
	logTimeMS uint64
}

// pack lays proposals into entries, each a messages.Commands with the leader's stamp.
// Commands are copied here, once, on their way from the client to the log.
func pack(proposals []proposal, s stamp) (entries []*raftpb.Entry) {
	for len(proposals) > 0 {
		n, size := fill(proposals)
		entries = append(entries, &raftpb.Entry{Data: encodeCommands(proposals[:n], size, s)})
		proposals = proposals[n:]
	}
	return entries
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
	size := protowire.SizeTag(1) + protowire.SizeVarint(p.origin) + protowire.SizeTag(2) + protowire.SizeBytes(len(p.command))
	if p.principal != "" {
		size += protowire.SizeTag(3) + protowire.SizeBytes(len(p.principal))
	}
	return size
}

func encodedSize(p proposal) int {
	return protowire.SizeTag(3) + protowire.SizeBytes(bodySize(p))
}

// encodeCommands writes the wire form of messages.Commands without an
// intermediate message; size is the sum of encodedSize.
func encodeCommands(proposals []proposal, size int, s stamp) []byte {
	b := make([]byte, 0, size+24)
	b = protowire.AppendTag(b, 1, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(s.level))
	b = protowire.AppendTag(b, 2, protowire.VarintType)
	b = protowire.AppendVarint(b, s.logTimeMS)
	for _, p := range proposals {
		b = protowire.AppendTag(b, 3, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(bodySize(p)))
		b = protowire.AppendTag(b, 1, protowire.VarintType)
		b = protowire.AppendVarint(b, p.origin)
		b = protowire.AppendTag(b, 2, protowire.BytesType)
		b = protowire.AppendBytes(b, p.command)
		if p.principal != "" {
			b = protowire.AppendTag(b, 3, protowire.BytesType)
			b = protowire.AppendString(b, p.principal)
		}
	}
	return b
}

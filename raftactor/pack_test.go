package raftactor

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"keyval/messages"
)

// What pack writes by hand is what the generated code reads: all proposals, in
// order, within the bounds.
func TestPackIsCommands(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(1, 300), rapid.IntRange(1, messages.CommandSizeMax)), 1, 40).Draw(t, "sizes")
		var queue []proposal
		for i, size := range sizes {
			queue = append(queue, proposal{origin: uint64(i) * 100, command: bytes.Repeat([]byte{byte(i)}, size), principal: strings.Repeat("u", i%3*31)})
		}
		logTime := rapid.Uint64().Draw(t, "logTime")
		level := rapid.Uint32().Draw(t, "level")
		at := 0
		for _, e := range pack(queue, stamp{level, logTime}) {
			c := new(messages.Commands)
			if err := proto.Unmarshal(e.Data, c); err != nil {
				t.Fatal(err)
			}
			if c.Level != level || c.LogTimeMs != logTime || len(c.Proposals) == 0 {
				t.Fatalf("stamps: %s", messages.Line(c))
			}
			if len(e.Data) > entryBytesMax+32 && len(c.Proposals) > 1 {
				t.Fatalf("an entry of %d bytes with %d proposals", len(e.Data), len(c.Proposals))
			}
			for _, p := range c.Proposals {
				if p.Origin != queue[at].origin || !bytes.Equal(p.Command, queue[at].command) || string(p.Principal) != queue[at].principal {
					t.Fatalf("proposal %d is not what was queued", at)
				}
				at++
			}
		}
		if at != len(queue) {
			t.Fatalf("%d of %d encoded", at, len(queue))
		}
	})
}

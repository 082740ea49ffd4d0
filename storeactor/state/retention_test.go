package state

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"keyval/messages"
)

func TestRetention(t *testing.T) {
	type now struct{ ticks, revision, timeMS, compacted, due uint64 }
	for _, test := range []struct {
		name      string
		Retention Retention
		steps     []now
	}{
		{"no bounds", Retention{}, []now{{1, 1 << 40, 1 << 50, 0, 0}}},
		{"fewer revisions than are kept", Retention{Revisions: 100}, []now{{1, 0, 0, 0, 0}, {1, 100, 0, 0, 0}}},
		{"a tenth more than are kept, at least", Retention{Revisions: 100}, []now{{1, 109, 0, 0, 0}, {1, 110, 0, 0, 10}}},
		{"a tenth more than was given up", Retention{Revisions: 100}, []now{{1, 119, 0, 10, 0}, {1, 120, 0, 10, 20}}},
		{"few revisions are kept", Retention{Revisions: 1}, []now{{1, 1, 0, 0, 0}, {1, 2, 0, 0, 1}, {99, 2, 0, 1, 0}, {99, 3, 0, 1, 2}}},
		{"a client gave up more", Retention{Revisions: 100}, []now{{1, 500, 0, 480, 0}}},
		{"again only after a while", Retention{Revisions: 100},
			[]now{{1, 200, 0, 0, 100}, {19, 200, 0, 0, 0}, {1, 205, 0, 0, 105}, {5, 205, 0, 0, 0}, {15, 205, 0, 0, 105}}},
		{"time since the beginning", Retention{TimeMS: 1000}, []now{{1, 10, 5000, 0, 0}, {1, 20, 5999, 0, 0}, {99, 30, 6000, 0, 10}, {99, 30, 6000, 10, 0}}},
		{"what was current that long ago is kept", Retention{TimeMS: 1000},
			[]now{{99, 10, 5000, 0, 0}, {99, 20, 5500, 0, 0}, {99, 30, 6499, 0, 10}, {99, 30, 6500, 10, 20}, {99, 30, 9000, 20, 30}}},
		{"a cluster at rest", Retention{TimeMS: 1000}, []now{{99, 10, 5000, 0, 0}, {999, 10, 5000, 0, 0}}},
		{"after a long rest", Retention{TimeMS: 1000}, []now{{99, 10, 5000, 0, 0}, {99, 11, 50_000, 0, 10}, {99, 11, 50_100, 10, 0}, {99, 12, 51_000, 10, 11}}},
		{"whichever is more: revisions", Retention{Revisions: 10, TimeMS: 1000}, []now{{99, 10, 5000, 0, 0}, {99, 100, 6000, 0, 90}}},
		{"whichever is more: time", Retention{Revisions: 50, TimeMS: 1000}, []now{{99, 60, 5000, 0, 10}, {99, 65, 6000, 10, 60}}},
		{"a millisecond", Retention{TimeMS: 1}, []now{{99, 1, 1, 0, 0}, {99, 2, 2, 0, 1}, {99, 3, 3, 1, 2}}},
	} {
		for i, n := range test.steps {
			if due := test.Retention.Ticked(n.ticks, n.revision, n.timeMS, n.compacted); due != n.due {
				t.Errorf("%s: step %d: up to %d, not up to %d", test.name, i, due, n.due)
			}
		}
	}
}

// History is bounded in bytes, whatever else is wanted of it: an engine would break
// under one key with gigabytes of it.
func TestRetentionIsBoundedInBytes(t *testing.T) {
	for _, r := range []Retention{{Bytes: 1000}, {Revisions: 1 << 40, TimeMS: 1 << 40, Bytes: 1000}} {
		for i, step := range []struct{ applied, revision, compacted, due uint64 }{
			{0, 5, 0, 0}, {999, 20, 0, 0}, {1000, 21, 0, 5}, {1000, 21, 5, 0}, {1999, 50, 5, 20}, {9000, 60, 20, 50},
		} {
			r.applied = step.applied
			if due := r.Ticked(99, step.revision, uint64(i), step.compacted); due != step.due {
				t.Errorf("step %d: up to %d, not up to %d", i, due, step.due)
			}
		}
	}
	r := Retention{}
	r.Ticked(1, 1, 0, 0)
	r.applied = historyBytesMax
	if due := r.Ticked(1, 9, 0, 0); due != 1 {
		t.Errorf("no bound was asked for, and %d bytes stay", r.applied)
	}
}

// Whatever happens, what is promised to stay stays, the milestones are few, and what
// is due goes by and by.
func TestRetentionKeepsWhatItPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Retention{
			Revisions: rapid.SampledFrom([]uint64{0, 1, 7, 100}).Draw(t, "revisions"),
			TimeMS:    rapid.SampledFrom([]uint64{0, 1, 50, 1000}).Draw(t, "time"),
		}
		var revision, now, compacted uint64
		var past []milestone // all that ever was
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			revision += rapid.SampledFrom([]uint64{0, 1, 3, 50}).Draw(t, "commands")
			now += rapid.SampledFrom([]uint64{0, 1, 10, 60, 2000}).Draw(t, "ms")
			past = append(past, milestone{now, revision})
			due := r.Ticked(rapid.Uint64Range(1, 30).Draw(t, "ticks"), revision, now, compacted)
			if len(r.ages.points) > 13 {
				t.Fatalf("%d milestones", len(r.ages.points))
			}
			if due == 0 {
				continue
			}
			if due <= compacted || due > revision {
				t.Fatalf("revision %d, compacted %d, due %d", revision, compacted, due)
			}
			byCount := r.Revisions > 0 && revision-due >= r.Revisions
			byTime := r.TimeMS > 0 && slices.ContainsFunc(past, func(s milestone) bool { return now-s.at >= r.TimeMS && s.revision >= due })
			if !byCount && !byTime {
				t.Fatalf("revision %d at %d ms: %d is given up too early", revision, now, due)
			}
			if rapid.Bool().Draw(t, "applied") {
				compacted = due
			}
		}
		if r.Ticked(retentionTicks, revision, now+2*r.TimeMS, compacted); r.TimeMS > 0 {
			compacted = max(compacted, r.Ticked(retentionTicks, revision, now+4*r.TimeMS, compacted))
			if compacted < revision && r.ages.points[0].revision > compacted {
				t.Fatalf("revision %d is current for long, and only %d is given up", revision, compacted)
			}
		}
	})
}

func TestNodesCompactionIsACommand(t *testing.T) {
	c := &messages.Command{}
	if err := proto.Unmarshal(CompactCommand(7), c); err != nil {
		t.Fatal(err)
	}
	if got := messages.Line(c); got != "Command{operations=[Operation{compact=Compact{revision=7}}]}" {
		t.Errorf("it says %s", got)
	}
}

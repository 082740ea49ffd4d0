package sim

import (
	"strings"
	"testing"
	"time"

	"keyval/messages"
)

// The judge of recorded histories is silent about a true one, and names every lie.
func TestJudgeRecord(t *testing.T) {
	const ms = time.Millisecond
	record := func() []Recorded {
		return []Recorded{
			{Client: 0, Began: 0 * ms, Ended: 2 * ms, Kind: RecordedPut, Key: "a", Value: "1", Revision: 1},
			{Client: 1, Began: 1 * ms, Ended: 4 * ms, Kind: RecordedPut, Key: "a", Value: "2", Code: messages.Code_OUTCOME_UNKNOWN},
			{Client: 0, Began: 3 * ms, Ended: 5 * ms, Kind: RecordedGet, Key: "a", Revision: 2, Items: []Version{{Key: "a", Value: "2", Revision: 2}}},
			{Client: 0, Began: 6 * ms, Ended: 7 * ms, Kind: RecordedDelete, Key: "a", Revision: 3, Deleted: true},
			{Client: 0, Began: 8 * ms, Ended: 9 * ms, Kind: RecordedGet, Key: "a", Revision: 4, Code: messages.Code_NOT_FOUND},
			{Client: 1, Began: 8 * ms, Ended: 9 * ms, Kind: RecordedPut, Key: "b", Value: "3", Code: messages.Code_NO_LEADER},
			{Client: 1, Began: 10 * ms, Ended: 11 * ms, Kind: RecordedPut, Key: "b", Value: "4", Revision: 5},
			{Client: 0, Began: 12 * ms, Ended: 13 * ms, Kind: RecordedScan, Key: "a", To: "c", Revision: 5, Items: []Version{{Key: "b", Value: "4", Revision: 5}}},
			{Client: 1, Began: 14 * ms, Ended: 15 * ms, Kind: RecordedDelete, Key: "b", Code: messages.Code_OUTCOME_UNKNOWN},
		}
	}
	past := func() []Version {
		return []Version{
			{Key: "a", Value: "1", Revision: 1}, {Key: "a", Value: "2", Revision: 2}, {Key: "a", Revision: 3, Deleted: true},
			{Key: "b", Value: "4", Revision: 5}, {Key: "b", Revision: 7, Deleted: true},
		}
	}
	tests := []struct {
		name string
		lie  func(record []Recorded, past []Version) []Version
		want string // empty: nothing is wrong
	}{
		{"the truth", func(_ []Recorded, p []Version) []Version { return p }, ""},
		{"an unknown write never happened, and nobody saw it", func(r []Recorded, p []Version) []Version {
			r[2].Items[0] = Version{Key: "a", Value: "1", Revision: 1}
			return append(p[:1:1], p[2:]...)
		}, ""},
		{"an acknowledged write is lost", func(r []Recorded, p []Version) []Version {
			r[7].Items = nil
			return p[:3]
		}, "acknowledged writes are in the log"},
		{"a write takes effect twice", func(_ []Recorded, p []Version) []Version {
			return append(p, Version{Key: "b", Value: "4", Revision: 8})
		}, "each command at most once"},
		{"two writes share a revision", func(r []Recorded, p []Version) []Version {
			r[3].Revision = 1
			return p
		}, "each change has a revision of its own"},
		{"a value that nobody wrote", func(_ []Recorded, p []Version) []Version {
			return append(p, Version{Key: "b", Value: "9", Revision: 8})
		}, "nothing comes from nowhere"},
		{"a deletion that nobody asked for", func(r []Recorded, p []Version) []Version {
			r[8].Code = messages.Code_NO_LEADER
			return p
		}, "nothing comes from nowhere"},
		{"a refused write happens", func(_ []Recorded, p []Version) []Version {
			return append(p, Version{Key: "b", Value: "3", Revision: 8})
		}, "refused writes never happen"},
		{"a read misses what was acknowledged before it", func(r []Recorded, p []Version) []Version {
			r[4] = Recorded{Began: 8 * ms, Ended: 9 * ms, Kind: RecordedGet, Key: "a", Revision: 2, Items: r[2].Items}
			return p
		}, "linearizable"},
		{"a read sees another value than its revision has", func(r []Recorded, p []Version) []Version {
			r[2].Items = []Version{{Key: "a", Value: "1", Revision: 1}}
			return p
		}, "reads what was written"},
		{"an unknown write takes effect before it was asked", func(r []Recorded, p []Version) []Version {
			r[1].Began, r[1].Ended = 6*ms, 7*ms
			return p
		}, "linearizable"},
		{"a delete says that nothing was there", func(r []Recorded, p []Version) []Version {
			r[3].Deleted = false
			return p
		}, "nothing comes from nowhere"},
		{"a delete says that something was there", func(r []Recorded, p []Version) []Version {
			r[4] = Recorded{Began: 8 * ms, Ended: 9 * ms, Kind: RecordedDelete, Key: "a", Revision: 4, Deleted: true}
			return p
		}, "acknowledged writes are in the log"},
		{"a delete of nothing has the revision that it saw", func(r []Recorded, p []Version) []Version {
			r[4] = Recorded{Began: 8 * ms, Ended: 9 * ms, Kind: RecordedDelete, Key: "a", Revision: 3}
			return p
		}, ""},
		{"a delete of nothing saw the past", func(r []Recorded, p []Version) []Version {
			r[8] = Recorded{Began: 14 * ms, Ended: 15 * ms, Kind: RecordedDelete, Key: "b", Revision: 3}
			return p[:4]
		}, "linearizable"},
		{"a scan misses a key", func(r []Recorded, p []Version) []Version {
			r[7].Items = nil
			return p
		}, "reads what was written"},
	}
	for _, test := range tests {
		r, p := record(), past()
		p = test.lie(r, p)
		violations := JudgeRecord(r, p, 9, []string{"a", "b"})
		switch {
		case test.want == "" && len(violations) > 0:
			t.Errorf("%s: %q", test.name, violations)
		case test.want != "" && !strings.Contains(strings.Join(violations, "\n"), test.want+": "):
			t.Errorf("%s: want %q in %q", test.name, test.want, violations)
		}
	}
	// Without revisions, porcupine alone sees a stale read too.
	r := record()
	r[4] = Recorded{Began: 8 * ms, Ended: 9 * ms, Kind: RecordedGet, Key: "a", Revision: 4, Items: r[2].Items}
	if v := strings.Join(JudgeRecord(r, past(), 9, []string{"a"}), "\n"); !strings.Contains(v, "porcupine") {
		t.Errorf("porcupine says nothing of a read of what was deleted: %q", v)
	}
}

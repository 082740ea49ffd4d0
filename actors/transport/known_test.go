package transport

import (
	"testing"

	"keyval/messages"
	"keyval/storeactor/disk"
)

// ran is a directory on which processes of these marks were started.
func ran(marks ...uint64) *messages.Starts {
	var s *messages.Starts
	for _, mark := range marks {
		s = disk.NextStart(s, mark)
	}
	return s
}

// many are the starts from first on, so many that a directory does not keep all marks.
func many(first uint64) *messages.Starts {
	s := ran(first)
	for mark := first + 1; mark < first+500; mark++ {
		s = disk.NextStart(s, mark)
	}
	return s
}

// A directory that was put back to an older copy lacks the marks of the processes that
// ran since, however often it is started then.
func TestOlderCopiesAreRefused(t *testing.T) {
	for _, row := range []struct {
		name   string
		heard  *messages.Starts
		says   *messages.Starts
		refuse bool
	}{
		{"never heard", nil, ran(1, 2), false},
		{"the same process", ran(1, 2), ran(1, 2), false},
		{"started again", ran(1, 2), ran(1, 2, 3), false},
		{"started again and again", ran(1, 2), ran(1, 2, 3, 4, 5, 6), false},
		{"an older copy, before it counts a start", ran(1, 2), ran(1), true},
		{"an older copy, started once", ran(1, 2), ran(1, 7), true},
		{"an older copy, started often", ran(1, 2), ran(1, 7, 8, 9), true},
		{"an older copy of long ago", ran(1, 2, 3, 4), ran(1, 7, 8, 9), true},
		{"no starts at all", ran(1, 2), nil, true},
		{"heard longer ago than marks are kept", ran(1, 2), many(1), false},
		{"another's", many(1), many(2), true},
	} {
		who := incarnation(2)
		known := Known{}.With([]*messages.Member{{RaftId: 2, Incarnation: who}}, 0)
		if row.heard != nil {
			next, news := known.Hear(2, who, row.heard)
			if news == nil {
				t.Fatalf("%s: hearing it was no news", row.name)
			}
			known = Known{}.Remember(next.Heard()).With([]*messages.Member{{RaftId: 2, Incarnation: who}}, 0) // as the next process does
		}
		refusal := known.Refuses(2, who, row.says)
		if (refusal != nil) != row.refuse || row.refuse && (refusal.Code != messages.Code_DAMAGED || refusal.Hint == "") {
			t.Errorf("%s: %v", row.name, refusal)
		}
	}
}

func TestWhatIsHeardIsBounded(t *testing.T) {
	var known Known
	for id := messages.RaftID(1); id < 3*heardMax; id++ {
		known, _ = known.Hear(id, incarnation(2), ran(1))
	}
	if n := len(known.Heard().Heard); n != heardMax {
		t.Errorf("%d starts are remembered", n)
	}
	known = known.With([]*messages.Member{{RaftId: 2, Incarnation: incarnation(2)}, {RaftId: 3, Incarnation: incarnation(3)}}, 0)
	if heard := known.Heard().Heard; len(heard) != 1 || heard[0].RaftId != 2 {
		t.Errorf("once the members are known, %v are remembered", heard)
	}
	next, news := known.Hear(2, incarnation(2), ran(1))
	if news != nil || len(next.Heard().Heard) != 1 {
		t.Error("the same start is news once more")
	}
}

// TestRemovedIsWhatIsBelowTheNextID: no memory of the past is needed, and whoever was
// added since is heard, or a node that lags would stay away for ever.
func TestRemovedIsWhatIsBelowTheNextID(t *testing.T) {
	members := []*messages.Member{{RaftId: 1, Incarnation: incarnation(1)}, {RaftId: 4, Incarnation: incarnation(4)}, {RaftId: 5}}
	for name, row := range map[string]struct {
		next messages.RaftID
		id   messages.RaftID
		code messages.Code
	}{
		"a member":                           {6, 4, messages.Code_OK},
		"a founder that was removed":         {6, 2, messages.Code_REMOVED},
		"a member that is not bound here":    {6, 5, messages.Code_OK},
		"the next one":                       {6, 6, messages.Code_OK},
		"one that was added long after":      {6, 60, messages.Code_OK},
		"while founding nobody was removed":  {0, 2, messages.Code_OK},
		"while founding nobody is bound yet": {0, 5, messages.Code_OK},
	} {
		known := Known{}.With([]*messages.Member{{RaftId: 9, Incarnation: incarnation(9)}}, 10).With(members, row.next)
		refusal := known.Refuses(row.id, incarnation(row.id), nil)
		if codeOf(refusal) != row.code || known.Removed(row.id) != (row.code == messages.Code_REMOVED) {
			t.Errorf("%s: %v", name, refusal)
		}
	}
}

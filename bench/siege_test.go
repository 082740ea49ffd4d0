package main

import (
	"testing"
	"time"
)

func TestLeaderless(t *testing.T) {
	at := func(asked, answered int, term uint64) sight {
		return sight{time.Duration(asked) * time.Second, time.Duration(answered) * time.Second, term}
	}
	for _, row := range []struct {
		name      string
		sights    []sight
		longest   int // seconds
		elections uint64
	}{
		{"nobody ever", nil, 20, 0},
		{"one all the time, asked seldom", []sight{at(0, 1, 3), at(18, 19, 3)}, 2, 0},
		{"one after the other", []sight{at(0, 0, 3), at(7, 8, 3), at(10, 11, 5), at(20, 20, 5)}, 4, 2},
		{"the old one does not know yet", []sight{at(0, 0, 3), at(9, 9, 3), at(7, 8, 4), at(20, 20, 4)}, 0, 1},
		{"sights come in any order", []sight{at(10, 11, 5), at(20, 20, 5), at(7, 8, 3), at(0, 0, 3)}, 4, 2},
		{"nobody at the end", []sight{at(0, 1, 3), at(5, 6, 3)}, 15, 0},
	} {
		longest, elections := leaderless(row.sights, 20*time.Second)
		if longest != time.Duration(row.longest)*time.Second || elections != row.elections {
			t.Errorf("%s: %v without a leader and %d elections; want %ds and %d", row.name, longest, elections, row.longest, row.elections)
		}
	}
}

func TestStops(t *testing.T) {
	s := &stops{began: time.Now().Add(-3 * time.Second)}
	s.answered()
	s.answered()
	if longest := time.Duration(s.longest.Load()); longest < 3*time.Second || longest > 4*time.Second {
		t.Errorf("the longest stop is %v, of 3s", longest)
	}
}

package transport

import (
	"strings"
	"testing"
	"time"

	"keyval/messages"
)

func TestSeats(t *testing.T) {
	const nobody, short, long = Standings, idleMin - 1, idleMin
	p := Places{Strangers: 3, Clients: 4, Nodes: 2}
	for name, test := range map[string]struct {
		held   Held
		own    int
		idle   time.Duration
		as     Standing
		leaves Standing
		enters bool
	}{
		"the first":                                {Held{}, 0, 0, Stranger, nobody, true},
		"a stranger too many":                      {Held{Stranger: 3}, 0, 0, Stranger, Stranger, true},
		"a stranger beside all clients":            {Held{Stranger: 2, Client: 4, Member: 2}, 0, 0, Stranger, nobody, true},
		"a stranger where members are many":        {Held{Stranger: 1, Client: 4, Member: 4}, 0, 0, Stranger, Stranger, true},
		"a stranger where only members are":        {Held{Client: 4, Member: 5}, 0, 0, Stranger, Stranger, false},
		"a client":                                 {Held{Stranger: 1, Client: 3}, 0, 0, Client, nobody, true},
		"a client too many":                        {Held{Stranger: 1, Client: 4}, 0, short, Client, Client, false},
		"a client too many, and one sleeps":        {Held{Stranger: 1, Client: 4}, 0, long, Client, Client, true},
		"a client, and nodes take no client's":     {Held{Stranger: 1, Client: 3, Member: 9}, 0, 0, Client, nobody, true},
		"a client of a user with little":           {Held{Stranger: 1, Client: 2}, 1, 0, Client, nobody, true},
		"a client of a user at his share":          {Held{Stranger: 1, Client: 2}, 2, short, Client, Client, false},
		"the same, and one of his sleeps":          {Held{Stranger: 1, Client: 2}, 2, long, Client, Client, true},
		"a client beside a user at his share":      {Held{Stranger: 1, Client: 3}, 1, 0, Client, nobody, true},
		"a newcomer":                               {Held{Stranger: 1, Client: 4, Member: 1}, 0, 0, Newcomer, nobody, true},
		"a newcomer too many":                      {Held{Stranger: 1, Newcomer: 2}, 0, short, Newcomer, Newcomer, false},
		"a newcomer too many, and one sleeps":      {Held{Stranger: 1, Newcomer: 2}, 0, long, Newcomer, Newcomer, true},
		"a newcomer moves no member":               {Held{Stranger: 1, Member: 2}, 0, long, Newcomer, Newcomer, false},
		"a member among clients":                   {Held{Stranger: 3, Client: 4}, 0, 0, Member, nobody, true},
		"a member moves a newcomer":                {Held{Stranger: 1, Newcomer: 1, Member: 1, Client: 4}, 0, 0, Member, Newcomer, true},
		"a member moves a client that is not idle": {Held{Stranger: 1, Member: 2, Client: 1}, 0, 0, Member, Client, true},
		"a member enters in any case":              {Held{Stranger: 1, Member: 9}, 0, 0, Member, nobody, true},
	} {
		leaves, enters := p.Seat(test.held, test.own, func(Standing) time.Duration { return test.idle }, test.as)
		if enters != test.enters || enters && leaves != test.leaves {
			t.Errorf("%s: %d leaves, enters %v; want %d, %v", name, leaves, enters, test.leaves, test.enters)
		}
	}
}

// Whatever a limit allows, nodes keep their places, and files at least what connections
// have.
func TestPlacesWithin(t *testing.T) {
	for _, test := range []struct {
		descriptors, files int
		want               Places
	}{
		{256, 0, Places{32, 48, 48}},
		{512, 0, Places{64, 144, 48}},
		{512, 100, Places{51, 107, 48}},
		{1024, 0, Places{128, 336, 48}},
		{9312, 0, AllPlaces},
		{1 << 20, 5000, AllPlaces},
	} {
		got, err := PlacesWithin(test.descriptors, test.files)
		if err != nil || got != test.want || 2*(got.Strangers+got.Clients+got.Nodes) > test.descriptors-test.files {
			t.Errorf("%d descriptors, %d files: %+v, %v; want %+v", test.descriptors, test.files, got, err, test.want)
		}
	}
	for _, test := range []struct {
		descriptors, files int
		want               string
	}{{20, 0, "needs 256"}, {255, 0, "needs 256"}, {600, 400, "needs 656"}} {
		if got, err := PlacesWithin(test.descriptors, test.files); messages.CodeOf(err) != messages.Code_INVALID || !strings.Contains(err.Message, test.want) || err.Hint == "" {
			t.Errorf("%d descriptors, %d files: %+v, %v; want %q", test.descriptors, test.files, got, err, test.want)
		}
	}
}

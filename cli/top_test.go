package cli

import (
	"slices"
	"testing"
	"time"

	"keyval/messages"
)

// said is a node that says that it has timed so many writes, half of them up to 100 µs.
func said(name string, upMS, writes uint64) nodeJSON {
	counts := []uint64{writes / 2, writes, writes}
	return nodeJSON{Name: name, Endpoint: name + ":1", Role: "follower", reply: &messages.StatusReply{Vitals: &messages.Vitals{
		UpMs:    upMS,
		Timings: []*messages.Timing{{Of: "write", FirstUs: 100, Counts: counts}, {Of: "get", FirstUs: 100, Counts: []uint64{1, 1, 1}}, {Of: "scan", FirstUs: 100, Counts: []uint64{0, 2, 2}}},
		Queued:  []*messages.Queued{{In: "proposals", Bytes: 7}},
	}}}
}

func TestTop(t *testing.T) {
	silent := nodeJSON{Name: "n3", Endpoint: "n3:1", Role: unreachable, Error: "nobody listens"}
	older := nodeJSON{Name: "n4", Endpoint: "n4:1", Role: "follower", reply: &messages.StatusReply{}}
	at := time.Unix(1000, 0)
	lead := said("n1", 5000, 300)
	lead.Role = leading
	got := topOf(
		glance{[]nodeJSON{said("n1", 3000, 100), said("n2", 9000, 400), silent}, at},
		glance{[]nodeJSON{older, said("n2", 500, 40), lead, silent}, at.Add(2 * time.Second)})
	if got.Seconds != 2 || got.Leader != "n1" || got.Writes != 120 || got.Reads != 1.5 {
		t.Errorf("in all: %+v", got)
	}
	type row struct {
		name   string
		writes uint64
		p50    int64
		queued uint64
		known  bool
	}
	var rows []row
	for _, n := range got.Nodes {
		rows = append(rows, row{n.Name, n.Write.Count, n.Write.P50, n.Queued["proposals"], n.Measures})
	}
	// n2 was started anew: all that it counted is of late.
	want := []row{{"n1", 200, 100, 7, true}, {"n2", 40, 100, 7, true}, {"n3", 0, 0, 0, false}, {"n4", 0, 0, 0, false}}
	if !slices.Equal(rows, want) {
		t.Errorf("%+v, want %+v", rows, want)
	}
}

func TestTimeCell(t *testing.T) {
	for us, want := range map[int64]string{0: "-", 40: "40 µs", 1234: "1.2 ms", 12345: "12 ms", 9_999_000: "9999 ms", 12_000_000: "12 s"} {
		if got := timeCell(us); got != want {
			t.Errorf("%d: %s, want %s", us, got, want)
		}
	}
}

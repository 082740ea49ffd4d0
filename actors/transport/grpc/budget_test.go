package grpc

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"pgregory.net/rapid"

	"keyval/actors/transport"
)

func TestGreatestShareLeaves(t *testing.T) {
	b := newBudget(1000)
	var left []int
	shares := make([]*share, 4)
	for i := range shares {
		shares[i] = b.share(func() { left = append(left, i) })
	}
	take := func(i, n int, want ...int) {
		t.Helper()
		left = nil
		shares[i].take(n)
		if len(left) != len(want) || len(want) > 0 && left[0] != want[0] {
			t.Errorf("when %d took %d, %v had to leave, want %v", i, n, left, want)
		}
	}
	take(0, 300)
	take(1, 600)
	take(2, 100)
	take(3, 50, 1) // the greatest, not the newest
	take(3, 100)   // 1 gives back enough when it is gone
	take(2, 500, 2)
	shares[1].close()
	shares[2].close()
	if got := b.left.Load(); got != 1000-300-150 {
		t.Errorf("%d bytes are left", got)
	}
	shares[1].take(5) // late
	shares[0].release()
	take(3, -50)
	if got := b.left.Load(); got != 900 {
		t.Errorf("%d bytes are left", got)
	}
	take(3, 1000, 3)
	shares[0].close()
	shares[3].close()
	if got := b.left.Load(); got != 1000 || len(b.shares) != 0 {
		t.Errorf("%d bytes are left, %d shares", got, len(b.shares))
	}
	var none *share
	none.take(1)
	none.release()
	none.close()
}

// Whatever is taken, what stays is within the budget, and one that holds little
// never has to leave while another holds more.
func TestBudgetHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newBudget(1 << 10)
		var shares []*share
		stays := map[*share]bool{}
		for range rapid.IntRange(1, 30).Draw(t, "shares") {
			var s *share
			s = b.share(func() {
				for o := range stays {
					if stays[o] && o.held.Load() > s.held.Load() {
						t.Fatalf("%d bytes have to leave, %d may stay", s.held.Load(), o.held.Load())
					}
				}
				stays[s] = false
			})
			shares, stays[s] = append(shares, s), true
		}
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			rapid.SampledFrom(shares).Draw(t, "share").take(rapid.IntRange(1, 300).Draw(t, "bytes"))
			held := int64(0)
			for s, ok := range stays {
				if ok {
					held += s.held.Load()
				}
			}
			if held > 1<<10 {
				t.Fatalf("%d bytes are held by those that stay", held)
			}
		}
	})
}

// A queue holds what was taken from it until it is sent, and nothing at its end.
func TestQueueHoldsUntilSent(t *testing.T) {
	b := newBudget(1 << 20)
	q := newQueue(1<<20, false)
	q.share = b.share(func() { t.Error("it has to leave") })
	for range 3 {
		q.push(item{sealed: make([]byte, 400-itemOverhead)})
	}
	holds := func(want int64) {
		t.Helper()
		if got := q.share.held.Load(); got != want {
			t.Errorf("%d bytes are held, want %d", got, want)
		}
	}
	q.take(nil, 1<<20, 1)
	holds(1200)
	q.sent()
	holds(800)
	q.close()
	q.sent()
	holds(0)
}

// TestUnfinishedFramesAreBounded: what never becomes a frame is bounded, before the
// hello to little, and given back. A member may send what it likes.
func TestUnfinishedFramesAreBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const all, sends = 64 << 20, 16 << 20
	g := &gate{Listener: l, patience: time.Hour, places: transport.AllPlaces, arrived: newBudget(all)}
	defer g.Close()
	for name, test := range map[string]struct {
		as   transport.Standing
		most int
	}{
		"a stranger": {transport.Stranger, helloBytesMax}, "a client": {transport.Client, unreadMax}, "a member": {transport.Member, sends},
	} {
		far, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c, err := g.Accept()
		if err != nil {
			t.Fatal(err)
		}
		near := c.(*guest)
		if test.as != transport.Stranger {
			near.seat(test.as, "", nil)
		}
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			io.Copy(far, bytes.NewReader(make([]byte, sends)))
			far.Close()
		}()
		n, err := io.Copy(io.Discard, struct{ io.Reader }{near})
		if (err == nil) != (test.as == transport.Member) || int(n) > test.most || int(n) < test.most-bufferSize {
			t.Errorf("%s: %d bytes arrived, want up to %d: %v", name, n, test.most, err)
		}
		near.Close()
		<-sent
		if got := g.arrived.left.Load(); got != all {
			t.Errorf("%s: %d bytes are held", name, all-got)
		}
	}
}

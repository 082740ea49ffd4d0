package grpc

import (
	"testing"
)

func TestWindowBounds(t *testing.T) {
	p := &pool{}
	w := newWindow(p)
	taken := 0
	for w.take(requestOverhead) {
		taken++
	}
	if taken != windowRequestsMax {
		t.Errorf("%d requests taken, %d may be", taken, windowRequestsMax)
	}
	w.answered()
	if !w.take(requestOverhead) || w.take(requestOverhead) {
		t.Error("a reply does not make room for just one request")
	}
	w.close()
	if p.bytes != 0 || w.take(1) {
		t.Errorf("a closed window holds %d bytes of the pool, or takes more", p.bytes)
	}

	w = newWindow(p)
	if !w.take(windowBytesMax + 1) {
		t.Error("a single request never passes")
	}
	if w.take(1) {
		t.Error("bytes are not bounded")
	}
}

func TestPoolBoundsAllConnectionsButLetsEachGoOn(t *testing.T) {
	p := &pool{}
	var windows []*window
	for range poolBytesMax / windowBytesMax {
		w := newWindow(p)
		if !w.take(windowBytesMax) {
			t.Fatal("the pool is too small")
		}
		windows = append(windows, w)
	}
	late := newWindow(p)
	if !late.take(windowBytesMax) {
		t.Error("a connection with nothing unanswered must wait for others")
	}
	if late.take(1 << 20) {
		t.Error("the pool is not bounded")
	}
	windows[0].answered()
	windows[1].answered()
	late.answered()
	if !late.take(1 << 20) {
		t.Error("what was given back is not there")
	}
}

func TestWindowWaits(t *testing.T) {
	w := newWindow(&pool{})
	for w.take(requestOverhead) {
	}
	passed := make(chan bool)
	go func() { passed <- w.enter(1, nil) }()
	w.answered()
	if !<-passed {
		t.Error("a reply came, and the connection was given up")
	}
	ended := make(chan struct{})
	go func() { passed <- w.enter(1, ended) }()
	close(ended)
	if <-passed {
		t.Error("the connection ended, and the request passed")
	}
}

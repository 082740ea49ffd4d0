package grpc

import (
	"testing"
)

// takes reports whether there was room at once.
func (w *window) takes(size int) bool {
	_, room := w.take(size)
	return room == roomTaken
}

// idle reports whether nothing of the pool is taken.
func idle(w *window) bool {
	if !w.pool.TryAcquire(poolBytesMax) {
		return false
	}
	w.pool.Release(poolBytesMax)
	return true
}

func TestWindowBounds(t *testing.T) {
	w := newWindow(newPool())
	taken := 0
	for w.takes(requestOverhead) {
		taken++
	}
	if taken != windowRequestsMax {
		t.Errorf("%d requests taken, %d may be", taken, windowRequestsMax)
	}
	w.answered()
	if !w.takes(requestOverhead) || w.takes(requestOverhead) {
		t.Error("a reply does not make room for just one request")
	}
	w.close()
	if !idle(w) || w.takes(1) {
		t.Error("a closed window holds on to the pool, or takes more")
	}

	w = newWindow(w.pool)
	if !w.takes(windowBytesMax + 1) {
		t.Error("a single request never passes")
	}
	if w.takes(1) {
		t.Error("bytes are not bounded")
	}
}

// full is windows that have taken the whole pool, all of them with one request
// beside it.
func full(t *testing.T) []*window {
	t.Helper()
	const each = 4 << 20
	pool := newPool()
	var windows []*window
	for range poolBytesMax / each {
		w := newWindow(pool)
		if !w.takes(1) || !w.takes(each) {
			t.Fatal("the pool is too small")
		}
		windows = append(windows, w)
	}
	return windows
}

func TestPoolBoundsAllConnectionsButLetsEachGoOn(t *testing.T) {
	windows := full(t)
	late := newWindow(windows[0].pool)
	if !late.takes(windowBytesMax / 2) {
		t.Error("a connection with nothing unanswered must wait for others")
	}
	if late.takes(1) {
		t.Error("the pool is not bounded")
	}
	windows[0].answered()
	if late.takes(1) {
		t.Error("what was not of the pool was given back to it")
	}
	windows[0].answered()
	if !late.takes(1 << 20) {
		t.Error("what was given back is not there")
	}
	for _, w := range append(windows, late) {
		w.close()
	}
	if !idle(late) {
		t.Error("not all was given back")
	}
}

// enters starts a request that has to wait, and says later whether it passed.
func enters(t *testing.T, w *window) chan bool {
	t.Helper()
	passed := make(chan bool, 1)
	go func() { passed <- w.enter(1) }()
	eventually(t, "the request waits", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.wake != nil
	})
	return passed
}

func TestWindowWaits(t *testing.T) {
	w := newWindow(newPool())
	for w.takes(requestOverhead) {
	}
	passed := enters(t, w)
	w.answered()
	if !receive(t, passed, "room") {
		t.Error("a reply came, and the connection was given up")
	}
	passed = enters(t, w)
	w.close()
	if receive(t, passed, "end") {
		t.Error("the connection ended, and the request passed")
	}
}

// Who waits for the pool goes on when others give back, or when nothing of its own
// is unanswered any more.
func TestWindowWaitsForThePool(t *testing.T) {
	for name, giver := range map[string]func(windows []*window, late *window){
		"others give back": func(windows []*window, late *window) {
			windows[0].answered()
			windows[0].answered()
		},
		"its own is answered": func(windows []*window, late *window) { late.answered() },
	} {
		windows := full(t)
		late := newWindow(windows[0].pool)
		late.takes(1)
		passed := enters(t, late)
		giver(windows, late)
		if !receive(t, passed, "room: "+name) {
			t.Errorf("%s, and the connection was given up", name)
		}
		for _, w := range append(windows, late) {
			w.close()
		}
		if !idle(late) {
			t.Errorf("%s: not all was given back", name)
		}
	}
}

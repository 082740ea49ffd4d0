package shipping

import (
	"keyval/messages"
)

// meter tells how fast bytes went lately.
type meter struct {
	tickMS uint64
	now    uint64       // ticks
	points []meterPoint // the oldest first, at most meterPointsMax, meterPaceTicks ticks apart
}

type meterPoint struct{ tick, bytes uint64 }

const (
	meterPointsMax = 8
	meterPaceTicks = 5
)

// tick takes how many bytes there are by now.
func (m *meter) tick(n uint32, bytes uint64) {
	m.now += uint64(n)
	if l := len(m.points); l > 0 && m.now-m.points[l-1].tick < meterPaceTicks {
		return
	}
	if len(m.points) == meterPointsMax {
		m.points = append(m.points[:0], m.points[1:]...)
	}
	m.points = append(m.points, meterPoint{m.now, bytes})
}

// rate is in bytes a second.
func (m *meter) rate(bytes uint64) uint64 {
	if len(m.points) == 0 || m.points[0].tick == m.now || bytes < m.points[0].bytes {
		return 0
	}
	return (bytes - m.points[0].bytes) * 1000 / ((m.now - m.points[0].tick) * m.tickMS)
}

// fill adds rate and remaining time to a transfer whose bytes are known.
func (m *meter) fill(t *messages.Transfer) {
	t.BytesTotal = max(t.BytesTotal, t.BytesDone)
	t.Rate = m.rate(t.BytesDone)
	if t.Rate > 0 {
		t.EtaMs = (t.BytesTotal - t.BytesDone) * 1000 / t.Rate
	}
}

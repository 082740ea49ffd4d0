package shipping

import (
	"keyval/messages"
)

// speed tells how fast bytes went lately.
type speed struct {
	tickMS uint64
	now    uint64       // ticks
	points []speedPoint // the oldest first, at most speedPointsMax, speedPaceTicks ticks apart
}

type speedPoint struct{ tick, bytes uint64 }

const (
	speedPointsMax = 8
	speedPaceTicks = 5
)

// tick takes how many bytes there are by now.
func (s *speed) tick(n uint32, bytes uint64) {
	s.now += uint64(n)
	if l := len(s.points); l > 0 && s.now-s.points[l-1].tick < speedPaceTicks {
		return
	}
	if len(s.points) == speedPointsMax {
		s.points = append(s.points[:0], s.points[1:]...)
	}
	s.points = append(s.points, speedPoint{s.now, bytes})
}

// rate is in bytes a second.
func (s *speed) rate(bytes uint64) uint64 {
	if len(s.points) == 0 || s.points[0].tick == s.now || bytes < s.points[0].bytes {
		return 0
	}
	return (bytes - s.points[0].bytes) * 1000 / ((s.now - s.points[0].tick) * s.tickMS)
}

// fill adds rate and remaining time to a transfer whose bytes are known.
func (s *speed) fill(t *messages.Transfer) {
	t.BytesTotal = max(t.BytesTotal, t.BytesDone)
	t.Rate = s.rate(t.BytesDone)
	if t.Rate > 0 {
		t.EtaMs = (t.BytesTotal - t.BytesDone) * 1000 / t.Rate
	}
}

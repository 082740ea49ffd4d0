package messages

import (
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	// Bounds of 100, 200, 400 µs, and what is above.
	timing := &Timing{FirstUs: 100}
	for _, row := range []struct {
		name   string
		counts []uint64
		q      float64
		want   time.Duration
	}{
		{"nothing", nil, 0.5, 0},
		{"nothing yet", []uint64{0, 0, 0, 0}, 0.99, 0},
		{"all in the first", []uint64{10, 10, 10, 10}, 0.5, 50 * time.Microsecond},
		{"half way through the third", []uint64{0, 10, 30, 30}, 2.0 / 3, 300 * time.Microsecond},
		{"at a bound", []uint64{10, 20, 20, 20}, 0.5, 100 * time.Microsecond},
		{"an empty one between", []uint64{10, 10, 20, 20}, 0.75, 300 * time.Microsecond},
		{"above all bounds", []uint64{0, 0, 0, 5}, 0.5, 400 * time.Microsecond},
		{"one of a hundred is above", []uint64{98, 98, 98, 100}, 0.99, 400 * time.Microsecond},
	} {
		if got := timing.Quantile(row.counts, row.q).Round(time.Microsecond); got != row.want {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
	}
}

func TestSince(t *testing.T) {
	for _, row := range []struct {
		name        string
		before, now []uint64
		want        uint64
	}{
		{"for the first time", nil, []uint64{3, 5}, 5},
		{"later", []uint64{1, 2}, []uint64{3, 5}, 3},
		{"after a start", []uint64{7, 9}, []uint64{3, 5}, 5},
		{"with other bounds", []uint64{1}, []uint64{3, 5}, 5},
		{"of nothing", []uint64{1}, nil, 0},
	} {
		if got := Events(Since(row.before, row.now)); got != row.want {
			t.Errorf("%s: %d, want %d", row.name, got, row.want)
		}
	}
}

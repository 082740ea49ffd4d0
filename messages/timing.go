package messages

import "time"

// Since is what was counted between two readings of a Timing's counts; nil before: all. A process
// that was started anew counts from 0 again, so that what it has is all there is.
func Since(before, now []uint64) []uint64 {
	since := make([]uint64, len(now))
	for i, n := range now {
		if since[i] = n; i < len(before) && len(before) == len(now) && before[len(before)-1] <= now[len(now)-1] {
			since[i] = n - min(n, before[i])
		}
	}
	return since
}

// Events is how often something was timed.
func Events(counts []uint64) uint64 {
	if len(counts) == 0 {
		return 0
	}
	return counts[len(counts)-1]
}

// Quantile is how long no more than a share q of the counted times were exceeded, between the two
// bounds around it in proportion; the last bound for what is above it. 0: nothing was timed.
func (t *Timing) Quantile(counts []uint64, q float64) time.Duration {
	all := Events(counts)
	if all == 0 {
		return 0
	}
	wanted := q * float64(all)
	low, bound := 0.0, float64(t.GetFirstUs())
	below := uint64(0)
	for i, n := range counts {
		switch last := i == len(counts)-1; {
		case last:
			return time.Duration(low * float64(time.Microsecond))
		case float64(n) >= wanted:
			share := 0.0
			if n > below {
				share = (wanted - float64(below)) / float64(n-below)
			}
			return time.Duration((low + (bound-low)*share) * float64(time.Microsecond))
		}
		below, low, bound = n, bound, 2*bound
	}
	return 0
}

// Timing is that of a name; nil: there is none.
func (v *Vitals) Timing(of string) *Timing {
	for _, t := range v.GetTimings() {
		if t.Of == of {
			return t
		}
	}
	return nil
}

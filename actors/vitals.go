package actors

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"keyval/actors/transport/grpc"
	"keyval/messages"
)

// vitals tells from a process's metrics how its node does. So whoever asks for a status
// learns it without a way to the metrics themselves.
type vitals struct {
	from    prometheus.Gatherer
	began   time.Time
	set     []string                     // name=value
	network atomic.Pointer[grpc.Network] // nil: none yet

	mutex  sync.Mutex
	before [samples]map[string][]uint64 // counts of timings, the oldest first
	told   *messages.Vitals             // as read last; nil: never
	toldAt time.Time
}

// What is recent is counted from the oldest of so many samples on.
const (
	samples     = 3
	sampleEvery = 40 * time.Second
	// freshFor is how long what was read is told again: reading takes half a millisecond, and
	// whoever reaches a node may ask as often as he likes.
	freshFor = 50 * time.Millisecond
)

func newVitals(meter *prometheus.Registry, o ServeOptions) *vitals {
	v := &vitals{from: meter, began: time.Now(), set: []string{
		fmt.Sprint("history_revisions=", o.HistoryRevisions), fmt.Sprint("history_time=", o.HistoryTime), fmt.Sprint("snapshot_rate=", o.SnapshotRate),
		fmt.Sprint("snapshots_keep=", o.SnapshotsKeep), fmt.Sprint("room_bytes=", o.RoomBytes), fmt.Sprint("tracing=", o.Traces != nil),
		fmt.Sprint("keys=", o.Keys != nil), fmt.Sprint("cores=", runtime.GOMAXPROCS(0)), fmt.Sprint("memory_limit_bytes=", debug.SetMemoryLimit(-1)), "go=" + runtime.Version(),
	}}
	meter.MustRegister(v)
	return v
}

// sample goes on until ctx ends.
func (v *vitals) sample(ctx context.Context) {
	every := time.NewTicker(sampleEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
			v.take()
		}
	}
}

// take keeps what is counted by now as the newest sample.
func (v *vitals) take() {
	counts := map[string][]uint64{}
	for _, t := range v.read().GetTimings() {
		counts[t.Of] = t.Counts
	}
	v.mutex.Lock()
	defer v.mutex.Unlock()
	copy(v.before[:], v.before[1:])
	v.before[samples-1] = counts
}

const (
	timedPrefix, timedSuffix = "keyval_", "_seconds"
	queuedSuffix             = "_queued_bytes"
)

// now is how the node does, or did a moment ago; nil: the metrics cannot be read.
func (v *vitals) now() *messages.Vitals {
	v.mutex.Lock()
	told, at := v.told, v.toldAt
	v.mutex.Unlock()
	if told != nil && time.Since(at) < freshFor {
		return told
	}
	told = v.read()
	v.mutex.Lock()
	defer v.mutex.Unlock()
	v.told, v.toldAt = told, time.Now()
	return told
}

func (v *vitals) read() *messages.Vitals {
	families, err := v.from.Gather()
	if err != nil {
		return nil
	}
	v.mutex.Lock()
	before := v.before[0]
	v.mutex.Unlock()
	is := &messages.Vitals{UpMs: uint64(time.Since(v.began).Milliseconds()), Settings: v.set}
	for _, f := range families {
		for _, m := range f.Metric {
			of := strings.TrimPrefix(f.GetName(), timedPrefix)
			label := ""
			if len(m.Label) == 1 {
				label = m.Label[0].GetValue()
			}
			switch {
			case len(m.Label) > 1: // the metrics alone show it
			case f.GetType() == dto.MetricType_HISTOGRAM && strings.HasSuffix(of, timedSuffix):
				of = strings.TrimSuffix(of, timedSuffix)
				if label != "" {
					of = label
				}
				is.Timings = append(is.Timings, timing(of, m.Histogram, before[of]))
			case f.GetType() == dto.MetricType_GAUGE && strings.HasSuffix(of, queuedSuffix):
				in := strings.TrimSuffix(of, queuedSuffix)
				if label != "" {
					in += "_" + label
				}
				is.Queued = append(is.Queued, &messages.Queued{In: in, Bytes: uint64(max(m.Gauge.GetValue(), 0))})
			}
		}
	}
	return is
}

func timing(of string, h *dto.Histogram, before []uint64) *messages.Timing {
	t := &messages.Timing{Of: of}
	for _, b := range h.Bucket {
		if t.FirstUs == 0 {
			t.FirstUs = uint64(b.GetUpperBound() * 1e6)
		}
		t.Counts = append(t.Counts, b.GetCumulativeCount())
	}
	t.Counts = append(t.Counts, h.GetSampleCount())
	t.Recent = messages.Since(before, t.Counts)
	return t
}

var linksQueued = prometheus.NewDesc("keyval_link_queued_bytes", "Bytes that wait on this node to be sent: to other nodes by the lane, and to clients.", []string{"lane"}, nil)

var roundTrips = prometheus.NewDesc("keyval_member_round_trip_seconds", "The shortest round trip from this node to the member of the last 5 minutes, as Linux measures it: the network alone. 0 to itself.", []string{"member"}, nil)

// Describe implements prometheus.Collector.
func (v *vitals) Describe(to chan<- *prometheus.Desc) { to <- linksQueued; to <- roundTrips }

// Collect implements prometheus.Collector.
func (v *vitals) Collect(to chan<- prometheus.Metric) {
	network := v.network.Load()
	if network == nil {
		return
	}
	for lane, bytes := range network.Queued() {
		to <- prometheus.MustNewConstMetric(linksQueued, prometheus.GaugeValue, float64(bytes), lane)
	}
	for member, trip := range network.RoundTrips() {
		to <- prometheus.MustNewConstMetric(roundTrips, prometheus.GaugeValue, trip.Seconds(), member)
	}
}

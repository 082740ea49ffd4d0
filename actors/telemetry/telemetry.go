// Package telemetry is how actors tell people what happens. An actor is given a
// logger and a meter through its Config and uses no other: not the actor library's,
// which is for developers.
//
// Metrics are named keyval_<part>_<what>, in base units (seconds, bytes), and counters
// end in _total. A label has few values, which no client and no peer can choose.
package telemetry

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus"

	"keyval/messages"
)

// Counter makes a counter, or finds the one that an actor before this one made: it
// goes on when an actor starts anew. Without a meter it counts for nobody.
func Counter(meter prometheus.Registerer, name, help string) prometheus.Counter {
	return registered(meter, prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help}))
}

// CounterBy is Counter with labels. Where every nanosecond counts, keep the counter
// of a label's value rather than look it up each time.
func CounterBy(meter prometheus.Registerer, name, help string, labels ...string) *prometheus.CounterVec {
	return registered(meter, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels))
}

// Histogram is Counter for how long something took, in seconds: from the first bound,
// each of so many is twice the one before.
func Histogram(meter prometheus.Registerer, name, help string, first float64, bounds int) prometheus.Histogram {
	return registered(meter, prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(first, 2, bounds),
	}))
}

// Gauge is Counter for what goes up and down.
func Gauge(meter prometheus.Registerer, name, help string) prometheus.Gauge {
	return registered(meter, prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help}))
}

// HistogramBy is Histogram with labels.
func HistogramBy(meter prometheus.Registerer, name, help string, first float64, bounds int, labels ...string) *prometheus.HistogramVec {
	return registered(meter, prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(first, 2, bounds),
	}, labels))
}

func registered[C prometheus.Collector](meter prometheus.Registerer, c C) C {
	if meter == nil {
		return c
	}
	err := meter.Register(c)
	if again, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		return again.ExistingCollector.(C)
	}
	if err != nil {
		panic(fmt.Sprintf("a metric that cannot be: %v", err))
	}
	return c
}

// Unexpected is the default case of every Receive: it reports a message that the actor
// has no handler for. Messages of an actor's life need none.
func Unexpected(ctx actor.Context, log *slog.Logger, meter prometheus.Registerer) {
	switch ctx.Message().(type) {
	case actor.SystemMessage, actor.AutoReceiveMessage:
		return
	}
	log.Warn("unexpected message", "actor", ctx.Self().Id, "type", fmt.Sprintf("%T", ctx.Message()), "hint", defect)
	unexpected(meter).WithLabelValues(Kind(ctx.Self().Id)).Inc()
}

func unexpected(meter prometheus.Registerer) *prometheus.CounterVec {
	return CounterBy(meter, "keyval_actor_unexpected_messages_total",
		"Messages that an actor had no handler for: a defect, please report it with the log.", "actor")
}

func failures(meter prometheus.Registerer) *prometheus.CounterVec {
	return CounterBy(meter, "keyval_actor_failures_total",
		"Panics of actors that the node has survived: the actor started anew, or stopped. A defect, please report it with the log.", "actor")
}

// Begin lets the counters of all actors be seen at 0 before anything is counted, so that
// whoever watches how they grow misses no first time.
func Begin(meter prometheus.Registerer) {
	for _, a := range messages.Actors {
		unexpected(meter).WithLabelValues(a.Kind())
		failures(meter).WithLabelValues(a.Kind())
	}
}

// Failed reports a panic that the node survives: what becomes of the actor is next. An
// actor that supervises its own children calls it where it decides.
func Failed(log *slog.Logger, meter prometheus.Registerer, child *actor.PID, next string, reason, message any) {
	log.Error("an actor failed and "+next, "actor", child.Id, "message", fmt.Sprintf("%T", message), "reason", reason, "hint", defect)
	failures(meter).WithLabelValues(Kind(child.Id)).Inc()
}

// defect is what to do about what must not be.
const defect = "report it with this log: it is a defect of the software"

// Kind is the value of a label actor: what people call an actor of this name. One of
// another system than a node's has its own name.
func Kind(name string) string {
	if a := messages.ActorOf(name); a != nil {
		return a.Kind()
	}
	return name
}

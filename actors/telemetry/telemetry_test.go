package telemetry

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"keyval/messages"
)

func TestCountersGoOnWhenAnActorStartsAnew(t *testing.T) {
	meter := prometheus.NewRegistry()
	for range 2 {
		Counter(meter, "keyval_test_total", "For a test.").Inc()
		CounterBy(meter, "keyval_test_by_total", "For a test.", "actor").WithLabelValues("raft").Add(2)
	}
	want := `# HELP keyval_test_by_total For a test.
# TYPE keyval_test_by_total counter
keyval_test_by_total{actor="raft"} 4
# HELP keyval_test_total For a test.
# TYPE keyval_test_total counter
keyval_test_total 2
`
	if err := testutil.GatherAndCompare(meter, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

func TestWithoutAMeterCountersCountForNobody(t *testing.T) {
	Counter(nil, "keyval_test_total", "For a test.").Inc()
	CounterBy(nil, "keyval_test_total", "For a test.", "actor").WithLabelValues("raft").Inc()
}

// letter is the part of a Context that Unexpected looks at.
type letter struct {
	actor.Context
	self    string
	message any
}

func (l letter) Self() *actor.PID { return actor.NewPID("node/1", l.self) }
func (l letter) Message() any     { return l.message }

func TestUnexpected(t *testing.T) {
	var out bytes.Buffer
	log, meter := slog.New(slog.NewTextHandler(&out, nil)), prometheus.NewRegistry()
	for _, message := range []any{&actor.Started{}, &actor.Terminated{}, &messages.Flush{}, &messages.Flush{}} {
		Unexpected(letter{self: messages.ActorSessionPrefix + "17", message: message}, log, meter)
	}
	Unexpected(letter{self: "client", message: 5}, log, nil)
	want := `# HELP keyval_actor_unexpected_messages_total Messages that an actor had no handler for: a defect, please report it with the log.
# TYPE keyval_actor_unexpected_messages_total counter
keyval_actor_unexpected_messages_total{actor="session"} 2
`
	if err := testutil.GatherAndCompare(meter, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	for _, line := range []string{"actor=node/gateway/session-17 type=*messages.Flush", "actor=client type=int"} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("no line holds %q in:\n%s", line, out.String())
		}
	}
	if n := strings.Count(out.String(), "\n"); n != 3 {
		t.Errorf("%d lines for 3 unexpected messages", n)
	}
}

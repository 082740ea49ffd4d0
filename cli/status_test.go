package cli

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/google/go-cmp/cmp"

	"keyval/messages"
)

// TestStatusTellsOfTransfers: each once, as its receiver sees it if that answers.
func TestStatusTellsOfTransfers(t *testing.T) {
	r := run{cluster: newFake()}
	r.cluster.transfers = map[string][]*messages.Transfer{
		"127.0.0.1:7001": {
			{Peer: 3, Index: 70, BytesDone: 313e6, BytesTotal: 1e9, Rate: 50e6},
			{Peer: 2, Index: 70, BytesTotal: 1e9, WaitingFor: "node2 has answered nothing for 3 s"},
		},
		"127.0.0.1:7003": {{Peer: 1, Incoming: true, Index: 70, BytesDone: 312e6, BytesTotal: 1e9, Rate: 48e6, EtaMs: 14_300, WaitingFor: "the disk of this node"}},
	}
	got := r.kvctl(t, "status")
	_, lines, _ := strings.Cut(got.out, "7003  follower")
	_, lines, _ = strings.Cut(lines, "\n")
	want := "node2 catches up from node1: 0 B of about 1.0 GB; waiting: node2 has answered nothing for 3 s\n" +
		"node3 catches up from node1: 312 MB of about 1.0 GB, 48 MB/s, about 14 s left; waiting: the disk of node3\n"
	if diff := cmp.Diff(want, lines); diff != "" || got.code != 0 {
		t.Error(diff)
	}
	r.cluster.down = []string{"127.0.0.1:7003"}
	if got := r.kvctl(t, "status"); !strings.Contains(got.out, "node3 catches up from node1: 313 MB of about 1.0 GB, 50 MB/s\n") {
		t.Errorf("%s", got.out)
	}
	asJSON := r.kvctl(t, "status", "--server", "127.0.0.1:7001", "-o", "jsonl")
	wantJSON := map[string]any{"peer": "node3", "incoming": false, "index": "70", "bytes_done": 313e6, "bytes_total": 1e9,
		"rate_bytes_per_s": 50e6, "eta_ms": 0.0, "waiting_for": ""}
	if diff := cmp.Diff(wantJSON, fields(t, asJSON.out)["transfers"].([]any)[0]); diff != "" {
		t.Error(diff)
	}
}

// TestWhoHasNoRoleIsToldSo: where every node refuses to say anything, that is the answer. Where one does,
// the others' refusals are a row.
func TestWhoHasNoRoleIsToldSo(t *testing.T) {
	for _, command := range []string{"status", "doctor", "top --once"} {
		r := run{cluster: newFake()}
		r.cluster.denied = map[string]bool{"127.0.0.1:7001": true, "127.0.0.1:7002": true, "127.0.0.1:7003": true}
		got := r.kvctl(t, strings.Fields(command)...)
		if got.code != 4 || !strings.Contains(got.stderr, "alice may not look at the cluster: no role") || !strings.Contains(got.stderr, "next: kvctl user grant alice viewer") {
			t.Errorf("%s: exit code %d, says %q %q", command, got.code, got.out, got.stderr)
		}
		delete(r.cluster.denied, "127.0.0.1:7001")
		if got := r.kvctl(t, strings.Fields(command)...); got.code == 4 || strings.Contains(got.stderr, "alice may not") && command != "status" {
			t.Errorf("%s, one node answers: exit code %d, says %q %q", command, got.code, got.out, got.stderr)
		}
	}
}

func TestUnits(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 2_500_000: "2.5 MB", 9_960_000: "10 MB", 312_400_000: "312 MB", 999_600_000: "1000 MB",
		1_049_000_000: "1.0 GB", 5e15: "5.0 PB",
	} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0 ms", 340 * time.Millisecond: "340 ms", 14300 * time.Millisecond: "14 s", 200 * time.Second: "3 min 20 s", 7500 * time.Second: "2 h 5 min",
		59700 * time.Millisecond: "1 min 0 s",
	} {
		if got := timeText(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	for text, want := range map[string]uint64{"0": 0, "500": 500, "64MiB": 64 << 20, "1.5 GB": 15e8, "10k": 10_000, "3kib": 3 << 10} {
		if got, err := humanize.ParseBytes(text); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1XB", "x", "NaN", "1e30", "infGB"} {
		if got, err := humanize.ParseBytes(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}

// TestWatchStatus: what is new is shown, with what is wrong; a terminal is cleared before.
func TestWatchStatus(t *testing.T) {
	watch := func(tty bool, argv ...string) outcome {
		r := run{cluster: newFake(), tty: tty}
		ctx, interrupt := context.WithCancel(t.Context())
		r.ctx = ctx
		go func() {
			time.Sleep(watchEvery / 2)
			r.cluster.mu.Lock()
			r.cluster.down = []string{"127.0.0.1:7003"}
			r.cluster.mu.Unlock()
			time.Sleep(2 * watchEvery)
			interrupt()
		}()
		return r.kvctl(t, append([]string{"status", "--watch"}, argv...)...)
	}
	lines := watch(false)
	if lines.code != 0 || strings.Count(lines.out, "NAME ") != 2 || lines.stderr != "" ||
		!strings.HasSuffix(lines.out, "node3 127.0.0.1:7003: connection refused\n  next: start it\n") {
		t.Errorf("%+v", lines)
	}
	structured := watch(false, "-o", "jsonl")
	if strings.Count(structured.out, "\n") != 6 || !strings.Contains(structured.out, `"error":"connection refused"`) || structured.stderr != "" {
		t.Errorf("%+v", structured)
	}
	screen := watch(true)
	if frames := strings.Split(screen.out, "\x1b[H\x1b[2J"); len(frames) != 3 || !strings.Contains(frames[2], "node3 127.0.0.1:7003: connection refused") || screen.stderr != "" {
		t.Errorf("%+v", screen)
	}
}

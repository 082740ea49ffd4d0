package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMetricsOfARealNode: a node tells what it counts where it was told to, and at
// no other place; it does not start where somebody else listens already.
func TestMetricsOfARealNode(t *testing.T) {
	t.Parallel()
	addresses := freeAddresses(t, 2)
	p := newCluster(t, addresses[:1])
	p.endpoints = p.listens
	_, port, _ := net.SplitHostPort(addresses[1])
	p.tuning = append(p.tuning, "--metrics-listen", ":"+port) // without a host: loopback
	p.found()
	c := p.connect(p.endpoints...)
	if _, err := c.Put(context.Background(), []byte("k"), []byte("v")); err != nil {
		t.Fatal(err)
	}
	status, page := pageAt(t, addresses[1], "/metrics")
	if status != http.StatusOK {
		t.Fatalf("status %d: %s", status, page)
	}
	for _, line := range []string{
		"keyval_raft_leader_changes_total 1\n", "keyval_raft_elections_started_total 1\n", "process_open_fds ", "go_goroutines ",
		"keyval_snapshot_sent_bytes_total 0\n", "keyval_snapshot_received_bytes_total 0\n", "keyval_snapshots_installed_total 0\n",
		"keyval_audit_questions_total 0\n", "keyval_audit_differences_total 0\n", "keyval_checkpoint_seconds_count ",
	} {
		if !strings.Contains(page, "\n"+line) {
			t.Errorf("the metrics do not hold %q:\n%s", line, page)
		}
	}
	for _, grows := range []string{"keyval_log_sync_seconds_count", "keyval_log_appended_bytes_total", "keyval_machine_applied_entries_total"} {
		if !strings.Contains(page, "\n"+grows+" ") || strings.Contains(page, "\n"+grows+" 0\n") {
			t.Errorf("%s counts nothing of a put:\n%s", grows, page)
		}
	}
	compareManual(t, page)
	for _, path := range []string{"/", "/livez", "/readyz", "/state", "/version"} {
		if status, body := pageAt(t, addresses[1], path); status != http.StatusOK {
			t.Errorf("%s: status %d: %s", path, status, body)
		}
	}
	if status, _ := pageAt(t, addresses[1], "/debug/pprof/"); status != http.StatusNotFound {
		t.Errorf("profiles were not asked for: status %d", status)
	}

	second := exec.Command(binary, "serve", "--data", p.dir+"/other", "--name", "o", "--listen", "127.0.0.1:1", "--initial-cluster", "o=127.0.0.1:1",
		"--metrics-listen", addresses[1])
	said, err := second.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 || !strings.Contains(string(said), "address "+addresses[1]+" is in use") {
		t.Errorf("a busy port: %v\n%s", err, said)
	}
	if _, err := os.Stat(p.dir + "/other"); !os.IsNotExist(err) {
		t.Errorf("it has begun a directory all the same: %v", err)
	}
}

// TestExemplars: beside the time of a request that was traced stands its trace, in OpenMetrics, and a collector has
// that trace.
func TestExemplars(t *testing.T) {
	t.Parallel()
	collector, addresses := startCollector(t), freeAddresses(t, 2)
	p := newCluster(t, addresses[:1])
	p.endpoints = p.listens
	p.tuning = append(p.tuning, "--metrics-listen", addresses[1], "--tracing-endpoint", "http://"+collector.address, "--tracing-ratio", "1")
	p.found()
	c := p.connect(p.endpoints...)
	if _, err := c.Put(context.Background(), []byte("k"), []byte("v")); err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequest(http.MethodGet, "http://"+addresses[1]+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	page, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^keyval_request_seconds_bucket\{operation="write",le="[^"]+"\} \d+ # \{trace_id="([0-9a-f]{32})"\}`).FindAllSubmatch(page, -1)
	if len(found) == 0 || !strings.HasSuffix(string(page), "# EOF\n") {
		t.Fatalf("no bucket of writes has an exemplar:\n%s", page)
	}
	last := found[len(found)-1][1] // one that was tried before there was a leader took less
	collector.await(t, string(last), func(tree string) bool { return strings.Contains(tree, "apply") })
}

var rewrite = flag.Bool("rewrite", false, "write docs/METRICS.md as a node shows its metrics (make docs)")

// compareManual holds docs/METRICS.md to what a node shows.
func compareManual(t *testing.T, page string) {
	t.Helper()
	const manual, begin, end = "../../docs/METRICS.md", "<!-- metrics: made by make docs -->\n", "<!-- end of metrics -->\n"
	is, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begun := strings.Cut(string(is), begin)
	_, after, ended := strings.Cut(rest, end)
	if !begun || !ended {
		t.Fatalf("%s has no place for the metrics between markers", manual)
	}
	want := before + begin + listMetrics(page) + end + after
	switch {
	case want == string(is):
	case !*rewrite:
		t.Errorf("%s is not what a node shows: make docs", manual)
	default:
		if err := os.WriteFile(manual, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDevShowsItsNodes: each node of a kvctl dev --metrics knows how far the others are, and
// takes the flags of tracing.
func TestDevShowsItsNodes(t *testing.T) {
	t.Parallel()
	p, _ := devOfThree(t, "--metrics", "--tracing-endpoint", "http://127.0.0.1:1", "--tracing-ratio", "0.5")
	for i, endpoint := range p.endpoints {
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			status, page := pageAt(t, strings.Trim(strings.TrimPrefix(pageOf(endpoint), "http:"), "/"), "/metrics")
			trips := regexp.MustCompile(`(?m)^keyval_member_round_trip_seconds\{member="node\d"\} (\S+)$`).FindAllStringSubmatch(page, -1)
			far := 0
			for _, trip := range trips {
				if s, err := strconv.ParseFloat(trip[1], 64); err == nil && s > 0 && s < 1 {
					far++
				}
			}
			if status == http.StatusOK && len(trips) == 3 && far == 2 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("node%d: status %d, round trips %q", i+1, status, trips)
			}
		}
	}
}

// listMetrics makes a table of the metrics of a page that are KeyVal's.
func listMetrics(page string) string {
	kinds, labels := map[string]string{}, map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (keyval_\w+) (\w+)`).FindAllStringSubmatch(page, -1) {
		kinds[m[1]] = m[2]
	}
	for _, m := range regexp.MustCompile(`(?m)^(keyval_\w+){([^}]*)}`).FindAllStringSubmatch(page, -1) {
		var names []string
		for _, n := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(m[2], -1) {
			names = append(names, n[1])
		}
		name := m[1]
		if kinds[name] == "" {
			name = strings.TrimSuffix(name, "_count") // of a histogram
		}
		if kinds[name] != "" {
			labels[name] = "{" + strings.Join(names, ",") + "}"
		}
	}
	var b strings.Builder
	b.WriteString("| metric | type | what it says |\n|---|---|---|\n")
	for _, m := range regexp.MustCompile(`(?m)^# HELP (keyval_\w+) (.*)$`).FindAllStringSubmatch(page, -1) {
		fmt.Fprintf(&b, "| `%s%s` | %s | %s |\n", m[1], labels[m[1]], kinds[m[1]], m[2])
	}
	return b.String()
}

func pageAt(t *testing.T, address, path string) (status int, page string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

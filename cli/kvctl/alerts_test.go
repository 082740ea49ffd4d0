//go:build linux

package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// alertsEnv asks for TestAlerts, which takes a quarter of an hour.
const alertsEnv = "KEYVAL_ALERTS"

// hurry is by how much all times of the rules are shortened, those for which an alert is pending and
// those over which something grows: one number for all of them. Bounds stay as they are.
const hurry = 120

// scrapeEvery is how often Prometheus asks and judges.
const scrapeEvery = 500 * time.Millisecond

// TestAlerts: for each alert of monitoring/alerts.yaml the fault that it is about is made on real
// processes, Prometheus fires it, the fault is mended, and the alert clears.
func TestAlerts(t *testing.T) {
	if os.Getenv(alertsEnv) == "" {
		t.Skipf("%s is not set", alertsEnv)
	}
	w := startWatch(t)
	t.Run("faults", func(t *testing.T) { // these at the same time
		for _, faults := range []struct {
			of   string
			make func(*testing.T, *watch)
		}{{"that last", lastingFaults}, {"of members", faultsOfMembers}, {"of machines", faultsOfMachines}} {
			t.Run(faults.of, func(t *testing.T) {
				t.Parallel()
				faults.make(t, w)
			})
		}
	})
	for _, name := range w.alerts {
		if !slices.ContainsFunc(w.rows, func(r alertRow) bool { return r.alert == name }) {
			t.Errorf("nobody has seen %s fire and clear", name)
		}
	}
	w.document(t)
}

// alertRow is an alert that has fired and cleared.
type alertRow struct {
	alert, fault   string
	fired, cleared time.Duration // since the fault, and since it was mended
}

// watch is a Prometheus with the rules in a hurry.
type watch struct {
	address string
	targets string // the directory of files that name clusters
	alerts  []string
	waits   map[string]string // by alert: how long it is pending, as the rules say

	mu   sync.Mutex
	rows []alertRow
}

var inARule = regexp.MustCompile(`(?m)^( +for: |.*?\[)(\d+)([smhd])`)

// hurried is a file of rules with shorter times.
func hurried(t *testing.T, rules string) string {
	t.Helper()
	units := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}
	return inARule.ReplaceAllStringFunc(rules, func(found string) string {
		part := inARule.FindStringSubmatch(found)
		var n int
		if _, err := fmt.Sscan(part[2], &n); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%s%dms", part[1], (time.Duration(n) * units[part[3]] / hurry).Milliseconds())
	})
}

func startWatch(t *testing.T) *watch {
	t.Helper()
	server, err := exec.LookPath("prometheus")
	if err != nil {
		t.Skip("Prometheus is not installed")
	}
	dir := t.TempDir()
	w := &watch{address: freeAddresses(t, 1)[0], targets: filepath.Join(dir, "targets"), waits: map[string]string{}}
	text, err := os.ReadFile("../../monitoring/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range regexp.MustCompile(`(?m)^ +- alert: (\w+)\n.*\n(?: +for: (\w+))?`).FindAllStringSubmatch(string(text), -1) {
		w.alerts = append(w.alerts, found[1])
		w.waits[found[1]] = found[2]
	}
	config := fmt.Sprintf("global: {scrape_interval: %v, scrape_timeout: %[1]v, evaluation_interval: %[1]v}\nrule_files: [rules.yaml]\nscrape_configs:\n- job_name: none\n  file_sd_configs: [{files: [targets/*.json], refresh_interval: 1s}]\n", scrapeEvery)
	for name, text := range map[string]string{"rules.yaml": hurried(t, string(text)), "prometheus.yaml": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(w.targets, 0o755); err != nil {
		t.Fatal(err)
	}
	var log said
	c := exec.Command(server, "--config.file", filepath.Join(dir, "prometheus.yaml"), "--storage.tsdb.path", filepath.Join(dir, "tsdb"), "--web.listen-address", w.address, "--log.level=warn")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c.Stdout, c.Stderr = &log, &log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
		if t.Failed() {
			t.Logf("prometheus:\n%s", &log)
		}
	})
	return w
}

// scrape has Prometheus ask nodes, as those of a cluster.
func (w *watch) scrape(t *testing.T, cluster string, endpoints ...string) {
	t.Helper()
	targets := []string{}
	for _, e := range endpoints {
		targets = append(targets, strings.Trim(strings.TrimPrefix(pageOf(e), "http:"), "/"))
	}
	text, err := json.Marshal([]any{map[string]any{"targets": targets, "labels": map[string]string{"job": cluster}}})
	if err == nil {
		file := filepath.Join(w.targets, cluster)
		err = errors.Join(os.WriteFile(file, text, 0o644), os.Rename(file, file+".json")) // never half of it
	}
	if err != nil {
		t.Fatal(err)
	}
}

// state is what an alert about a cluster does: pending, firing, or nothing.
func (w *watch) state(alert, cluster string) string {
	answer, err := http.Get("http://" + w.address + "/api/v1/alerts")
	if err != nil {
		return "not known: " + err.Error()
	}
	defer answer.Body.Close()
	var all struct {
		Data struct {
			Alerts []struct {
				Labels map[string]string
				State  string
			}
		}
	}
	if err := json.NewDecoder(answer.Body).Decode(&all); err != nil {
		return "not known: " + err.Error()
	}
	state := ""
	for _, a := range all.Data.Alerts {
		if a.Labels["alertname"] == alert && a.Labels["job"] == cluster && state != "firing" {
			state = a.State
		}
	}
	return state
}

// await waits until alerts about a cluster have a state, and says how long that took each since then.
func (w *watch) await(t *testing.T, cluster, state string, since time.Time, within time.Duration, alerts ...string) map[string]time.Duration {
	t.Helper()
	began, left, after := time.Now(), slices.Clone(alerts), map[string]time.Duration{}
	for ; len(left) > 0; time.Sleep(scrapeEvery / 5) {
		left = slices.DeleteFunc(left, func(alert string) bool {
			is := w.state(alert, cluster) == state
			if is {
				after[alert] = time.Since(since)
			}
			return is
		})
		if len(left) > 0 && time.Since(began) > within {
			t.Fatalf("after %v %s is %q, and not %q", within, left[0], w.state(left[0], cluster), state)
		}
	}
	return after
}

// see makes a fault, waits until alerts fire, mends it, and waits until they have cleared.
func (w *watch) see(t *testing.T, cluster, fault string, within time.Duration, alerts []string, do, mend func()) {
	t.Helper()
	w.await(t, cluster, "", time.Now(), time.Minute, alerts...)
	began := time.Now()
	do()
	fired := w.await(t, cluster, "firing", began, within, alerts...)
	mended := time.Now()
	mend()
	cleared := w.await(t, cluster, "", mended, 2*time.Minute, alerts...)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, alert := range alerts {
		w.rows = append(w.rows, alertRow{alert, fault, fired[alert], cleared[alert]})
		t.Logf("%s: %s: fired after %.1f s, cleared after %.1f s", alert, fault, fired[alert].Seconds(), cleared[alert].Seconds())
	}
}

const alertsBegin, alertsEnd = "<!-- alerts: made by TestAlerts -->\n", "<!-- end of alerts -->\n"

// document writes what was seen into OPERATIONS.md.
func (w *watch) document(t *testing.T) {
	t.Helper()
	var b strings.Builder
	b.WriteString("| alert | fault | pending, by the rule | fired after | cleared after |\n|---|---|---|---|---|\n")
	for _, alert := range w.alerts {
		for _, r := range w.rows {
			if r.alert == alert {
				fmt.Fprintf(&b, "| %s | %s | %s | %.1f s | %.1f s |\n", strings.TrimPrefix(alert, "KeyVal"), r.fault, cmp.Or(w.waits[alert], "–"), r.fired.Seconds(), r.cleared.Seconds())
			}
		}
	}
	t.Logf("\n%s", b.String())
	if !*rewrite || t.Failed() {
		return
	}
	all, err := os.ReadFile(damageDocs)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begun := strings.Cut(string(all), alertsBegin)
	_, after, ended := strings.Cut(rest, alertsEnd)
	if !begun || !ended {
		t.Fatalf("%s has no table of alerts", damageDocs)
	}
	if err := os.WriteFile(damageDocs, []byte(before+alertsBegin+b.String()+alertsEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestRulesInAHurry: each time of the rules is shortened, and nothing else.
func TestRulesInAHurry(t *testing.T) {
	const rules = "      - alert: A\n        expr: increase(a_total[30m]) > 3\n        for: 1d\n      - alert: B\n        expr: b > 0.25\n        for: 15s\n          summary: wait for 5m\n"
	const want = "      - alert: A\n        expr: increase(a_total[15000ms]) > 3\n        for: 720000ms\n      - alert: B\n        expr: b > 0.25\n        for: 125ms\n          summary: wait for 5m\n"
	if got := hurried(t, rules); got != want {
		t.Errorf("%s", got)
	}
}

// Command incident shows what Prometheus and a dashboard see of a failure: it runs three nodes
// under load with the rules of alerts.yaml, kills the leader with SIGKILL, starts it again once
// what is expected has fired, and waits until all is quiet. It prints which alerts fired and
// cleared, and draws panels of dashboard.json from their own queries. It runs in monitoring/.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// expected are the alerts that a dead node of three causes.
var expected = []string{"KeyValBudgetSpent", "KeyValMemberUnreachable", "KeyValNodeDown"}

// Bounds of the run. The rules wait 2 minutes.
const (
	calm     = 40 * time.Second // before the kill, and half of it after the end
	firesMax = 4 * time.Minute
	clearMax = 3 * time.Minute
	every    = time.Second // between scrapes, evaluations and looks at the alerts
)

func main() {
	kvctl := flag.String("kvctl", "../bin/kvctl", "the binary")
	port := flag.Int("base-port", 17001, "of the nodes; Prometheus listens at the one below")
	picture := flag.String("picture", "../docs/incident.png", "what is drawn")
	flag.Parse()
	if err := run(*kvctl, *port, *picture); err != nil {
		fmt.Fprintln(os.Stderr, "incident:", err)
		os.Exit(1)
	}
}

func run(kvctl string, port int, picture string) (err error) {
	dir, err := os.MkdirTemp("", "incident")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	data := filepath.Join(dir, "cluster")
	command := func(name string, args ...string) *exec.Cmd { // it ends with this process
		c := exec.Command(name, args...)
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		return c
	}
	dev := command(kvctl, "dev", "--json", "--metrics", "--data", data, "--base-port", fmt.Sprint(port))
	dev.Stderr = os.Stderr
	out, err := dev.StdoutPipe()
	if err != nil {
		return err
	}
	if err := dev.Start(); err != nil {
		return err
	}
	defer func() {
		_ = dev.Process.Signal(os.Interrupt)
		_ = dev.Wait()
	}()
	var c cluster
	if err := json.NewDecoder(out).Decode(&c); err != nil {
		return fmt.Errorf("kvctl dev does not say what runs: %w", err)
	}
	p := prometheus{address: fmt.Sprintf("127.0.0.1:%d", port-1)}
	config, err := p.configure(dir, c)
	if err != nil {
		return err
	}
	server := command("prometheus", "--config.file", config, "--storage.tsdb.path", filepath.Join(dir, "tsdb"), "--web.listen-address", p.address, "--log.level=error")
	server.Stderr = os.Stderr
	if err := server.Start(); err != nil {
		return err
	}
	defer func() { // before what it writes to is removed
		_ = server.Process.Kill()
		_ = server.Wait()
	}()
	load := command(kvctl, "bench", "--endpoints", strings.Join(c.Endpoints, ","), "--clients", "8", "--rate", "300", "--read-ratio", "0.3", "--duration", "15m")
	if err := load.Start(); err != nil {
		return err
	}
	defer func() {
		_ = load.Process.Kill()
		_ = load.Wait()
	}()
	began := time.Now()
	time.Sleep(calm)
	leader := c.leader()
	if err := syscall.Kill(leader.PID, syscall.SIGKILL); err != nil {
		return err
	}
	h := history{from: time.Now(), told: map[string]*told{}}
	fmt.Printf("%s, the leader, was killed\n", leader.Name)
	if err := h.watch(p, firesMax, h.fired); err != nil {
		return err
	}
	again := time.Now()
	if text, err := exec.Command(kvctl, "dev", "start", leader.Name, "--data", data).CombinedOutput(); err != nil {
		return fmt.Errorf("start %s again: %w: %s", leader.Name, err, text)
	}
	fmt.Printf("it was started again after %.0f s\n\n", again.Sub(h.from).Seconds())
	if err := h.watch(p, clearMax, h.quiet); err != nil {
		return err
	}
	h.print()
	time.Sleep(calm / 2)
	return draw(p, picture, c.names(), began.Add(5*time.Second), time.Now(), h.from, again)
}

// cluster is what kvctl dev --json says.
type cluster struct {
	Endpoints []string
	Nodes     []node
}

type node struct {
	Name, Role, Page string
	PID              int
}

func (c cluster) leader() node {
	return c.Nodes[max(0, slices.IndexFunc(c.Nodes, func(n node) bool { return n.Role == "leader" }))]
}

func (c cluster) names() *strings.Replacer {
	var pairs []string
	for _, n := range c.Nodes {
		pairs = append(pairs, strings.TrimPrefix(n.Page, "http://"), n.Name)
	}
	return strings.NewReplacer(pairs...)
}

// prometheus is a server of its own.
type prometheus struct{ address string }

func (p prometheus) configure(dir string, c cluster) (file string, err error) {
	rules, err := filepath.Abs("alerts.yaml")
	if err != nil {
		return "", err
	}
	var targets []string
	for _, n := range c.Nodes {
		targets = append(targets, fmt.Sprintf("%q", strings.TrimPrefix(n.Page, "http://")))
	}
	text := fmt.Sprintf("global: {scrape_interval: %v, evaluation_interval: %[1]v}\nrule_files: [%q]\nscrape_configs:\n- job_name: keyval\n  static_configs: [{targets: [%s]}]\n",
		every, rules, strings.Join(targets, ", "))
	file = filepath.Join(dir, "prometheus.yaml")
	return file, os.WriteFile(file, []byte(text), 0o644)
}

// ask gets what an endpoint of the API answers.
func (p prometheus) ask(path string, values url.Values, into any) error {
	client := http.Client{Timeout: 10 * time.Second}
	answer, err := client.Get("http://" + p.address + path + "?" + values.Encode())
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	var whole struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(answer.Body).Decode(&whole); err != nil {
		return err
	}
	if whole.Status != "success" {
		return errors.New(whole.Error)
	}
	return json.Unmarshal(whole.Data, into)
}

// told is what became of one alert, in s since the kill; 0: not yet.
type told struct{ pending, fires, cleared float64 }

// history is what the alerts did.
type history struct {
	from time.Time
	told map[string]*told // by the alert's name and whom it is about
	now  map[string]bool  // those that are pending or fire
}

// watch looks at the alerts until done, at most so long.
func (h *history) watch(p prometheus, most time.Duration, done func() bool) error {
	for until := time.Now().Add(most); ; time.Sleep(every) {
		var all struct {
			Alerts []struct {
				Labels map[string]string
				State  string
			}
		}
		if err := p.ask("/api/v1/alerts", nil, &all); err != nil {
			return err
		}
		at := time.Since(h.from).Seconds()
		h.now = map[string]bool{}
		for _, a := range all.Alerts {
			name := strings.TrimSpace(a.Labels["alertname"] + " " + cmp.Or(a.Labels["member"], a.Labels["instance"]))
			h.now[name] = true
			t := h.told[name]
			if t == nil {
				t = &told{pending: at}
				h.told[name] = t
			}
			if a.State == "firing" && t.fires == 0 {
				t.fires = at
			}
		}
		for name, t := range h.told {
			if !h.now[name] && t.cleared == 0 {
				t.cleared = at
			}
		}
		if done() {
			return nil
		}
		if time.Now().After(until) {
			h.print()
			return fmt.Errorf("the alerts were not as expected within %v", most)
		}
	}
}

func (h *history) fired() bool {
	return !slices.ContainsFunc(expected, func(want string) bool {
		for name, t := range h.told {
			if strings.HasPrefix(name, want) && t.fires > 0 {
				return false
			}
		}
		return true
	})
}

func (h *history) quiet() bool { return len(h.now) == 0 }

func (h *history) print() {
	var names []string
	for name := range h.told {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(h.told[a].pending, h.told[b].pending) })
	second := func(s float64) string {
		if s == 0 {
			return "–"
		}
		return fmt.Sprintf("%.0f s", s)
	}
	fmt.Println("| alert | about | pending after | fires after | clear after |\n|---|---|---|---|---|")
	for _, name := range names {
		t := h.told[name]
		alert, about, _ := strings.Cut(name, " ")
		fmt.Printf("| %s | %s | %s | %s | %s |\n", alert, cmp.Or(about, "the cluster"), second(t.pending), second(t.fires), second(t.cleared))
	}
}

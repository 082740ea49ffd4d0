// Package doctor says what is wrong with a cluster, what causes it and what to do, most urgent
// first. Every rule is a pure function over facts that kvctl doctor has collected.
package doctor

import (
	"bytes"
	"cmp"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"keyval/actors/client"
	"keyval/actors/transport"
	"keyval/messages"
)

// Urgency is how soon somebody has to do something.
type Urgency int

const (
	Down    Urgency = iota // the cluster does not do its work
	Danger                 // one further fault would stop it, or data are at risk
	Warning                // it costs something already
	Note                   // it could be better
)

func (u Urgency) String() string {
	return [...]string{"down", "danger", "warning", "note"}[u]
}

// MarshalText is the urgency in JSON.
func (u Urgency) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// Finding is one thing that is wrong.
type Finding struct {
	Urgency Urgency `json:"urgency"`
	What    string  `json:"what"`
	Cause   string  `json:"cause"` // empty: What says it
	Next    string  `json:"next"`
}

// Node is what one endpoint said of itself.
type Node struct {
	Name, Endpoint string
	Status         *messages.StatusReply // nil: it did not answer
	Problem        *messages.Error       // why
	Asked, Heard   time.Time             // when it was asked, and its answer was here, by the clock of who asks
}

// Facts are what was collected.
type Facts struct {
	Nodes   []Node
	Cluster *client.ClusterAnswer // nil: no node told of the cluster
	Read    error                 // what became of a linearizable read; nil: it came back
	Took    time.Duration         // how long that took
	Now     time.Time
	Alone   bool // one node said all this, and no other was asked
}

// rule finds one kind of trouble.
type rule func(Facts) []Finding

var rules = []rule{
	twoClusters, nobodyAnswers, damaged, noQuorum, refusesWrites, readStuck, lost, silent, lacksRoom, operationWaits,
	lags, keys, backups, slowRead, slowDisk, clocks, mixedVersions, levelBehind, evenVoters, oneMachine, forgottenLearner, waitsToBeAdded,
}

// Examine says what is wrong, most urgent first; nothing: all is well. What follows from
// something that was found already is not said again.
func Examine(f Facts) []Finding {
	var all []Finding
	for _, r := range rules {
		all = append(all, r(f)...)
	}
	slices.SortStableFunc(all, func(a, b Finding) int { return int(a.Urgency - b.Urgency) })
	return all
}

func finding(u Urgency, what, cause, next string) []Finding {
	return []Finding{{u, what, cause, next}}
}

func (f Facts) answered() (all []Node) {
	for _, n := range f.Nodes {
		if n.Status != nil {
			all = append(all, n)
		}
	}
	return all
}

func (f Facts) members() []*messages.MemberView {
	if f.Cluster == nil {
		return nil
	}
	return f.Cluster.GetView().GetMembers()
}

func (f Facts) budget() *messages.FaultBudget {
	if f.Cluster == nil {
		return nil
	}
	return f.Cluster.Before
}

// unreachable are members that the leader is out of contact with.
func (f Facts) unreachable() (all []*messages.MemberView) {
	for _, m := range f.members() {
		if m.Role == "unreachable" {
			all = append(all, m)
		}
	}
	return all
}

func nobodyAnswers(f Facts) []Finding {
	if len(f.answered()) > 0 || len(f.Nodes) == 0 {
		return nil
	}
	var why []string
	for _, n := range f.Nodes {
		why = append(why, n.Endpoint+": "+n.Problem.Message)
	}
	return finding(Down, "no node answers", strings.Join(why, "; "), "start the nodes: kvctl serve --data DIR; if they run elsewhere: --endpoints HOST:PORT,...")
}

func twoClusters(f Facts) []Finding {
	answered := f.answered()
	for _, n := range answered {
		if first := answered[0]; !bytes.Equal(n.Status.ClusterId, first.Status.ClusterId) {
			return finding(Danger, fmt.Sprintf("%s and %s are nodes of two clusters, %x and %x", first.Endpoint, n.Endpoint, first.Status.ClusterId, n.Status.ClusterId),
				"--endpoints, or somebody's configuration, mixes them", "name the endpoints of one cluster")
		}
	}
	return nil
}

func damaged(f Facts) (all []Finding) {
	for _, n := range f.Nodes {
		if n.is(messages.Code_DAMAGED) {
			all = append(all, finding(Danger, n.title()+" has damaged data, and does not serve", n.Problem.Message,
				"kvctl rebuild --data DIR on its machine, or replace it: kvctl cluster replace "+n.Name+" "+n.Name+" "+n.Endpoint)...)
		}
	}
	return all
}

func (n Node) is(code messages.Code) bool { return n.Problem != nil && n.Problem.Code == code }

func (n Node) title() string {
	if n.Name != "" {
		return n.Name
	}
	return n.Endpoint
}

// noQuorum is said by any node that still answers.
func noQuorum(f Facts) []Finding {
	b := f.budget()
	var away []string
	for _, n := range f.Nodes {
		if n.Status == nil {
			away = append(away, fmt.Sprintf("%s (%s)", n.title(), n.Endpoint))
		}
	}
	leader := slices.ContainsFunc(f.answered(), func(n Node) bool { return n.Status.Leader.GetRaftId() != 0 })
	if len(f.answered()) == 0 || b != nil && b.Available && leader || b == nil && leader && f.Read == nil {
		return nil
	}
	voters := 0
	for _, m := range f.members() {
		if m.Member.Type == messages.MemberType_VOTER {
			voters++
		}
	}
	what := "nobody leads: no writes and no linearizable reads"
	switch {
	case len(away) == 0 && f.Alone:
		return finding(Down, what, "this node hears of no leader, and knows no more", "kvctl doctor asks all nodes")
	case len(away) == 0:
		return finding(Down, what, "all nodes that were asked answer, so they may not reach each other, or are electing a leader now",
			"ask again in a moment; then look in their logs for peers that are not reached")
	}
	return finding(Down, what, fmt.Sprintf("%d of %d members answer, and %d are needed", max(voters-len(away), 0), voters, voters/2+1),
		"start "+strings.Join(away, ", or ")+"; if their disks are lost: kvctl cluster recover --inspect DIR")
}

func refusesWrites(f Facts) []Finding {
	for _, n := range f.answered() {
		if why := n.Status.WritesRefused; why != "" {
			return finding(Down, "writes that need room are refused", why, "make room there, or delete and compact: both go on")
		}
	}
	return nil
}

func readStuck(f Facts) []Finding {
	if b := f.budget(); f.Read == nil || b == nil || !b.Available {
		return nil
	}
	return finding(Down, "a linearizable read did not come back", f.Read.Error(), "look at the leader's log and disk; kvctl cluster transfer NAME gives the lead to another")
}

// lost are voters that the leader does not reach, with what else may be lost now.
func lost(f Facts) (all []Finding) {
	b := f.budget()
	if b == nil || !b.Available {
		return nil
	}
	for _, m := range f.unreachable() {
		if m.Member.Type == messages.MemberType_LEARNER && slices.ContainsFunc(f.waiting(), func(o *client.ReplaceNodeStatus) bool { return o.NewNodeID == m.Member.Name }) {
			continue // it has never run, or comes still: operationWaits says what it lacks
		}
		u, says := Warning, "writes go on"
		if b.Slack == 0 && m.Member.Type != messages.MemberType_LEARNER {
			u, says = Danger, client.BudgetText(b)
		}
		name := m.Member.Name
		all = append(all, finding(u, fmt.Sprintf("%s at %s is out of contact for %v", name, m.Member.Address, (time.Duration(m.SilentMs)*time.Millisecond).Round(time.Second)),
			says, fmt.Sprintf("start it again; if it is lost: kvctl cluster replace %s NEW HOST:PORT", name))...)
	}
	return all
}

// silent are nodes that the leader reaches and kvctl does not.
func silent(f Facts) (all []Finding) {
	if b := f.budget(); b == nil || !b.Available {
		return nil
	}
	for _, n := range f.Nodes {
		reached := slices.ContainsFunc(f.members(), func(m *messages.MemberView) bool { return m.Member.Address == n.Endpoint && m.Role != "unreachable" })
		if n.Status == nil && reached && !n.is(messages.Code_DAMAGED) {
			all = append(all, finding(Warning, n.title()+" does not answer here, and the leader is in contact with it", n.Problem.Message,
				"it may be full of clients, or a firewall may be between; its log says")...)
		}
	}
	return all
}

func lacksRoom(f Facts) (all []Finding) {
	for _, m := range f.members() {
		if m.Lacks != "" {
			all = append(all, finding(Danger, m.Member.Name+" has too little room", m.Lacks, "make room on its disk: kvctl snapshot list, kvctl compact; else replace it by a larger one")...)
		}
	}
	return all
}

// waiting are operations of members that somebody has to help: what they wait for does not come by itself.
func (f Facts) waiting() []*client.ReplaceNodeStatus {
	if f.Cluster == nil {
		return nil
	}
	return slices.DeleteFunc(f.Cluster.Operations(), func(o *client.ReplaceNodeStatus) bool { return o.Phase.Ended() || o.WaitingFor == "" || o.Hint == "" })
}

func operationWaits(f Facts) (all []Finding) {
	for _, o := range f.waiting() {
		of := cmp.Or(o.OldNodeID, o.NewNodeID)
		if o.OldNodeID != "" && o.NewNodeID != "" {
			of = o.OldNodeID + " by " + o.NewNodeID
		}
		all = append(all, finding(Warning, fmt.Sprintf("the %s of %s does not go on", o.Kind, of), o.WaitingFor, o.Hint)...)
	}
	return all
}

// lagMax is how many entries a member may be behind.
const lagMax = 10_000

func lags(f Facts) (all []Finding) {
	for _, m := range f.members() {
		held := max(m.Match, m.Applied)
		commit := f.Cluster.View.Commit
		switch {
		case m.Role == "unreachable" || m.Member.Type == messages.MemberType_LEARNER:
		case m.SnapshotNeeded:
			all = append(all, finding(Warning, m.Member.Name+" has fallen so far behind that it needs a snapshot", "it was away, or its disk is too slow",
				"it gets one by itself; if this comes again and again, its disk or network is too slow: kvctl status --watch")...)
		case held > 0 && commit > held+lagMax:
			all = append(all, finding(Warning, fmt.Sprintf("%s is %d entries behind", m.Member.Name, commit-held), "its disk or network is slower than the others'", "look at its disk; kvctl status --watch shows whether it catches up")...)
		}
	}
	return all
}

func keys(f Facts) (all []Finding) {
	for _, n := range f.answered() {
		if issue := transport.KeysIssue(n.Status.Keys, f.Now); issue != "" {
			all = append(all, finding(Warning, n.title()+": "+issue, "", "kvctl cert list, and kvctl cert rotate-ca --help")...)
		}
	}
	return all
}

// backups are jobs that make none, or none in time.
func backups(f Facts) (all []Finding) {
	if f.Cluster == nil {
		return nil
	}
	for _, b := range f.Cluster.Health(nil).Backups {
		every := client.Ago(time.Duration(b.EveryMs) * time.Millisecond)
		switch b.State() {
		case client.BackupOverdue:
			why := "the process that makes them does not run, or does not reach the cluster"
			if b.Error != "" {
				why = "the last try failed: " + b.Error
			}
			all = append(all, finding(Warning, fmt.Sprintf("the backup to %s is too old: one is to be made every %s; %s", b.Name, every, b.Last()), why,
				"start it again: kvctl backup --every "+(time.Duration(b.EveryMs)*time.Millisecond).String()+" PATH; if it is over for good: kvctl backup forget "+b.Name)...)
		case client.BackupFailed:
			all = append(all, finding(Warning, fmt.Sprintf("the last backup to %s failed; %s", b.Name, b.Last()), b.Error, "mend that: the process tries again by itself")...)
		}
	}
	return all
}

// clockMax is by how much a clock may be apart from the others' without a word.
const clockMax = 2 * time.Second

// clocks finds nodes whose time is not the others': that of most, or of one more where there are two. How
// long an answer took is how much is not known of when the clock was read.
func clocks(f Facts) (all []Finding) {
	type clock struct {
		node    Node
		ahead   time.Duration // of who asks, in the middle of what may be
		unknown time.Duration
	}
	var read []clock
	for _, n := range f.answered() {
		if n.Status.WallMs > 0 {
			half := n.Heard.Sub(n.Asked) / 2
			read = append(read, clock{n, time.UnixMilli(n.Status.WallMs).Sub(n.Asked.Add(half)), half})
		}
	}
	if len(read) < 2 {
		return nil
	}
	slices.SortFunc(read, func(a, b clock) int { return cmp.Compare(a.ahead, b.ahead) })
	middle := read[(len(read)-1)/2]
	for _, c := range read {
		apart := (c.ahead - middle.ahead).Abs()
		if apart-c.unknown-middle.unknown <= clockMax {
			continue
		}
		where := "ahead of"
		if c.ahead < middle.ahead {
			where = "behind"
		}
		all = append(all, finding(Warning, fmt.Sprintf("the clock of %s is %v %s that of %s", c.node.title(), apart.Round(time.Second), where, middle.node.title()),
			"nothing is decided by it but whether certificates and tokens are good; times in logs, of backups and of operations do not fit together",
			"look at the time service of that machine: timedatectl, chronyc tracking")...)
	}
	return all
}

// slow is from where on a linearizable read is slow.
const slow = 500 * time.Millisecond

func slowRead(f Facts) []Finding {
	if f.Read != nil || f.Took < slow {
		return nil
	}
	return finding(Warning, fmt.Sprintf("a linearizable read took %v", f.Took.Round(time.Millisecond)), "the leader, or a quorum's network, is slow: it waits for a round of heartbeats",
		"look at the CPU of the nodes, and at keyval_log_sync_seconds of each")
}

// A log is slow if it takes so long to be durable, and so many times as long as every other, so
// often that it is no hiccup.
const (
	slowSync      = 50 * time.Millisecond
	slowSyncTimes = 8
	slowSyncShare = 0.95
	slowSyncLeast = 50 // times that a log was made durable lately
)

// slowDisk finds one whose log is much slower than the others', which a quorum hides.
func slowDisk(f Facts) (all []Finding) {
	type disk struct {
		node        Node
		mostly, p99 time.Duration
	}
	var disks []disk
	for _, n := range f.answered() {
		if t := n.Status.GetVitals().Timing("log_sync"); messages.Events(t.GetRecent()) >= slowSyncLeast {
			disks = append(disks, disk{node: n, mostly: t.Quantile(t.Recent, slowSyncShare), p99: t.Quantile(t.Recent, 0.99)})
		}
	}
	for _, d := range disks {
		mostly, p99 := time.Duration(0), time.Duration(0)
		for _, other := range disks {
			if other.node.Endpoint != d.node.Endpoint {
				mostly, p99 = max(mostly, other.mostly), max(p99, other.p99)
			}
		}
		if len(disks) < 2 || d.mostly < slowSync || d.mostly < slowSyncTimes*mostly {
			continue
		}
		name, others := d.node.title(), "the others'"
		if len(disks) == 2 {
			others = "the other's"
		}
		u, cause := Warning, "puts do not wait for it now, since the others are a quorum; they will when one of those is lost"
		if b := f.budget(); b != nil && b.Slack == 0 {
			u, cause = Danger, "no quorum is without it, so every put waits for it"
		}
		all = append(all, finding(u, fmt.Sprintf("the disk of %s is slow: p99 of its log's fsync is %v, and %v at most of %s", name, d.p99.Round(time.Millisecond), p99.Round(time.Millisecond), others), cause,
			fmt.Sprintf("look at that disk, and at what else uses it: iostat -x 1 there; kvctl cluster replace %s NEW HOST:PORT moves it to another machine", name))...)
	}
	return all
}

func mixedVersions(f Facts) []Finding {
	by := map[string][]string{}
	for _, n := range f.answered() {
		by[n.Status.Version] = append(by[n.Status.Version], n.title())
	}
	if len(by) < 2 {
		return nil
	}
	var versions []string
	for v, nodes := range by {
		versions = append(versions, v+" on "+strings.Join(nodes, ", "))
	}
	slices.Sort(versions)
	return finding(Note, "nodes run different versions", strings.Join(versions, "; "), "kvctl cluster upgrade --check says what is next")
}

func levelBehind(f Facts) []Finding {
	answered := f.answered()
	if len(answered) == 0 || len(answered) < len(f.members()) {
		return nil
	}
	level, all := answered[0].Status.Level, answered[0].Status.LevelMax
	for _, n := range answered {
		level, all = max(level, n.Status.Level), min(all, n.Status.LevelMax)
	}
	if all <= level {
		return nil
	}
	return finding(Note, fmt.Sprintf("the cluster works at level %d, and all nodes support %d", level, all), "what is new above it is not used", "kvctl cluster level raise")
}

func (f Facts) voters() (all []*messages.Member) {
	for _, m := range f.members() {
		if m.Member.Type == messages.MemberType_VOTER {
			all = append(all, m.Member)
		}
	}
	return all
}

func evenVoters(f Facts) []Finding {
	n := len(f.voters())
	if n == 0 || n%2 == 1 {
		return nil
	}
	return finding(Note, fmt.Sprintf("there are %d voters", n), fmt.Sprintf("%d survive as many losses, and each write needs fewer of them", n-1), "kvctl cluster add one more, or remove one")
}

// oneMachine finds voters that share a host: they are lost together.
func oneMachine(f Facts) []Finding {
	by := map[string][]string{}
	for _, m := range f.voters() {
		if host, _, err := net.SplitHostPort(m.Address); err == nil {
			by[host] = append(by[host], m.Name)
		}
	}
	var shared []string
	for host, names := range by {
		if ip := net.ParseIP(host); len(names) > 1 && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			shared = append(shared, strings.Join(names, " and ")+" run on "+host)
		}
	}
	if len(shared) == 0 {
		return nil
	}
	slices.Sort(shared)
	return finding(Note, strings.Join(shared, "; "), "what takes that machine away takes them all away", "kvctl cluster replace one of them by a node on another machine")
}

func forgottenLearner(f Facts) (all []Finding) {
	for _, m := range f.members() {
		if m.Member.Type != messages.MemberType_LEARNER || !m.Ready || slices.ContainsFunc(f.Cluster.Operations(), func(o *client.ReplaceNodeStatus) bool {
			return !o.Phase.Ended() && o.NewNodeID == m.Member.Name
		}) {
			continue
		}
		all = append(all, finding(Note, m.Member.Name+" is a learner, and could vote", "", "kvctl cluster promote "+m.Member.Name)...)
	}
	return all
}

func waitsToBeAdded(f Facts) (all []Finding) {
	if f.Cluster == nil {
		return nil
	}
	for _, w := range f.Cluster.GetView().GetWaiting() {
		all = append(all, finding(Note, fmt.Sprintf("%s at %s waits to be added", w.Name, w.Address), "", fmt.Sprintf("kvctl cluster add %s %s", w.Name, w.Address))...)
	}
	return all
}

package inside

import (
	"context"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"keyval/actors/client"
	"keyval/messages"
)

// collector is what a node says of itself and of its cluster, as gauges. They are asked for
// when somebody reads the metrics; nothing counts them meanwhile.
type collector struct{ source *source }

// gauge is a metric that facts give.
type gauge struct {
	desc *prometheus.Desc
	of   func(facts, func(value float64, labels ...string))
}

func newGauge(name, help string, of func(facts, func(float64, ...string)), labels ...string) gauge {
	return gauge{prometheus.NewDesc(name, help, labels, nil), of}
}

// own is a gauge of the node's status.
func own(name, help string, of func(*messages.StatusReply) float64) gauge {
	return newGauge(name, help, func(f facts, say func(float64, ...string)) { say(of(f.status)) })
}

// ofMembers is a gauge of each member, as far as it is known.
func ofMembers(name, help string, of func(*messages.MemberView, facts) (float64, bool)) gauge {
	return newGauge(name, help, func(f facts, say func(float64, ...string)) {
		for _, m := range f.cluster.GetView().GetMembers() {
			if v, known := of(m, f); known {
				say(v, m.Member.Name)
			}
		}
	}, "member")
}

var gauges = []gauge{
	own("keyval_has_leader", "1 if this node knows a leader.", func(s *messages.StatusReply) float64 { return one(s.Leader.GetRaftId() != 0) }),
	own("keyval_is_leader", "1 if this node leads.", func(s *messages.StatusReply) float64 { return one(s.Role == "leader") }),
	own("keyval_term", "Raft's term.", func(s *messages.StatusReply) float64 { return float64(s.Term) }),
	own("keyval_committed_index", "Entries up to here are committed.", func(s *messages.StatusReply) float64 { return float64(s.Commit) }),
	own("keyval_applied_index", "Entries up to here are applied on this node.", func(s *messages.StatusReply) float64 { return float64(s.Applied) }),
	own("keyval_revision", "The newest revision that this node has applied.", func(s *messages.StatusReply) float64 { return float64(s.Revision) }),
	own("keyval_compacted_revision", "Reads below this revision are refused.", func(s *messages.StatusReply) float64 { return float64(s.CompactedRevision) }),
	own("keyval_log_bytes", "Bytes of the entries that the log keeps.", func(s *messages.StatusReply) float64 { return float64(s.LogBytes) }),
	own("keyval_log_entries", "Entries that the log keeps.", func(s *messages.StatusReply) float64 {
		return float64(s.LastIndex + 1 - min(s.LastIndex+1, s.LogFirstIndex))
	}),
	own("keyval_checkpoint_index", "The last durable checkpoint is of this index.", func(s *messages.StatusReply) float64 { return float64(s.CheckpointIndex) }),
	own("keyval_uncommitted_entries", "Entries of this node's log that are not committed, as far as it knows; on the leader: proposals under way.", func(s *messages.StatusReply) float64 {
		return float64(s.LastIndex - min(s.LastIndex, s.Commit))
	}),
	own("keyval_history_revisions", "Revisions that can be read: the newest and those before it that were not given up.", func(s *messages.StatusReply) float64 {
		return float64(s.Revision - min(s.Revision, s.CompactedRevision))
	}),
	own("keyval_certificate_expires_timestamp_seconds", "When the first of this node's certificate and authorities expires, since 1970; 0: it has no keys.", func(s *messages.StatusReply) float64 {
		return float64(s.Keys.GetExpiresMs()) / 1000
	}),
	own("keyval_room_bytes", "Bytes that are free on this node's disk.", func(s *messages.StatusReply) float64 { return float64(s.RoomBytes) }),
	own("keyval_lacks_room", "1 if this node has too little room: of bytes, files or descriptors.", func(s *messages.StatusReply) float64 { return one(s.Lacks != "") }),
	own("keyval_writes_refused", "1 if the cluster refuses writes that need room.", func(s *messages.StatusReply) float64 { return one(s.WritesRefused != "") }),
	own("keyval_cluster_level", "The level of the cluster, as applied here.", func(s *messages.StatusReply) float64 { return float64(s.Level) }),
	newGauge("keyval_build_info", "1; its labels say what runs.", func(f facts, say func(float64, ...string)) {
		say(1, f.status.Version, strconv.Itoa(int(f.status.LevelMax)))
	}, "version", "level"),
	newGauge("keyval_members", "Members of the cluster.", func(f facts, say func(float64, ...string)) {
		counts := map[messages.MemberType]int{}
		for _, m := range f.cluster.GetView().GetMembers() {
			counts[m.Member.Type]++
		}
		for t, name := range messages.MemberType_name {
			say(float64(counts[messages.MemberType(t)]), strings.ToLower(name))
		}
	}, "type"),
	newGauge("keyval_quorum_available", "1 if a quorum of the voters is in contact with the leader.", func(f facts, say func(float64, ...string)) {
		say(one(f.cluster.Before.GetAvailable()))
	}),
	newGauge("keyval_fault_budget", "So many further voters may be lost, whichever they are; -1: writes have stopped, or the leader has not said.", func(f facts, say func(float64, ...string)) {
		if b := f.cluster.Before; b == nil || !b.Available {
			say(-1)
		} else {
			say(float64(b.Slack))
		}
	}),
	ofMembers("keyval_member_reachable", "1 if the leader is in contact with the member.", func(m *messages.MemberView, _ facts) (float64, bool) {
		return one(m.Role != "unreachable"), m.ContactKnown
	}),
	ofMembers("keyval_member_silent_seconds", "Time since the leader heard of the member last.", func(m *messages.MemberView, _ facts) (float64, bool) {
		return float64(m.SilentMs) / 1000, m.ContactKnown
	}),
	ofMembers("keyval_member_lag_entries", "Committed entries that the member has yet to hold.", func(m *messages.MemberView, f facts) (float64, bool) {
		held := max(m.Match, m.Applied)
		return float64(f.cluster.View.Commit - min(f.cluster.View.Commit, held)), held > 0
	}),
	ofMembers("keyval_member_eta_seconds", "Time until the member has caught up, as the leader expects; 0: it has, or nobody knows.", func(m *messages.MemberView, _ facts) (float64, bool) {
		return float64(m.EtaMs) / 1000, true
	}),
	ofMembers("keyval_member_snapshot_needed", "1 if the log lacks what the member needs, so that it gets a snapshot.", func(m *messages.MemberView, _ facts) (float64, bool) {
		return one(m.SnapshotNeeded), true
	}),
	newGauge("keyval_operations", "Operations of members that are under way, by what they do now.", func(f facts, say func(float64, ...string)) {
		counts := map[[2]int32]int{}
		for _, o := range f.cluster.GetView().GetOperations() {
			counts[[2]int32{int32(o.Kind), int32(o.Phase)}]++
		}
		for kind := int32(messages.OperationKind_ADD); kind <= int32(messages.OperationKind_REPLACE); kind++ {
			for phase := int32(messages.OperationPhase_ADD_LEARNER); phase < int32(messages.OperationPhase_COMPLETE); phase++ {
				say(float64(counts[[2]int32{kind, phase}]), strings.ToLower(messages.OperationKind_name[kind]), strings.ToLower(messages.OperationPhase_name[phase]))
			}
		}
	}, "kind", "phase"),
	newGauge("keyval_operations_blocked", "Operations of members that wait, by what they wait for; most go on by themselves.", func(f facts, say func(float64, ...string)) {
		counts := map[messages.WaitReason]int{}
		for _, w := range f.cluster.GetView().GetWaits() {
			counts[w.Reason]++
		}
		for reason := messages.WaitReason_UNSETTLED; int(reason) < len(messages.WaitReason_name); reason++ {
			say(float64(counts[reason]), strings.ToLower(reason.String()))
		}
	}, "reason"),
	newGauge("keyval_operations_waiting", "Operations of members that wait for something that somebody must do.", func(f facts, say func(float64, ...string)) {
		n := 0
		for _, w := range f.cluster.GetView().GetWaits() {
			n += int(one(w.Hint != ""))
		}
		say(float64(n))
	}),
	newGauge("keyval_backup_verified_timestamp_seconds", "When a process that makes backups has verified the newest, since 1970; 0: none ever did.", func(f facts, say func(float64, ...string)) {
		newest := int64(0)
		for _, b := range f.cluster.GetView().GetBackups() {
			newest = max(newest, b.VerifiedAtMs)
		}
		say(float64(newest) / 1000)
	}),
	newGauge("keyval_backup_jobs", "Processes that make backups, by whether the last verified one is as new as is meant, or the last try failed.", func(f facts, say func(float64, ...string)) {
		counts := map[string]int{}
		for _, b := range f.cluster.Health(nil).Backups {
			counts[b.State()]++
		}
		for _, s := range []string{client.BackupFresh, client.BackupFailed, client.BackupOverdue} {
			say(float64(counts[s]), s)
		}
	}, "state"),
	newGauge("keyval_snapshot_transfers", "Snapshots on their way to or from this node.", func(f facts, say func(float64, ...string)) {
		counts := map[bool]int{}
		for _, t := range f.status.Transfers {
			counts[t.Incoming]++
		}
		say(float64(counts[true]), "in")
		say(float64(counts[false]), "out")
	}, "direction"),
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

var up = prometheus.NewDesc("keyval_up", "1 if the node answers; 0: it starts, waits to be added, or is stuck.", nil, nil)

func (c collector) Describe(to chan<- *prometheus.Desc) {
	to <- up
	for _, g := range gauges {
		to <- g.desc
	}
}

func (c collector) Collect(to chan<- prometheus.Metric) {
	f := c.source.ask(context.Background())
	to <- prometheus.MustNewConstMetric(up, prometheus.GaugeValue, one(f.status != nil))
	if f.status == nil {
		return
	}
	for _, g := range gauges {
		g.of(f, func(value float64, labels ...string) {
			to <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, value, labels...)
		})
	}
}

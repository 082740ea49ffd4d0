package main

// ruleFile is a file of rules, as Prometheus reads it.
type ruleFile struct {
	Groups []ruleGroup `yaml:"groups"`
}

type ruleGroup struct {
	Name  string `yaml:"name"`
	Rules []rule `yaml:"rules"`
}

type rule struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for,omitempty"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

// Severities: page wakes somebody, ticket can wait for the morning.
const (
	page   = "page"
	ticket = "ticket"
)

func alert(name, severity, forHow, expr, summary, next string) rule {
	return rule{name, expr, forHow, map[string]string{"severity": severity}, map[string]string{"summary": summary, "next": next}}
}

// groups are all alerts. A cluster's nodes share the label job; what each of them knows of the
// cluster counts once, by the most hopeful of them: one that is cut off knows less.
func groups() ruleFile {
	return ruleFile{[]ruleGroup{{"keyval", []rule{
		alert("KeyValNoLeader", page, "15s", `max by (job) (keyval_has_leader) == 0`,
			"no node of {{ $labels.job }} knows a leader: no writes and no linearizable reads",
			"kvctl cluster health says how many members are missing; start them"),
		alert("KeyValWritesStopped", page, "30s", `max by (job) (keyval_fault_budget) == -1`,
			"no quorum of {{ $labels.job }} is in contact",
			"kvctl status says which members do not answer; start them"),
		alert("KeyValBudgetSpent", page, "2m", `max by (job) (keyval_fault_budget) == 0 and max by (job) (keyval_members{type="voter"}) > 2`,
			"the loss of one more voter of {{ $labels.job }} stops writes",
			"kvctl cluster health names who is missing: start it again, or kvctl cluster replace it"),
		alert("KeyValNodeDown", page, "2m", `up{job=~".*keyval.*"} == 0`,
			"{{ $labels.instance }} does not answer at its metrics' address",
			"look at the node's log and start it; if its machine is gone, kvctl cluster replace"),
		alert("KeyValNotServing", page, "5m", `keyval_up == 0`,
			"{{ $labels.instance }} runs and serves nobody",
			"its log says what it waits for: other founders, being added, or a disk that hangs"),
		alert("KeyValMemberUnreachable", ticket, "2m", `min by (job, member) (keyval_member_reachable) == 0`,
			"the leader of {{ $labels.job }} is out of contact with {{ $labels.member }}",
			"kvctl cluster member {{ $labels.member }}; start it, or kvctl cluster replace it"),
		alert("KeyValMemberLags", ticket, "5m", `max by (job, member) (keyval_member_lag_entries) > 10000`,
			"{{ $labels.member }} of {{ $labels.job }} lags {{ $value }} entries behind",
			"compare keyval_log_sync_seconds of the nodes: its disk may be slow"),
		alert("KeyValSnapshotAgain", ticket, "", `increase(keyval_snapshots_installed_total[30m]) > 3`,
			"{{ $labels.instance }} needs snapshot after snapshot: it falls behind what the logs keep",
			"its disk or its network is too slow for the writes that come"),
		alert("KeyValLeaderFlaps", ticket, "", `max by (job) (increase(keyval_raft_leader_changes_total[10m])) > 3`,
			"leaders of {{ $labels.job }} do not last: {{ $value | humanize }} changes in 10 minutes",
			"look for nodes without CPU, with slow disks, or behind a bad network"),
		alert("KeyValSlowDisk", ticket, "5m", `histogram_quantile(0.99, sum by (job, instance, le) (rate(keyval_log_sync_seconds_bucket[5m]))) > 0.25`,
			"one of a hundred syncs of the log of {{ $labels.instance }} takes {{ $value | humanizeDuration }}",
			"every put waits for a quorum of these: move the node, or what else uses its disk"),
		alert("KeyValRoomLow", page, "1m", `keyval_lacks_room == 1`,
			"{{ $labels.instance }} has too little room",
			"kvctl status says of what; make room on that disk, or kvctl cluster replace the node"),
		alert("KeyValWritesRefused", page, "", `max by (job) (keyval_writes_refused) == 1`,
			"{{ $labels.job }} refuses writes that need room",
			"make room on the nodes that KeyValRoomLow names; deletions and reads go on"),
		alert("KeyValMembersDiffer", page, "", `increase(keyval_audit_differences_total[15m]) > 0`,
			"members of {{ $labels.job }} hold different rows: a disk altered or lost something",
			"kvctl verify, and the log of the node that condemned itself: replace that one"),
		alert("KeyValCertificateExpires", ticket, "5m", `keyval_certificate_expires_timestamp_seconds - time() < 30 * 86400 and keyval_certificate_expires_timestamp_seconds > 0`,
			"a certificate or an authority of {{ $labels.instance }} expires in {{ $value | humanizeDuration }}",
			"kvctl cert check says which; make it anew and copy it to the machine: the node takes it by itself"),
		alert("KeyValBackupOld", ticket, "5m", `max by (job) (keyval_backup_jobs{state="overdue"}) > 0`,
			"the newest verified backup of {{ $labels.job }} is older than twice what is meant",
			"kvctl cluster health says which and why; start kvctl backup --every again, or kvctl backup forget it"),
		alert("KeyValBackupFails", ticket, "1h", `max by (job) (keyval_backup_jobs{state="failed"}) > 0`,
			"the last backup of {{ $labels.job }} failed, and none has succeeded since",
			"kvctl cluster health says which and why"),
		alert("KeyValOperationStuck", ticket, "10m", `max by (job) (keyval_operations_waiting) > 0`,
			"a change of the members of {{ $labels.job }} waits for somebody",
			"kvctl ops ls says for what"),
		alert("KeyValVersionsMixed", ticket, "1d", `count by (job) (count by (job, version) (keyval_build_info)) > 1`,
			"nodes of {{ $labels.job }} run different versions for a day",
			"kvctl cluster upgrade --check says which, and what is next"),
		alert("KeyValEvenVoters", ticket, "1h", `max by (job) (keyval_members{type="voter"}) % 2 == 0`,
			"{{ $labels.job }} has {{ $value }} voters: one more would survive no less, and one fewer no more",
			"kvctl cluster add or kvctl cluster remove one"),
		alert("KeyValActorFailed", ticket, "", `increase(keyval_actor_failures_total[10m]) > 0`,
			"the actor {{ $labels.actor }} of {{ $labels.instance }} failed, and the node went on",
			"it is a defect: report it with the log"),
	}}}}
}

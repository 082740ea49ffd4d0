package main

import (
	"fmt"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// query is a line of a panel.
type query struct{ expr, legend string }

// of is a metric of the nodes that the dashboard shows.
func of(metric string) string { return metric + `{job="$job", instance=~"$instance"}` }

// ofCluster is one of all nodes of the cluster: the most hopeful of them knows most.
func ofCluster(metric string) string { return fmt.Sprintf(`max(%s{job="$job"})`, metric) }

func each(metric string) query { return query{of(metric), "{{instance}}"} }
func rate(metric string) query {
	return query{fmt.Sprintf("rate(%s[$__rate_interval])", of(metric)), "{{instance}}"}
}

// quantile is of a histogram, for each instance.
func quantile(q float64, histogram, by string) query {
	return query{fmt.Sprintf("histogram_quantile(%g, sum by (%s, le) (rate(%s[$__rate_interval])))", q, by, of(histogram+"_bucket")), "{{" + by + "}}" + fmt.Sprintf(" p%g", 100*q)}
}

func source() common.DataSourceRef {
	return common.DataSourceRef{Type: cog.ToPtr("prometheus"), Uid: cog.ToPtr("$datasource")}
}

func targets(queries []query) (all []cog.Builder[variants.Dataquery]) {
	for i, q := range queries {
		all = append(all, prometheus.NewDataqueryBuilder().Expr(q.expr).LegendFormat(q.legend).RefId(string(rune('A'+i))))
	}
	return all
}

func lines(title, unit, says string, queries ...query) *timeseries.PanelBuilder {
	return timeseries.NewPanelBuilder().Title(title).Description(says).Unit(unit).Min(0).Datasource(source()).
		Span(8).Height(7).FillOpacity(8).Targets(targets(queries))
}

// number is one value, in colours from good to bad.
func number(title, says string, q query, steps ...dashboard.Threshold) *stat.PanelBuilder {
	return stat.NewPanelBuilder().Title(title).Description(says).Datasource(source()).Span(4).Height(4).
		Thresholds(dashboard.NewThresholdsConfigBuilder().Mode(dashboard.ThresholdsModeAbsolute).Steps(steps)).
		Targets(targets([]query{q}))
}

func from(value float64, color string) dashboard.Threshold {
	return dashboard.Threshold{Value: &value, Color: color}
}

func below(color string) dashboard.Threshold { return dashboard.Threshold{Color: color} }

func variables(b *dashboard.DashboardBuilder) *dashboard.DashboardBuilder {
	ask := func(name, label, query string) *dashboard.QueryVariableBuilder {
		return dashboard.NewQueryVariableBuilder(name).Label(label).Datasource(source()).Query(dashboard.StringOrMap{String: &query}).
			Refresh(dashboard.VariableRefreshOnTimeRangeChanged)
	}
	return b.WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").Label("source").Type("prometheus")).
		WithVariable(ask("job", "cluster", "label_values(keyval_up, job)")).
		WithVariable(ask("instance", "node", `label_values(keyval_up{job="$job"}, instance)`).Multi(true).IncludeAll(true))
}

// board is the dashboard: from whether all is well to why it may not be.
func board() (dashboard.Dashboard, error) {
	b := variables(dashboard.NewDashboardBuilder("KeyVal").Uid("keyval").Tags([]string{"keyval"}).
		Refresh("10s").Time("now-30m", "now").Tooltip(dashboard.DashboardCursorSyncCrosshair))
	for _, add := range []func(*dashboard.DashboardBuilder){wellness, latency, replication, disk, membership, process} {
		add(b)
	}
	return b.Build()
}

func wellness(b *dashboard.DashboardBuilder) {
	b.WithRow(dashboard.NewRowBuilder("Is it well?")).
		WithPanel(number("Leader", "1: somebody leads", query{ofCluster("keyval_has_leader"), ""}, below("red"), from(1, "green"))).
		WithPanel(number("Fault budget", "so many voters may be lost; -1: writes have stopped", query{ofCluster("keyval_fault_budget"), ""}, below("red"), from(0, "orange"), from(1, "green"))).
		WithPanel(number("Voters", "members that vote", query{`max(keyval_members{job="$job",type="voter"})`, ""}, below("blue"))).
		WithPanel(number("Unreachable", "members that the leader is out of contact with", query{`count(min by (member) (keyval_member_reachable{job="$job"}) == 0) or vector(0)`, ""}, below("green"), from(1, "red"))).
		WithPanel(number("Writes refused", "1: too little room somewhere", query{ofCluster("keyval_writes_refused"), ""}, below("green"), from(1, "red"))).
		WithPanel(number("Operations", "changes of members under way", query{`max(sum by (instance) (keyval_operations{job="$job"}))`, ""}, below("blue")))
}

func latency(b *dashboard.DashboardBuilder) {
	b.WithRow(dashboard.NewRowBuilder("Clients")).
		WithPanel(lines("Requests", "reqps", "answered by all nodes, by what was asked for",
			query{fmt.Sprintf("sum by (operation) (rate(%s[$__rate_interval]))", of("keyval_requests_total")), "{{operation}}"})).
		WithPanel(lines("Time of a request", "s", "on the node, from its arrival to the answer", quantile(0.5, "keyval_request_seconds", "operation"), quantile(0.99, "keyval_request_seconds", "operation"))).
		WithPanel(lines("Clients and sessions", "short", "clients at each node; sessions that the cluster remembers", each("keyval_clients"), query{ofCluster("keyval_sessions"), "sessions"})).
		WithPanel(lines("Linearizable reads", "s", "p99 until a batch's index is confirmed", quantile(0.99, "keyval_read_index_seconds", "instance"))).
		WithPanel(lines("Answers that are no success", "reqps", "by code",
			query{`sum by (code) (rate(keyval_requests_total{job="$job", instance=~"$instance", code!~"OK|NOT_FOUND"}[$__rate_interval]))`, "{{code}}"}))
}

func replication(b *dashboard.DashboardBuilder) {
	b.WithRow(dashboard.NewRowBuilder("Replication")).
		WithPanel(lines("Applied", "ops", "entries a second", rate("keyval_machine_applied_entries_total"))).
		WithPanel(lines("Lag", "short", "committed entries that a member has yet to hold", query{`max by (member) (keyval_member_lag_entries{job="$job"})`, "{{member}}"})).
		WithPanel(lines("Round trip", "s", "the shortest to each member in 5 minutes, the network alone", query{of("keyval_member_round_trip_seconds") + " > 0", "{{instance}} to {{member}}"})).
		WithPanel(lines("Leaders and elections", "short", "in 5 minutes",
			query{fmt.Sprintf("increase(%s[5m])", of("keyval_raft_leader_changes_total")), "{{instance}} leaders"},
			query{fmt.Sprintf("increase(%s[5m])", of("keyval_raft_elections_started_total")), "{{instance}} elections"})).
		WithPanel(lines("Under way", "short", "entries of each log that are not committed; reads that wait", each("keyval_uncommitted_entries"), query{of("keyval_reads_queued"), "{{instance}} reads"})).
		WithPanel(lines("Proposals refused", "ops", "BUSY: more comes in than goes out",
			query{fmt.Sprintf("sum by (code) (rate(%s[$__rate_interval]))", of("keyval_raft_proposals_refused_total")), "{{code}}"})).
		WithPanel(lines("Snapshots", "Bps", "sent and received", rate("keyval_snapshot_sent_bytes_total"), rate("keyval_snapshot_received_bytes_total"))).
		WithPanel(lines("Audits", "short", "times that all keys were compared, in an hour", query{fmt.Sprintf("increase(%s[1h])", of("keyval_audit_rounds_total")), "{{instance}}"})).
		WithPanel(lines("Differences found", "short", "by the audit, in an hour", query{fmt.Sprintf("increase(%s[1h])", of("keyval_audit_differences_total")), "{{instance}}"}))
}

func disk(b *dashboard.DashboardBuilder) {
	b.WithRow(dashboard.NewRowBuilder("Disks")).
		WithPanel(lines("Sync of the log", "s", "every put waits for one of these on a quorum", quantile(0.5, "keyval_log_sync_seconds", "instance"), quantile(0.99, "keyval_log_sync_seconds", "instance"))).
		WithPanel(lines("Apply", "s", "of committed entries that came together", quantile(0.5, "keyval_apply_seconds", "instance"), quantile(0.99, "keyval_apply_seconds", "instance"))).
		WithPanel(lines("Log written", "Bps", "", rate("keyval_log_appended_bytes_total"))).
		WithPanel(lines("Room", "bytes", "free on each node's disk", each("keyval_room_bytes"))).
		WithPanel(lines("Data directory", "bytes", "what it takes of the disk", query{fmt.Sprintf("sum by (part) (%s)", of("keyval_data_bytes")), "{{part}}"})).
		WithPanel(lines("Log kept", "bytes", "of entries", each("keyval_log_bytes"))).
		WithPanel(lines("Checkpoints", "s", "", quantile(0.99, "keyval_checkpoint_seconds", "instance"))).
		WithPanel(lines("Revisions kept", "short", "history that can be read", each("keyval_history_revisions")))
}

func membership(b *dashboard.DashboardBuilder) {
	b.WithRow(dashboard.NewRowBuilder("Members")).
		WithPanel(lines("Members", "short", "by type", query{`max by (type) (keyval_members{job="$job"})`, "{{type}}"})).
		WithPanel(lines("Last heard of", "s", "by the leader", query{`min by (member) (keyval_member_silent_seconds{job="$job"})`, "{{member}}"})).
		WithPanel(lines("Operations", "short", "by what they do now", query{`max by (kind, phase) (keyval_operations{job="$job"}) > 0`, "{{kind}} {{phase}}"})).
		WithPanel(lines("Operations wait", "short", "by what they wait for", query{`max by (reason) (keyval_operations_blocked{job="$job"}) > 0`, "{{reason}}"})).
		WithPanel(lines("Time of a phase", "s", "p90 in a day", query{`histogram_quantile(0.9, sum by (kind, phase, le) (increase(keyval_operation_phase_seconds_bucket{job="$job"}[1d])))`, "{{kind}} {{phase}}"})).
		WithPanel(lines("Caught up in", "s", "as the leader expects; 0: now", query{`max by (member) (keyval_member_eta_seconds{job="$job"})`, "{{member}}"})).
		WithPanel(lines("Certificates expire in", "s", "the first of each node's", query{"(" + of("keyval_certificate_expires_timestamp_seconds") + " > 0) - time()", "{{instance}}"})).
		WithPanel(lines("Age of the newest backup", "s", "that was verified", query{fmt.Sprintf("time() - (max(%s) > 0)", `keyval_backup_verified_timestamp_seconds{job="$job"}`), "age"}))
}

func process(b *dashboard.DashboardBuilder) {
	b.WithRow(dashboard.NewRowBuilder("Processes")).
		WithPanel(lines("CPU", "percentunit", "of one core", rate("process_cpu_seconds_total"))).
		WithPanel(lines("Memory", "bytes", "resident", each("process_resident_memory_bytes"))).
		WithPanel(lines("Queues", "bytes", "what waits in them", each("keyval_proposals_queued_bytes"), each("keyval_inbox_queued_bytes"),
			query{fmt.Sprintf("sum by (instance) (%s)", of("keyval_link_queued_bytes")), "{{instance}} links"})).
		WithPanel(lines("Descriptors", "short", "open", each("process_open_fds")))
}

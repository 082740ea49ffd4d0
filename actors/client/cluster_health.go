package client

import (
	"encoding/hex"
	"fmt"
	"time"

	"keyval/actors/transport"
	"keyval/membershipactor/rules"
	"keyval/messages"
)

// Beyond these a member is an issue of the cluster's health.
const (
	lagIssueEntries = 10_000
	roomIssueBytes  = 1 << 30
)

// Health judges an answer. read is what became of a linearizable read; nil: it came back in
// time, or nobody asked.
func (a ClusterAnswer) Health(read error) *ClusterHealth {
	members := a.Members()
	h := &ClusterHealth{
		MembersTotal: len(members), QuorumAvailable: a.Before.GetAvailable(), Slack: int(a.Before.GetSlack()), FaultBudget: BudgetText(a.Before),
		Issues: []string{}, Timestamp: a.At.UTC(),
	}
	issue := func(format string, args ...any) { h.Issues = append(h.Issues, fmt.Sprintf(format, args...)) }
	_, leaderless := a.LeaderMember()
	h.LeaderPresent = leaderless == nil
	if !h.LeaderPresent {
		issue("no leader: %s knows of none", a.Node)
	}
	switch {
	case a.Before == nil && h.LeaderPresent:
		issue("%s has had no word from the leader about the others for %v", a.Node, time.Duration(a.GetView().GetPulseAgeMs())*time.Millisecond)
	case a.Before != nil && !a.Before.Available:
		issue("%s", BudgetText(a.Before))
	}
	for i, m := range members {
		if m.RoomBytes > 0 && (h.LeastRoomID == "" || m.RoomBytes < h.LeastRoomBytes) {
			h.LeastRoomID, h.LeastRoomBytes = m.ID, m.RoomBytes
		}
		if why := ail(m, a.View.Members[i], a.At); len(why) > 0 {
			h.Issues = append(h.Issues, why...)
		} else if m.State.inContact() {
			h.MembersHealthy++
		}
	}
	if says := a.GetView().GetHealingSays(); says != "" {
		issue("%s", says)
	}
	h.Backups = []Backup{}
	for _, j := range a.GetView().GetBackups() {
		b := backupOf(j, a.At)
		h.Backups = append(h.Backups, b)
		switch {
		case b.Error != "":
			issue("the backup to %s failed %s ago: %s; %s", b.Name, Ago(a.At.Sub(*b.FailedAt)), b.Error, b.Last())
		case b.Overdue:
			issue("the backup to %s is overdue: one is to be made every %s; %s", b.Name, Ago(time.Duration(b.EveryMs)*time.Millisecond), b.Last())
		}
	}
	if read != nil {
		issue("a linearizable read did not come back: %v", read)
		if !h.LeaderPresent {
			h.QuorumAvailable = false
		}
	}
	h.Healthy = len(h.Issues) == 0
	return h
}

// backupLateMS is for how long a backup that is due may take before it is overdue, beside the
// time between two: one may fail without alarm, and a large one takes a while.
const backupLateMS = 60_000

func backupOf(j *messages.BackupJob, now time.Time) Backup {
	at := func(ms int64) *time.Time {
		if ms == 0 {
			return nil
		}
		t := time.UnixMilli(ms).UTC()
		return &t
	}
	b := Backup{
		Name: j.Name, Backup: j.Backup, VerifiedAt: at(j.VerifiedAtMs), EveryMs: int64(j.EveryMs), Revision: j.Revision, Bytes: j.Bytes,
		Hash: hex.EncodeToString(j.Hash), FailedAt: at(j.FailedAtMs), Error: j.Error,
	}
	if b.VerifiedAt != nil {
		b.AgeMs = max(0, now.UnixMilli()-j.VerifiedAtMs) // its clock may be ahead
		b.Overdue = b.EveryMs > 0 && b.AgeMs > 2*b.EveryMs+backupLateMS
	}
	return b
}

// What State may say.
const (
	BackupFresh   = "fresh"
	BackupFailed  = "failed"
	BackupOverdue = "overdue"
)

// State is how a job does, in one word: overdue, whatever became of the last try; failed, if the
// last try did; else fresh.
func (b Backup) State() string {
	switch {
	case b.Overdue:
		return BackupOverdue
	case b.Error != "":
		return BackupFailed
	}
	return BackupFresh
}

// Last says when the last good backup was made.
func (b Backup) Last() string {
	if b.VerifiedAt == nil {
		return "none was ever verified"
	}
	return fmt.Sprintf("last verified backup %s ago", Ago(time.Duration(b.AgeMs)*time.Millisecond))
}

// Ago is a span of time for people, in one unit.
func Ago(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", max(0, d/time.Second))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}

// ail is what is wrong with a member.
func ail(m *MemberInfo, v *messages.MemberView, now time.Time) []string {
	who := m.ID
	if m.Type == TypeLearner {
		who += " (learner)"
	}
	var issues []string
	issue := func(format string, args ...any) { issues = append(issues, who+fmt.Sprintf(format, args...)) }
	if m.State == stateUnreachable {
		since := ""
		if m.LastContact != nil {
			since = fmt.Sprintf(" for %v", now.Sub(*m.LastContact).Round(10*time.Millisecond))
		}
		issue(" at %s is out of contact%s", m.Address, since)
		return issues
	}
	if why := transport.KeysIssue(v.Keys, now); why != "" {
		issue(" %s", why)
	}
	switch {
	case m.State == stateUnknown || m.Type == TypeLearner: // a learner lags until it has caught up
	case v.SnapshotNeeded:
		issue(" lags so far behind that it needs a snapshot")
	case m.LagEntries > lagIssueEntries:
		issue(" lags %d entries behind", m.LagEntries)
	}
	if m.Lacks != "" {
		issue(" has too little room: %s", m.Lacks)
	} else if m.RoomBytes > 0 && m.RoomBytes < roomIssueBytes {
		issue(" has %d MB of room left on its disk", m.RoomBytes>>20)
	}
	return issues
}

// BudgetText says in one clause who may be lost before writes stop.
func BudgetText(b *messages.FaultBudget) string {
	if b == nil {
		return "not known: the leader has not said who is in contact"
	}
	return rules.Words(b)
}

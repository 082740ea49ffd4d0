package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"keyval/messages"
)

// probe adds a client to every live member, which knows no other: whatever was done
// to it, it serves.
func (r *run) probe() {
	for _, s := range r.servers {
		if s.up() && !s.aged && s.isMember() {
			c := r.customer("probe-" + s.name())
			c.probes = s
			c.startWith([]string{s.listen()}, true)
			c.submit(writing(c.put(c.key())))
			c.submit(&messages.Submit{Cluster: &messages.ClusterRequest{Kind: &messages.ClusterRequest_Query{Query: &messages.ClusterQuery{}}}})
		}
	}
}

// finish reads everything from everywhere, and compares.
func (r *run) finish() {
	if r.world.over() {
		return
	}
	if r.split {
		r.note("the members hold different states, and nobody can tell which is right")
		r.history.close()
		r.history.judge()
		return
	}
	r.probe()
	for _, c := range r.clients {
		c.submit(&messages.Submit{Read: &messages.Read{Kind: &messages.Read_Scan{Scan: &messages.Scan{}}}})
	}
	limit := r.world.clock.now + 2*deadlineMS*time.Millisecond
	for !r.world.over() && !r.converged() {
		if r.world.clock.now >= limit {
			r.world.fail("final reads", "%s", r.outstanding())
			return
		}
		r.world.run(r.world.clock.now + r.swarm.options.TickInterval)
	}
	for _, c := range r.clients {
		if last := r.history.lastOf(c.number); r.world.failure == nil && last.done.Read.GetCode() != messages.Code_OK {
			r.world.fail("final reads", "%s", last)
		}
	}
	for _, op := range r.history.all {
		if s := r.clients[op.client].probes; s != nil && op.submit.Operations != nil && op.done.Write.GetCode() != messages.Code_OK {
			r.world.fail("every live node serves", "%s: %s", s.name(), op)
		} else if s != nil && op.submit.Cluster != nil {
			r.compareMembers(s, op)
		}
	}
	r.measure()
	r.compareEngines()
	r.compareFiles()
	r.countSessions()
	r.history.close()
	r.history.counts()
	if !r.world.over() {
		r.history.judge()
	}
}

// compareEngines holds every live member's rows against the true history.
func (r *run) compareEngines() {
	for _, s := range r.servers {
		if !s.up() || s.rotten() || s.aged || !s.isMember() {
			continue
		}
		rows := s.disk.LiveRows(r.check.model.revision)
		keys := r.check.model.live("", "", r.check.model.revision)
		if len(rows) != len(keys) {
			r.world.fail("engines hold the state", "%s has %d keys, there are %d", s.name(), len(rows), len(keys))
			return
		}
		for i, key := range keys {
			v, _ := r.check.model.get(key, r.check.model.revision)
			if !v.is(key, &rows[i]) {
				r.world.fail("engines hold the state", "%s has %q of revision %d where %q of revision %d belongs",
					s.name(), rows[i].Key, rows[i].Revision, key, v.revision)
				return
			}
		}
	}
}

// measure: a log that was to be cut, and history that was to go, take no more space than
// the options allow, and what came since the last cut and the last checkpoint. (That rows
// are discarded is part of what a run converges to.)
func (r *run) measure() {
	o := r.swarm.options
	// A snapshot that was under way until now has pinned what is behind it, and an operator's last
	// request may have taken the lead away while history was to be given up; logs are looked at every
	// 20 ticks, and history as often.
	for n := 0; n < 20 && (r.uncut() != "" || r.kept() != "") && !r.world.over(); n++ {
		r.world.run(r.world.clock.now + o.TickInterval)
	}
	if what := r.uncut(); what != "" {
		r.world.fail("logs are cut", "%s", what)
	}
	if what := r.kept(); what != "" {
		r.world.fail("history is given up", "%s", what)
	}
}

// kept says how much more history there is than should be, or nothing.
func (r *run) kept() string {
	o := r.swarm.options
	kept, allowed := r.check.model.revision-r.check.model.compacted, o.HistoryRevisions+o.HistoryRevisions/10+entriesSpare
	if o.HistoryRevisions == 0 || kept <= allowed {
		return ""
	}
	return fmt.Sprintf("%d revisions are kept, %d are allowed", kept, allowed)
}

// uncut says which node holds more of its log than it should, or nothing.
func (r *run) uncut() string {
	o := r.swarm.options
	allowed := o.Raft.LogEntriesKeep + o.Raft.LogEntriesMax + 2*o.CheckpointEntries + entriesSpare
	if o.Raft.LogEntriesKeep == 0 || o.CheckpointEntries == 0 {
		return ""
	}
	for _, s := range r.servers {
		if _, last, _ := s.disk.Durable(); s.up() && s.isMember() && last-s.disk.Base() > allowed {
			return fmt.Sprintf("%s holds %d entries, %d are allowed", s.name(), last-s.disk.Base(), allowed)
		}
	}
	return ""
}

// entriesSpare are entries that a log may hold beyond its options: those of requests
// that came together, and of what cuts spare.
const entriesSpare = 200

// compareFiles: a snapshot file is the state of replay.
func (r *run) compareFiles() {
	for _, s := range r.servers {
		for _, id := range s.disk.Files() {
			if s.rotten() || s.spoilt[id] {
				continue
			}
			if what := r.check.reference.fileDiffers(s.disk.File(id)); what != "" {
				r.world.fail("state from snapshot equals state from replay", "file %s of %s: %s", id, s.name(), what)
			}
		}
		if why := s.disk.Condemned(); why != "" && !s.rotten() && !s.aged {
			r.world.fail("sound disks are not condemned", "%s: %s", s.name(), why)
		}
	}
}

// countSessions: no session actor outlives its client's connection. A client has
// one on the node it uses, and one where it was before.
func (r *run) countSessions() {
	for _, s := range r.servers {
		if !s.up() || !s.isMember() {
			continue
		}
		sessions := 0
		for _, bucket := range s.host.system.ProcessRegistry.LocalPIDs.LocalPIDs {
			for _, name := range bucket.Keys() {
				if strings.HasPrefix(name, messages.ActorSessionPrefix) {
					sessions++
				}
			}
		}
		if sessions > 2*len(r.clients) {
			r.world.fail("sessions end with their clients", "%s has %d session actors for %d clients", s.name(), sessions, len(r.clients))
		}
	}
}

// compareMembers: every node tells the same members, and the same end of each operation: those of
// the log.
func (r *run) compareMembers(s *server, op *operation) {
	said := func(m *messages.Member) string {
		return fmt.Sprintf("replica %d: %s at %s, %s", m.GetRaftId(), m.GetName(), m.GetAddress(), m.GetType())
	}
	var told, want []string
	for _, m := range op.done.Cluster.GetView().GetMembers() {
		told = append(told, said(m.Member))
	}
	for _, m := range r.check.reference.state.Members() {
		want = append(want, said(m))
	}
	if !slices.Equal(told, want) {
		r.world.fail("every node tells the same members", "%s: %q, the log has %q", s.name(), told, want)
	}
	outcomes := func(all []*messages.ClusterOperation) (lines []string) {
		for _, o := range all {
			lines = append(lines, fmt.Sprintf("%x %s %s", o.Id[:4], o.Kind, o.Phase))
		}
		return lines
	}
	told, want = outcomes(op.done.Cluster.GetView().GetOperations()), outcomes(r.check.reference.state.Operations())
	if !slices.Equal(told, want) {
		r.world.fail("every node tells one outcome", "%s: %q, the log has %q", s.name(), told, want)
	}
}

package cli

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/client"
)

func newCluster(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:  "cluster",
		Usage: "look at the members, and change them",
		Description: `Any node answers the questions, from memory; what it says of the others is the leader's
word, half a second old. Changes are carried on by the cluster, whatever becomes of kvctl:
see ops.`,
		UsageText: `kvctl cluster members
kvctl cluster add node4 127.0.0.1:7004`,
		Subcommands: []*urfave.Command{
			newClusterInfo(sh), newClusterHealth(sh), newClusterLeader(sh), newClusterMembers(sh), newClusterMember(sh),
			newClusterAdd(sh), newClusterRemove(sh), newClusterPromote(sh), newClusterReplace(sh), newClusterTransfer(sh), newClusterUpdate(sh),
			newClusterToken(sh), newClusterSpare(sh), newClusterAutoreplace(sh), newClusterUpgrade(sh), newLevel(sh), newClusterRecover(sh),
		},
	}
}

func watchFlag() urfave.Flag {
	return &urfave.BoolFlag{Name: "watch", Usage: "look again every second, and show what is new, until Ctrl-C"}
}

// watchEvery is how often --watch looks.
const watchEvery = time.Second

// clusterQuestion is the action of a command that asks one node about the cluster and shows
// the answer.
func (sh *Shell) clusterQuestion(show func(*Call, client.ClusterAnswer) error) urfave.ActionFunc {
	return sh.action(func(c *Call) error {
		return c.withStore(func(ctx context.Context, store Store) error {
			return c.watched(func() error {
				a, err := client.ClusterAPI{ClusterAsker: store}.Query(ctx)
				if err != nil {
					return err
				}
				return show(c, a)
			})
		})
	})
}

// watched shows something once, or with --watch again and again, with what is to be noted beside
// it. Off a terminal only what differs from the last is shown.
func (c *Call) watched(show func() error) error {
	if !c.flags.Bool("watch") {
		return show()
	}
	return c.live(show)
}

// live shows what is new each second until Ctrl-C.
func (c *Call) live(show func() error) error {
	out, notes := c.Stdout, c.Stderr
	defer func() { c.Stdout, c.Stderr = out, notes }()
	look := time.NewTicker(watchEvery)
	defer look.Stop()
	for last := ""; ; {
		var b bytes.Buffer
		if c.Stdout = &b; !c.Format.structured() {
			c.Stderr = &b
		}
		if err := show(); err != nil {
			if _, isQuiet := err.(quiet); !isQuiet {
				problem, _ := explain(err)
				fmt.Fprintf(&b, "%s%s\n", c.warning(), problem.Message)
			}
		}
		if now := b.String(); now != last && c.Err() == nil {
			if c.OutTTY {
				fmt.Fprint(out, "\x1b[H\x1b[2J")
			}
			if _, err := fmt.Fprint(out, now); err != nil {
				return err
			}
			last = now
		}
		select {
		case <-look.C:
		case <-c.Done():
			return nil
		}
	}
}

func newClusterMembers(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:  "members",
		Usage: "list all members, and who waits to be added",
		Description: `SELF is the node that answers. Below the table stands how far learners are, which nodes
wait to be added, and what changes are under way.
With --json an array of id, raft_id, address, type (voter, learner, incoming, outgoing),
state (leader, follower, candidate, learner, unreachable, unknown), is_leader, is_self,
added_at, last_contact, learner_status, version, lag_entries, room_bytes (free on its disk), lacks.`,
		UsageText: `kvctl cluster members
kvctl cluster members --watch`,
		Flags:  []urfave.Flag{watchFlag()},
		Action: sh.clusterQuestion(showMembers),
	}
}

func showMembers(c *Call, a client.ClusterAnswer) error {
	switch c.Format {
	case Table:
		c.banner("Listing cluster members (from %s)...\n", a.Endpoint)
		c.membersTable(a.Members())
		for _, line := range c.asides(a) {
			fmt.Fprintln(c.Stdout, line)
		}
	case Simple:
		var cells [][]string
		for _, m := range a.Members() {
			cells = append(cells, []string{m.ID, m.Address, m.Type, string(m.State)})
		}
		c.printSimple(cells)
	default:
		return printJSONList(c, a.Members())
	}
	return nil
}

func (c *Call) membersTable(members []*client.MemberInfo) {
	var cells [][]string
	for _, m := range members {
		state := titled(string(m.State))
		switch m.State {
		case leading:
			state = c.paint(green, state)
		case unreachable:
			state = c.paint(red, state)
		}
		cells = append(cells, []string{m.ID, m.Address, titled(m.Type), state, checked(m.IsLeader), checked(m.IsSelf)})
	}
	c.printTable([]string{"ID", "ADDRESS", "TYPE", "STATE", "LEADER", "SELF"}, cells)
}

// asides are what there is to say beside the members.
func (c *Call) asides(a client.ClusterAnswer) []string {
	var lines []string
	for _, m := range a.Members() {
		if m.LearnerStatus != nil {
			lines = append(lines, m.ID+": "+learnerText(m.LearnerStatus))
		}
	}
	for _, w := range a.Info().Waiting {
		if w.Refused != "" {
			lines = append(lines, fmt.Sprintf("%s at %s asked to be let in, and is not: %s", w.ID, w.Address, w.Refused))
			continue
		}
		lines = append(lines, fmt.Sprintf("%s waits to be added: %s cluster add %s %s%s", w.ID, c.self(), quoteWord(w.ID), w.Address, c.endpointFlags()))
	}
	for _, o := range a.Operations() {
		if !o.Phase.Ended() {
			lines = append(lines, fmt.Sprintf("under way: %s; follow it: %s ops follow %s%s", operationText(o), c.self(), short(o.ID), c.endpointFlags()))
		}
	}
	if len(lines) > 0 {
		lines = append([]string{""}, lines...)
	}
	return lines
}

// learnerText says how far a learner is.
func learnerText(s *client.LearnerStatus) string {
	if s.Ready {
		return "has caught up, and can be promoted"
	}
	text := catchUpText(s)
	if s.WaitingFor != "" {
		text += "; waiting: " + s.WaitingFor
	}
	return text
}

// catchUpText is what a learner has of all that it is to have.
func catchUpText(s *client.LearnerStatus) string {
	text := fmt.Sprintf("%d of %s", s.MatchIndex, countText(s.LeaderIndex, "entry", "entries"))
	switch {
	case s.SnapshotBytesTotal > 0:
		text = fmt.Sprintf("%s of about %s of a snapshot", bytesText(s.SnapshotBytesDone), bytesText(max(s.SnapshotBytesDone, s.SnapshotBytesTotal)))
	case s.RateEntriesPerS > 0 && s.LagEntries > 0:
		text += fmt.Sprintf(", %d/s", s.RateEntriesPerS)
	}
	if s.ETAMs > 0 {
		text += ", about " + timeText(time.Duration(s.ETAMs)*time.Millisecond) + " left"
	}
	return text
}

func newClusterMember(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:        "member",
		Usage:       "show one member",
		ArgsUsage:   "ID",
		Description: "Exits 3 if no member is called so. With --json an object with the fields of cluster members.",
		UsageText:   "kvctl cluster member node2",
		Flags:       []urfave.Flag{watchFlag()},
		Action: sh.clusterQuestion(func(c *Call, a client.ClusterAnswer) error {
			m, err := a.Member(c.Args[0])
			if err != nil {
				return err
			}
			return c.showMember(m, a)
		}),
	}
}

func (c *Call) showMember(m *client.MemberInfo, a client.ClusterAnswer) error {
	switch c.Format {
	case Table:
		rows := [][2]string{
			{"id", m.ID}, {"raft id", strconv.FormatUint(m.RaftID, 10)}, {"address", m.Address}, {"type", titled(m.Type)}, {"state", titled(string(m.State))},
			{"leader", yesNo(m.IsLeader)}, {"self", yesNo(m.IsSelf)}, {"version", nameOr(m.Version, "not known")},
		}
		if !m.AddedAt.IsZero() {
			rows = append(rows, [2]string{"added", m.AddedAt.Format(time.RFC3339)})
		}
		contact := "not known"
		if m.LastContact != nil {
			contact = timeText(a.At.Sub(*m.LastContact)) + " ago"
		}
		room := "not known"
		if m.RoomBytes > 0 {
			room = bytesText(m.RoomBytes)
		}
		if m.Lacks != "" {
			room += ", too little: " + m.Lacks
		}
		rows = append(rows, [2]string{"last contact", contact}, [2]string{"lag", countText(m.LagEntries, "entry", "entries")}, [2]string{"room", room})
		if m.LearnerStatus != nil {
			rows = append(rows, [2]string{"catch-up", learnerText(m.LearnerStatus)})
		}
		c.printPairs(rows)
	case Simple:
		c.printSimple([][]string{{m.ID, m.Address, m.Type, string(m.State)}})
	default:
		return c.printJSON(m)
	}
	return nil
}

func newClusterLeader(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:        "leader",
		Usage:       "show who leads",
		Description: "Exits 5 if nobody does. With --json an object with the fields of cluster members.",
		UsageText:   "kvctl cluster leader",
		Flags:       []urfave.Flag{watchFlag()},
		Action: sh.clusterQuestion(func(c *Call, a client.ClusterAnswer) error {
			m, err := a.LeaderMember()
			if err != nil {
				return err
			}
			if c.Format == Table {
				_, err := fmt.Fprintf(c.Stdout, "%s at %s leads, in term %d\n", m.ID, m.Address, a.GetView().GetTerm())
				return err
			}
			return c.showMember(m, a)
		}),
	}
}

func newClusterInfo(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:  "info",
		Usage: "show leader, term, configuration, quorum and members",
		Description: `The configuration's index names the members that were seen: a change that is bound to it
is refused if they are others by then.
With --json an object: cluster_id, leader_id, current_term, configuration_index, commit_index,
members, member_count, voter_count, learner_count, quorum, healthy, fault_budget, waiting,
timestamp.`,
		UsageText: `kvctl cluster info
kvctl cluster info --json`,
		Flags: []urfave.Flag{watchFlag()},
		Action: sh.clusterQuestion(func(c *Call, a client.ClusterAnswer) error {
			i := a.Info()
			switch c.Format {
			case Table:
				c.printPairs([][2]string{
					{"leader", nameOr(i.LeaderID, "none is known")}, {"term", strconv.FormatUint(i.CurrentTerm, 10)},
					{"configuration", strconv.FormatUint(i.ConfigurationIndex, 10)}, {"cluster", i.ClusterID},
					{"members", fmt.Sprintf("%d: %s, %s", i.MemberCount, plural(uint64(i.VoterCount), "voter"), plural(uint64(i.LearnerCount), "learner"))},
					{"quorum", strconv.Itoa(i.Quorum)}, {"fault budget", i.FaultBudget}, {"healthy", yesNo(i.Healthy)}, {"said by", a.Node},
				})
				fmt.Fprintln(c.Stdout)
				return showMembers(c, a)
			case Simple:
				c.printSimple([][]string{{nameOr(i.LeaderID, "-"), strconv.FormatUint(i.CurrentTerm, 10), strconv.Itoa(i.VoterCount), strconv.Itoa(i.LearnerCount)}})
				return nil
			default:
				return c.printJSON(i)
			}
		}),
	}
}

func newClusterHealth(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:  "health",
		Usage: "say whether the cluster does its work, and what is not as it should be",
		Description: `Reads linearizably, and asks a node which members are in contact and how far they are
behind. The read has 2 seconds, unless --timeout says otherwise.
Exits 0 if all is well, 9 if something is not, 5 if there is no quorum.
With --json an object: healthy, leader_present, quorum_available, members_healthy,
members_total, slack, least_room_id, least_room_bytes, fault_budget, issues, timestamp, backups (what jobs of kvctl backup --every
have said last: name, backup, verified_at, age_ms, every_ms, revision, bytes, hash, failed_at,
error, overdue).`,
		UsageText: `kvctl cluster health
kvctl cluster health --json`,
		Flags: []urfave.Flag{watchFlag()},
		Action: sh.action(func(c *Call) error {
			patience, err := c.patience()
			if err != nil {
				return err
			}
			return c.withStore(func(ctx context.Context, store Store) error {
				return c.watched(func() error {
					brief, cancel := context.WithTimeout(ctx, patience)
					defer cancel()
					h, err := client.ClusterAPI{ClusterAsker: store}.GetClusterHealth(brief)
					if err != nil {
						return err
					}
					return c.showHealth(h)
				})
			})
		}),
	}
}

func (c *Call) showHealth(h *client.ClusterHealth) error {
	word := "healthy"
	switch {
	case h.Healthy:
	case h.QuorumAvailable:
		word = "degraded"
	default:
		word = "no quorum"
	}
	switch c.Format {
	case Table:
		colour := red
		if h.Healthy {
			colour = green
		}
		fmt.Fprintf(c.Stdout, "%s: %d of %s in contact and up to date\n", c.paint(colour, word), h.MembersHealthy, plural(uint64(h.MembersTotal), "member"))
		fmt.Fprintf(c.Stdout, "fault budget: %s\n", h.FaultBudget)
		for _, issue := range h.Issues {
			fmt.Fprintf(c.Stdout, "- %s\n", issue)
		}
		for _, b := range h.Backups {
			if b.Error == "" && !b.Overdue {
				fmt.Fprintf(c.Stdout, "backups: %s (%s, revision %d, %s)\n", b.Last(), b.Name, b.Revision, bytesText(b.Bytes))
			}
		}
	case Simple:
		c.printSimple([][]string{{word, strconv.Itoa(h.MembersHealthy), strconv.Itoa(h.MembersTotal)}})
	default:
		if err := c.printJSON(h); err != nil {
			return err
		}
	}
	switch {
	case h.Healthy:
		return nil
	case h.QuorumAvailable:
		return quiet(exitDegraded)
	case !c.Format.structured():
		if what := c.trouble(c); what != nil {
			c.note("%s\n  next: %s", what.Message, what.Hint)
		}
	}
	return quiet(exitUnreachable)
}

// showPairs writes names and values as a table, or as lines of fields.
func (c *Call) showPairs(rows [][2]string) {
	if c.Format != Simple {
		c.printPairs(rows)
		return
	}
	var cells [][]string
	for _, r := range rows {
		cells = append(cells, r[:])
	}
	c.printSimple(cells)
}

// printPairs writes names and values, a line each.
func (c *Call) printPairs(rows [][2]string) {
	width := 0
	for _, r := range rows {
		width = max(width, len(r[0]))
	}
	for _, r := range rows {
		fmt.Fprintf(c.Stdout, "%-*s  %s\n", width, r[0], nameOr(r[1], "-"))
	}
}

// titled begins a word with a capital letter.
func titled(word string) string {
	return strings.ToUpper(word[:min(1, len(word))]) + word[min(1, len(word)):]
}

func checked(yes bool) string {
	if yes {
		return "✓"
	}
	return ""
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

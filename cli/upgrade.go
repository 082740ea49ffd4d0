package cli

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/client"
	"keyval/messages"
)

func newClusterUpgrade(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:  "upgrade",
		Usage: "restart the nodes one by one, each on its own directory, with another version",
		Description: `kvctl does not restart nodes: whatever runs them does. It picks the node, followers first and
the leader last, hands the lead over, says what to restart or runs --run, waits until that node
is back and has caught up, and looks at the cluster again before the next. Whatever is not as it
should be stops it, with exit code 6 and what it is; --resume goes on later with those that do
not run the version --to yet. The data stay where they are, and no node leaves the cluster.
With --check it only says what would stop it, and whose turn it is.
COMMAND is run by sh, with NODE, ADDRESS and PID of the node in its environment.
With --json an object: to, next (the node whose turn it is; empty: none), done (nodes that run
it), left, restarted (by this run), obstacles.`,
		UsageText: `kvctl cluster upgrade --check
kvctl cluster upgrade --next
kvctl cluster upgrade --resume --run ./restart-node.sh
kvctl cluster upgrade --next --node node2   # a restart, whatever its version`,
		Flags: []urfave.Flag{
			&urfave.BoolFlag{Name: "check", Usage: "say what would stop it, and restart nothing"},
			&urfave.BoolFlag{Name: "next", Usage: "restart one node"},
			&urfave.BoolFlag{Name: "resume", Usage: "restart all that do not run the version yet"},
			&urfave.StringFlag{Name: "to", Usage: "the `VERSION` that all are to run", DefaultText: "that of kvctl"},
			&urfave.StringFlag{Name: "node", Usage: "restart this `NODE`, whatever version it runs"},
			&urfave.StringFlag{Name: "run", Usage: "restart a node by this `COMMAND`"},
		},
		Action: sh.action(upgrade),
	}
}

// upgradeState is how far an upgrade is. All of it is seen, nothing is remembered: so it can
// be taken up by anybody.
type upgradeState struct {
	To        string   `json:"to"`
	Next      string   `json:"next"`
	Done      []string `json:"done"`
	Left      []string `json:"left"`
	Restarted []string `json:"restarted"`
	Obstacles []string `json:"obstacles"`

	next *member
}

// upgradeLagMax is what a node may lack that counts as caught up, in entries.
const upgradeLagMax = 1000

// upgradeStep is what is to be done of an upgrade: whose turn it is, and what stands in the
// way. only is the node that was asked for; empty: whoever does not run the version yet.
func upgradeStep(a client.ClusterAnswer, all []member, to, only string) upgradeState {
	s := upgradeState{To: to, Done: []string{}, Left: []string{}, Restarted: []string{}, Obstacles: []string{}}
	var level uint32
	for i := range all {
		m := &all[i]
		level = max(level, m.Level)
		mine := only == "" && m.problem == nil && m.Version != to || m.Name == only
		switch {
		case mine && (s.next == nil || s.next.Role == leading): // the leader last
			s.next = m
			s.Left = append(s.Left, m.Name)
		case mine:
			s.Left = append(s.Left, m.Name)
		case m.problem == nil && m.Version == to:
			s.Done = append(s.Done, m.Name)
		}
		if m.problem != nil {
			s.Obstacles = append(s.Obstacles, fmt.Sprintf("%s does not answer: %s", m.Name, m.problem.Message))
		} else if m.LagEntries > upgradeLagMax {
			s.Obstacles = append(s.Obstacles, fmt.Sprintf("%s lacks %d entries", m.Name, m.LagEntries))
		}
	}
	s.Obstacles = append(s.Obstacles, a.Health(nil).Issues...)
	if o := a.Pending(); o != nil {
		s.Obstacles = append(s.Obstacles, "an operation is under way: "+operationText(o))
	}
	if s.next == nil {
		return s
	}
	s.Next = s.next.Name
	if votes := s.next.kind != messages.MemberType_LEARNER; votes && a.Before != nil && !slices.Contains(a.Before.Survives, s.Next) {
		s.Obstacles = append(s.Obstacles, fmt.Sprintf("without %s writes would stop: %s", s.Next, client.BudgetText(a.Before)))
	}
	return s
}

func upgrade(c *Call) error {
	modes := 0
	for _, f := range []string{"check", "next", "resume"} {
		if c.flags.Bool(f) {
			modes++
		}
	}
	only := c.flags.String("node")
	switch {
	case modes != 1:
		return c.usage("begin with --check, which changes nothing", "one of --check, --next and --resume is wanted")
	case only != "" && c.flags.Bool("resume"):
		return c.usage("--next --node restarts one", "--node is for one node, and --resume for all that are left")
	}
	to := cmp.Or(c.flags.String("to"), version())
	var restarted []string
	for {
		s, err := c.upgradeLook(to, only, "")
		if err != nil {
			return err
		}
		s.Restarted = append(s.Restarted, restarted...)
		if s.next == nil && only != "" {
			return messages.Errorf(messages.Code_NOT_FOUND, "no member is called %q", only).WithHint("%s cluster members%s", c.self(), c.endpointFlags())
		}
		done := s.next == nil || c.flags.Bool("next") && len(restarted) > 0
		switch {
		case len(s.Obstacles) > 0 && (s.next != nil || !done):
			if c.flags.Bool("check") {
				_ = c.showUpgrade(s)
			}
			return messages.Errorf(messages.Code_UNSAFE, "nothing is restarted now: %s", strings.Join(s.Obstacles, "; ")).
				WithHint("mend that, and then: %s cluster upgrade --resume%s", c.self(), c.endpointFlags())
		case done || c.flags.Bool("check"):
			return c.showUpgrade(s)
		}
		if err := c.restart(s, only); err != nil {
			return err
		}
		restarted = append(restarted, s.Next)
		if c.flags.Bool("next") {
			s.Restarted, s.Left = restarted, slices.DeleteFunc(s.Left, func(n string) bool { return n == s.Next })
			s.Done, s.Next, s.next = append(s.Done, s.Next), "", nil
			return c.showUpgrade(s)
		}
	}
}

// upgradeLook looks at the cluster for a while: a node that came back just now is out of
// contact for a moment. at is the endpoint that is asked; empty: any.
func (c *Call) upgradeLook(to, only, at string) (s upgradeState, err error) {
	const settle = 5 * time.Second
	with := c.withStore
	if at != "" {
		with = func(run func(context.Context, Store) error) error {
			store, err := c.storeAt(c, at)
			if err != nil {
				return err
			}
			defer store.Close()
			return run(c, store)
		}
	}
	for deadline := time.Now().Add(settle); ; {
		all, err := c.rosterNow(c, statusTimeout)
		if err != nil {
			return s, err
		}
		err = with(func(ctx context.Context, store Store) error {
			a, err := client.ClusterAPI{ClusterAsker: store}.Query(ctx)
			s = upgradeStep(a, withoutStarting(all), to, only)
			if m, none := a.LeaderMember(); at != "" && none == nil && a.Before == nil {
				s.Obstacles = append(s.Obstacles, m.ID+" has not said yet who is in contact")
			}
			return err
		})
		if err != nil || len(s.Obstacles) == 0 || time.Now().After(deadline) {
			return s, err
		}
		if !passes(c, followEvery) {
			return s, context.Cause(c)
		}
	}
}

// restart has one node restarted, and waits until it is back.
func (c *Call) restart(s upgradeState, only string) error {
	m := *s.next
	if m.Role == leading {
		if err := c.withStore(func(ctx context.Context, store Store) error {
			return client.ClusterAPI{ClusterAsker: store}.TransferLeadership(ctx, "", 0, 0)
		}); err != nil {
			return err
		}
		c.note("✓ the lead is off %s", m.Name)
	}
	if command := c.flags.String("run"); command != "" {
		c.note("… restarting %s: %s", m.Name, command)
		run := exec.CommandContext(c, "sh", "-c", command)
		run.Env = append(os.Environ(), "NODE="+m.Name, "ADDRESS="+m.address, fmt.Sprintf("PID=%d", m.PID))
		run.Stdout, run.Stderr = c.Stderr, c.Stderr
		if err := run.Run(); err != nil {
			return messages.Errorf(messages.Code_INTERNAL, "the command that restarts %s: %v", m.Name, err).
				WithHint("look at that node; then go on: %s cluster upgrade --resume%s", c.self(), c.endpointFlags())
		}
	} else {
		c.note("… restart %s now, with version %s: stop its process (pid %d), then on that machine: kvctl serve --data DIR", m.Name, s.To, m.PID)
	}
	began := time.Now()
	back, err := c.awaitRestart(m)
	if err != nil {
		return err
	}
	if only == "" && back.Version != s.To {
		return messages.Errorf(messages.Code_CONFLICT, "%s is back with version %s, and not with %s", m.Name, back.Version, s.To).
			WithHint("start the right one on its directory, or say which: --to %s", back.Version)
	}
	after, err := c.upgradeLook(s.To, only, back.Endpoint)
	if err != nil {
		return err
	}
	if len(after.Obstacles) > 0 {
		return messages.Errorf(messages.Code_UNSAFE, "%s is back, and the cluster is not as it should be: %s", m.Name, strings.Join(after.Obstacles, "; ")).
			WithHint("mend that, and then: %s cluster upgrade --resume%s", c.self(), c.endpointFlags())
	}
	c.note("✓ %s is back after %v, with version %s, and has caught up", m.Name, time.Since(began).Round(100*time.Millisecond), back.Version)
	return nil
}

// awaitRestart waits for another process of a node that has caught up, for as long as that
// takes, and says every ten seconds what it waits for.
func (c *Call) awaitRestart(m member) (member, error) {
	ctx, cancel, err := c.untilTimeout(c)
	if err != nil {
		return m, err
	}
	defer cancel()
	told := time.Now()
	for {
		why := "no node answers"
		if all, err := c.rosterNow(ctx, statusTimeout); err == nil {
			i := slices.IndexFunc(all, func(is member) bool { return is.RaftID == m.RaftID })
			if i < 0 {
				return m, messages.Errorf(messages.Code_CONFLICT, "%s is no member any more", m.Name).
					WithHint("it was removed meanwhile: %s cluster members%s", c.self(), c.endpointFlags())
			}
			if why = lacksAfterRestart(m, all[i]); why == "" {
				return all[i], nil
			}
		}
		if time.Since(told) >= stallAfter {
			told = time.Now()
			c.note("… waiting: %s", why)
		}
		switch {
		case passes(ctx, followEvery):
		case c.Err() != nil:
			return m, context.Cause(c)
		default:
			return m, messages.Errorf(messages.Code_TIMED_OUT, "%s is not back yet: %s", m.Name, why).
				WithHint("go on when it is: %s cluster upgrade --resume%s", c.self(), c.endpointFlags())
		}
	}
}

// lacksAfterRestart says why a restarted node does not count as back; empty: it does.
func lacksAfterRestart(was, is member) string {
	switch {
	case is.problem != nil:
		return fmt.Sprintf("%s does not answer: start it on its directory", is.Name)
	case is.PID == was.PID && is.Version == was.Version:
		return fmt.Sprintf("%s still runs as pid %d with version %s: stop it", is.Name, is.PID, is.Version)
	case is.starting():
		return is.Name + " is starting"
	case is.Leader == "":
		return is.Name + " follows nobody yet"
	case is.LagEntries > upgradeLagMax:
		return fmt.Sprintf("%s lacks %d entries", is.Name, is.LagEntries)
	}
	return ""
}

func (c *Call) showUpgrade(s upgradeState) error {
	if c.Format.structured() {
		return c.printJSON(s)
	}
	if c.Format == Simple {
		c.printSimple([][]string{{s.To, s.Next, strings.Join(s.Left, ",")}})
		return nil
	}
	rows := [][2]string{{"to version", s.To}, {"done", nameOr(strings.Join(s.Done, ", "), "none")}, {"left", nameOr(strings.Join(s.Left, ", "), "none")}}
	if s.Next != "" {
		rows = append(rows, [2]string{"next", s.Next})
	}
	if len(s.Obstacles) > 0 {
		rows = append(rows, [2]string{"in the way", strings.Join(s.Obstacles, "; ")})
	} else if s.Next == "" && len(s.Left) == 0 {
		rows = append(rows, [2]string{"then", "once no older version is to come back: " + c.self() + " cluster level raise" + c.endpointFlags()})
	}
	c.printPairs(rows)
	return nil
}

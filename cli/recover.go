package cli

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/messages"
	"keyval/storeactor/backup"
	"keyval/storeactor/files"
)

func newClusterRecover(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "recover",
		Usage:     "make a new cluster of what is left of one whose quorum is lost",
		ArgsUsage: "[DIR...]",
		Description: `With --inspect it reads the data directories of stopped nodes, changes nothing, and says
whose log is the longest, what is surely there, what may be missing, and what cannot be
known. With --from it makes the data directories of a new cluster of one of them: all that
its log holds counts. DIR are the other directories that are left: one whose log is longer
than that of --from is not passed over.
It is refused while a quorum of the members could still be had, among the directories given
and the members that answer: start those instead. The new cluster has an id of its own, so
nothing that is left of the old one can join it or be taken for a member; clients open new
sessions, and revisions go on --revision-gap above. The directories given are only read. What
breaks off goes on with the same command: until it is done no node starts from the new ones.
With --json an object: best, committed, recovers_to, quorum, needed, directories (data, id,
raft_id, term, first, last, last_term, committed, checkpoint, written_at, refused), missing
(id, raft_id, address, answers); of a recovery the fields of restore, and this as survey.`,
		UsageText: `kvctl cluster recover --inspect ./node1 ./node3
kvctl cluster recover --from ./node1 ./node3 --to n1=d1,n2=d2,n3=d3 --initial-cluster n1=10.0.0.1:7001,n2=10.0.0.2:7001,n3=10.0.0.3:7001 --accept-loss`,
		Flags: append([]urfave.Flag{
			&urfave.BoolFlag{Name: "inspect", Usage: "say what there is, and change nothing"},
			&urfave.StringFlag{Name: "from", Usage: "make it of the directory `DIR`", TakesFile: true},
			&urfave.StringFlag{Name: "to", Usage: "make for each node the directory of `NAME=DIR,...`"},
			&urfave.StringFlag{Name: "initial-cluster", Usage: "the nodes of the new cluster are `NAME=HOST:PORT,...`"},
			&urfave.StringFlag{Name: "cluster-token", Usage: "keep clusters of the same names and addresses apart by `TOKEN`", DefaultText: "a random one"},
			&urfave.Uint64Flag{Name: "revision-gap", Usage: "begin `N` above the last revision", DefaultText: fmt.Sprint(revisionGap)},
			&urfave.BoolFlag{Name: "accept-loss", Usage: "give up what others may have acknowledged"},
			&urfave.StringFlag{Name: "stage", Usage: "keep what is under way in `DIR`", DefaultText: "the first of --to with .recovery behind it", TakesFile: true},
		}, dangerFlags()...),
		Action: sh.action(recoverCluster),
	}
}

// surveyJSON is what directories say together.
type surveyJSON struct {
	Best        string              `json:"best,omitempty"`
	Committed   uint64              `json:"committed,string"`
	RecoversTo  uint64              `json:"recovers_to,string"`
	Quorum      bool                `json:"quorum"`
	Directories []surveyedJSON      `json:"directories"`
	Missing     []missingMemberJSON `json:"missing"`
}

type surveyedJSON struct {
	Data       string `json:"data"`
	ID         string `json:"id,omitempty"`
	RaftID     uint64 `json:"raft_id,omitempty"`
	Term       uint64 `json:"term,string"`
	First      uint64 `json:"first,string"`
	Last       uint64 `json:"last,string"`
	LastTerm   uint64 `json:"last_term,string"`
	Committed  uint64 `json:"committed,string"`
	Checkpoint uint64 `json:"checkpoint,string"`
	WrittenAt  string `json:"written_at,omitempty"`
	Refused    string `json:"refused,omitempty"`
}

type missingMemberJSON struct {
	ID      string `json:"id"`
	RaftID  uint64 `json:"raft_id"`
	Address string `json:"address"`
	Answers bool   `json:"answers"`
}

func recoverCluster(c *Call) error {
	from, dirs := c.flags.String("from"), slices.Clone(c.Args)
	switch {
	case c.flags.Bool("inspect") == (from != ""):
		return c.usage("look first: kvctl cluster recover --inspect DIR...", "give either --inspect or --from DIR")
	case from != "":
		dirs = append([]string{from}, dirs...)
	case len(dirs) == 0:
		return c.usage("", "--inspect needs the data directory of a stopped node")
	}
	s, row, err := c.survey(dirs)
	if err != nil {
		return err
	}
	if from == "" {
		return c.printSurvey(s, row)
	}
	plan, err := c.restorePlan(fmt.Sprintf("cluster recover --from %s --accept-loss", quoteWord(from)))
	if err != nil {
		return err
	}
	if err := c.refuseRecovery(s, row); err != nil {
		return err
	}
	return c.recoverFrom(s, row, plan)
}

// survey reads directories, and asks the members that have none among them.
func (c *Call) survey(dirs []string) (*backup.Survey, surveyJSON, error) {
	row := surveyJSON{Directories: []surveyedJSON{}, Missing: []missingMemberJSON{}}
	var found []backup.Surveyed
	for i, dir := range dirs {
		if absolute, err := filepath.Abs(dir); err == nil && slices.ContainsFunc(dirs[:i], func(other string) bool {
			before, err := filepath.Abs(other)
			return err == nil && before == absolute
		}) {
			return nil, row, c.usage("", "%s is named twice", dir)
		}
		f, err := files.Inspect(dir, slog.New(slog.DiscardHandler))
		if f == nil {
			return nil, row, err
		}
		found = append(found, backup.Surveyed{Found: f, Refused: err})
	}
	s, err := backup.Judge(found)
	if err != nil {
		return nil, row, err
	}
	for i := range s.Directories {
		row.Directories = append(row.Directories, surveyedRow(dirs[i], &s.Directories[i]))
	}
	if s.Best < 0 {
		return s, row, nil
	}
	best := &s.Directories[s.Best]
	row.Best, row.Committed = dirs[s.Best], s.Commit
	row.RecoversTo, _ = best.Last()
	present := s.Usable()
	answering, err := c.answering(s, best.Identity.ClusterId)
	if err != nil {
		return nil, row, err
	}
	for _, m := range s.Absent(present) {
		row.Missing = append(row.Missing, missingMemberJSON{m.Name, m.RaftId, m.Address, slices.Contains(answering, m.RaftId)})
	}
	row.Quorum = s.Quorum(append(present, answering...))
	return s, row, nil
}

func surveyedRow(dir string, d *backup.Surveyed) surveyedJSON {
	row := surveyedJSON{Data: dir}
	if d.Identity != nil {
		row.ID, row.RaftID = d.Identity.Name, messages.RaftIDOf(d.Identity)
	}
	if d.Checkpoint != nil {
		row.Checkpoint = d.Checkpoint.Index
	}
	if d.Image != nil {
		row.Term, row.First, row.Committed = d.Image.HardState.GetTerm(), d.Image.BaseIndex+1, d.Image.HardState.GetCommit()
		row.Last, row.LastTerm = d.Last()
		row.WrittenAt = d.Written.UTC().Format(time.RFC3339)
	}
	if d.Refused != nil {
		row.Refused = d.Refused.Error()
		if known, is := errors.AsType[*messages.Error](d.Refused); is {
			row.Refused = known.Message
		}
	}
	return row
}

// answering are the members without a directory at whose address something answers, and
// those that answer at --endpoints. What does not say whose it is may be a member that is
// starting.
func (c *Call) answering(s *backup.Survey, cluster []byte) (ids []uint64, err error) {
	absent := s.Absent(s.Usable())
	places := map[string]uint64{} // RaftID of who should be there; 0: not known
	if c.flags.IsSet("endpoints") || c.flags.IsSet("server") || c.Env(envEndpoints) != "" {
		endpoints, err := c.endpoints()
		if err != nil {
			return nil, err
		}
		for _, e := range endpoints {
			places[e] = 0
		}
	}
	for _, m := range absent {
		if m.Address != "" {
			places[m.Address] = m.RaftId
		}
	}
	patience, err := c.patience()
	if err != nil {
		return nil, err
	}
	for endpoint, id := range places {
		if c.Probe(c, endpoint, patience) != nil {
			continue
		}
		if store, err := c.ConnectTo(c, endpoint, patience); err == nil {
			status, _, err := store.Status(c)
			store.Close()
			switch {
			case err != nil || len(status.ClusterId) == 0:
			case bytes.Equal(status.ClusterId, cluster):
				id = status.RaftId
			default:
				id = 0
			}
		}
		if id != 0 && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, c.Err()
}

// refuseRecovery is nil if nothing better can be had than what --from has.
func (c *Call) refuseRecovery(s *backup.Survey, row surveyJSON) error {
	from := &s.Directories[0]
	if from.Refused != nil {
		return broken(hinted(from.Refused, "name the directory of another node: kvctl cluster recover --inspect DIR..."), "nothing can be recovered from "+row.Directories[0].Data+": ")
	}
	var startable, running []string
	for i, d := range s.Directories {
		if d.Refused == nil {
			startable = append(startable, fmt.Sprintf("%s serve --data %s", c.self(), quoteWord(row.Directories[i].Data)))
		}
	}
	for _, m := range row.Missing {
		if m.Answers {
			running = append(running, fmt.Sprintf("%s at %s", m.ID, m.Address))
		}
	}
	switch {
	case row.Quorum:
		also := ""
		if len(running) > 0 {
			also = fmt.Sprintf(" (%s answers)", strings.Join(running, ", "))
		}
		return messages.Errorf(messages.Code_UNSAFE, "a quorum of the cluster is there%s: nothing is lost, and nothing was changed", also).
			WithHint("start them: %s; if one does not start, leave its directory out here", strings.Join(startable, "; "))
	case len(running) > 0:
		return messages.Errorf(messages.Code_UNSAFE, "%s still runs, and may have more than what is here; nothing was changed", strings.Join(running, ", ")).
			WithHint("stop it, and give its data directory too")
	case s.Best != 0:
		last, _ := s.Directories[s.Best].Last()
		return messages.Errorf(messages.Code_UNSAFE, "the log of %s is the better one, and not that of %s: it goes to entry %d, and has what is known to be committed", row.Best, row.Directories[0].Data, last).
			WithHint("give --from %s", quoteWord(row.Best))
	case !c.flags.Bool("accept-loss"):
		return messages.Errorf(messages.Code_UNSAFE, "what %s have acknowledged behind entry %d would be given up, and how much that is cannot be known", missingText(row.Missing), row.RecoversTo).
			WithHint("bring back their directories or machines if there is any way; else %s", c.commandWith("--accept-loss"))
	}
	return nil
}

func missingText(missing []missingMemberJSON) string {
	var names []string
	for _, m := range missing {
		names = append(names, m.ID)
	}
	return joinAnd(names)
}

func joinAnd(names []string) string {
	if n := len(names); n > 1 {
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
	return strings.Join(names, "")
}

func (c *Call) recoverFrom(s *backup.Survey, row surveyJSON, plan backup.Plan) error {
	if err := c.refuseUnasked("a recovery"); err != nil {
		return err
	}
	from := &s.Directories[0]
	stage := c.flags.String("stage")
	if stage == "" {
		stage = strings.TrimRight(plan.Directories[plan.Founders[0].Name], "/") + ".recovery"
	}
	done := restoredJSON{DryRun: c.flags.Bool("dry-run"), Directories: directories(plan)}
	done.Path, done.ClusterID, done.Index = row.Directories[0].Data, hex.EncodeToString(from.Identity.ClusterId), row.RecoversTo
	if done.DryRun {
		return c.printRecovered(row, done)
	}
	question := fmt.Sprintf("Make a new cluster of %s from %s, up to entry %d, and give up what %s may have acknowledged behind it?",
		countText(uint64(len(plan.Founders)), "node", "nodes"), done.Path, row.RecoversTo, missingText(row.Missing))
	if err := c.confirm(question, "nothing was made"); err != nil {
		return err
	}
	began := time.Now()
	plan.Random = rand.Reader
	r, err := backup.Recover(backup.Recovery{From: from.Found, Stage: stage, Plan: plan, Version: version(), Now: began})
	if err != nil {
		return broken(err, "the recovery is not done: ")
	}
	done.backupJSON = backupRow(done.Path, r.Contents, time.Since(began))
	done.NewClusterID, done.NewRevision, done.RowsHash = hex.EncodeToString(r.ClusterID), r.Revision, hex.EncodeToString(r.Rows.Sum())
	return c.printRecovered(row, done)
}

func (c *Call) printSurvey(s *backup.Survey, row surveyJSON) error {
	switch c.Format {
	case JSON, JSONLines:
		return c.printJSON(row)
	}
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	var rows [][]string
	for _, d := range row.Directories {
		cells := []string{d.Data, nameOr(d.ID, "?"), "-", "-", "-", "-", "-", nameOr(d.Refused, "sound")}
		if d.Last > 0 {
			cells = []string{d.Data, d.ID, number(d.Term), fmt.Sprintf("%d-%d", d.First, d.Last), number(d.LastTerm), number(d.Committed), d.WrittenAt, nameOr(d.Refused, "sound")}
		}
		rows = append(rows, cells)
	}
	if c.Format == Simple {
		c.printSimple(rows)
		return nil
	}
	c.printTable([]string{"DIRECTORY", "NODE", "TERM", "LOG", "LAST TERM", "COMMITTED", "LAST WRITTEN", "STATE"}, rows)
	if s.Best < 0 {
		_, err := fmt.Fprintln(c.Stdout, "\nNo node starts from any of them: nothing can be recovered here. Restore a backup: kvctl restore")
		return err
	}
	fmt.Fprintf(c.Stdout, "\nThe best log is that of %s: it goes to entry %d.\n", row.Best, row.RecoversTo)
	for _, line := range c.verdict(row) {
		fmt.Fprintln(c.Stdout, line)
	}
	return nil
}

// verdict says what is there, what may be missing, and what to do.
func (c *Call) verdict(row surveyJSON) []string {
	var lines []string
	for _, m := range row.Missing {
		said := "its directory is not given, and it does not answer"
		if m.Answers {
			said = "it runs"
		}
		lines = append(lines, fmt.Sprintf("%s at %s: %s", m.ID, m.Address, said))
	}
	if row.Quorum {
		return append(lines, "Nothing is lost: these are a quorum, and what was acknowledged is in the best log of them.",
			"Start them; no recovery is needed: it would be refused.")
	}
	sure := fmt.Sprintf("Surely there: all that was acknowledged up to entry %d, which is known to be committed.", row.Committed)
	if more := row.RecoversTo - min(row.RecoversTo, row.Committed); more > 0 {
		sure += fmt.Sprintf("\nThere too: %s behind that, of which nobody here knows whether it was acknowledged. A recovery keeps it.", countText(more, "entry", "entries"))
	}
	who := missingText(row.Missing)
	lines = append(lines, sure,
		fmt.Sprintf("May be missing: what %s acknowledged behind entry %d.", who, row.RecoversTo),
		fmt.Sprintf("Cannot be known: whether that is anything, and how much. The log of %s was last written at %s.", row.Best, writtenAt(row)))
	return append(lines, fmt.Sprintf("Bring back %s if there is any way. Else: %s cluster recover --from %s --to n1=DIR,... --initial-cluster n1=HOST:PORT,... --accept-loss",
		who, c.self(), quoteWord(row.Best)))
}

func writtenAt(row surveyJSON) string {
	for _, d := range row.Directories {
		if d.Data == row.Best {
			return d.WrittenAt
		}
	}
	return "an unknown time"
}

func (c *Call) printRecovered(row surveyJSON, done restoredJSON) error {
	switch c.Format {
	case JSON, JSONLines:
		return c.printJSON(struct {
			Survey surveyJSON `json:"survey"`
			restoredJSON
		}{row, done})
	case Simple:
		return c.printRestored(done)
	}
	if done.DryRun {
		fmt.Fprintf(c.Stdout, "would make a new cluster from %s, up to entry %d:\n", done.Path, row.RecoversTo)
	} else {
		fmt.Fprintf(c.Stdout, "recovered %s: %s, %s of revision %d, up to entry %d, in %s; what was made was read again and is equal\n",
			done.Path, plural(done.Keys, "key"), plural(done.Rows, "row"), done.Revision, done.Index, timeText(time.Duration(done.TookMs)*time.Millisecond))
		fmt.Fprintf(c.Stdout, "new cluster %s, from revision %d on\nrows hash   %s\n", done.NewClusterID, done.NewRevision, done.RowsHash)
	}
	fmt.Fprintf(c.Stdout, "given up: what %s acknowledged behind entry %d, if anything; all sessions, and what was under way\n", missingText(row.Missing), row.RecoversTo)
	fmt.Fprintf(c.Stdout, "nothing of the old cluster (%s) can join this one: never start what is left of it again\n\nStart each node:\n", done.ClusterID)
	for _, d := range done.Directories {
		fmt.Fprintf(c.Stdout, "  %s serve --data %s   # %s at %s\n", c.self(), quoteWord(d.Data), d.ID, d.Address)
	}
	return nil
}

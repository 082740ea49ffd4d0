package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/messages"
	"keyval/storeactor/backup"
	"keyval/storeactor/files"
)

func newRebuild(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:  "rebuild",
		Usage: "give a damaged node the state of another member",
		Description: `For a node that does not start because its rows or its checkpoint are damaged, or that
condemned itself for rows that are not the others'. Its log and its vote are what it has
acknowledged: where these are sound they stay, the damaged state is set aside in the
directory, and a verified snapshot of another member takes its place. The cluster serves on.
Where log, vote or identity are damaged too, nothing is changed, and the error says which
command puts a new node in its place. It asks the members that the directory knows, or
--endpoints; one needs a quorum to give what no write is missing in.
With --json an object: data, id, raft_id, from, index, revision, keys, rows, bytes, hash,
log_kept, term, aside, took_ms.`,
		UsageText: `kvctl rebuild --data ./node2
kvctl rebuild --data ./node2 --endpoints 127.0.0.1:7001 --yes`,
		Flags:  append([]urfave.Flag{dataFlag(), progressFlag()}, dangerFlags()...),
		Action: sh.action(rebuild),
	}
}

type rebuiltJSON struct {
	Data     string `json:"data"`
	ID       string `json:"id"`
	RaftID   uint64 `json:"raft_id"`
	From     string `json:"from,omitempty"`
	Index    uint64 `json:"index,string"`
	Revision uint64 `json:"revision,string"`
	Keys     uint64 `json:"keys,string"`
	Rows     uint64 `json:"rows,string"`
	Bytes    uint64 `json:"bytes"`
	Hash     string `json:"hash,omitempty"`
	LogKept  int    `json:"log_kept"`
	Term     uint64 `json:"term,string"`
	Aside    string `json:"aside,omitempty"`
	TookMs   int64  `json:"took_ms"`
	DryRun   bool   `json:"dry_run,omitempty"`
}

func rebuild(c *Call) error {
	dir := c.flags.String("data")
	if dir == "" {
		return c.usage("", "rebuild needs --data DIR")
	}
	if err := c.refuseUnasked("a rebuild"); err != nil {
		return err
	}
	s, err := files.OpenSalvage(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		return c.replaceInstead(err, s)
	}
	defer s.Close()
	peers, err := c.peersOf(s.Found)
	if err != nil {
		return err
	}
	last, _ := s.Image.Last()
	row := rebuiltJSON{Data: dir, ID: s.Identity.Name, RaftID: messages.RaftIDOf(s.Identity), Term: s.Image.HardState.GetTerm(), DryRun: c.flags.Bool("dry-run")}
	if row.DryRun {
		if c.Format.structured() {
			return c.printJSON(row)
		}
		_, err := fmt.Fprintf(c.Stdout, "would rebuild %s (%s): its log, up to entry %d, and its vote in term %d are sound and stay;\nthe state would come from one of %s\n",
			dir, row.ID, last, row.Term, strings.Join(peers, ", "))
		return err
	}
	question := fmt.Sprintf("Set the state of %s (%s) aside, and take that of another member?", dir, row.ID)
	if err := c.confirm(question, "nothing was changed"); err != nil {
		return err
	}
	began := time.Now()
	r, from, err := c.rebuildFrom(peers, s)
	if err != nil {
		return err
	}
	row.From, row.Index, row.Revision, row.Keys, row.Rows = from, r.Header.Index, r.Header.Revision, r.Keys, r.Contents.Rows.Count
	row.Bytes, row.Hash, row.LogKept, row.Aside, row.TookMs = r.Bytes, fmt.Sprintf("%x", r.Trailer.Hash), r.Kept, r.Aside, time.Since(began).Milliseconds()
	return c.printRebuilt(row)
}

// replaceInstead adds to why a directory cannot be rebuilt what else can be done.
func (c *Call) replaceInstead(err error, s *files.Salvage) error {
	if code := messages.CodeOf(err); code != messages.Code_DAMAGED && code != messages.Code_NOT_FOUND {
		return err
	}
	name, address, join := "NAME", "HOST:PORT", "HOST:PORT,..."
	if s != nil && s.Found.Identity != nil {
		name, address = s.Identity.Name, s.Identity.Advertise
		if peers, _ := c.peersOf(s.Found); len(peers) > 0 {
			join = strings.Join(peers, ",")
		}
	}
	err = broken(err, "it cannot be rebuilt: ")
	if patience, bad := c.patience(); bad == nil && name != "NAME" && c.Probe(c, address, patience) == nil {
		return hinted(err, fmt.Sprintf("nothing was changed; a node answers at %s, so what says that this directory is %s's may be another's: find out whose it is, and put a new node in the place of that one: %s cluster replace --help",
			address, name, c.self()))
	}
	return hinted(err, fmt.Sprintf("nothing was changed; a new node takes its place: %s cluster replace %s %s %s --endpoints %s --yes, and %s serve --name %s --listen %s --join %s --data NEWDIR; keep the directory for inspection",
		c.self(), name, name, address, join, c.self(), name, address, join))
}

// peersOf are the addresses of the other members: --endpoints, or as the directory knows
// them.
func (c *Call) peersOf(found *files.Found) ([]string, error) {
	if c.flags.IsSet("endpoints") || c.flags.IsSet("server") || c.Env(envEndpoints) != "" {
		return c.endpoints()
	}
	var peers []string
	add := func(address string) {
		if address != "" && address != found.Identity.Advertise && !slices.Contains(peers, address) {
			peers = append(peers, address)
		}
	}
	if found.Checkpoint != nil {
		for _, m := range found.Checkpoint.Members {
			add(m.Address)
		}
	}
	for _, f := range found.Identity.Founders {
		add(f.Address)
	}
	for _, address := range found.Identity.Join {
		add(address)
	}
	if len(peers) == 0 {
		return nil, messages.Errorf(messages.Code_UNSAFE, "%s is the only member of its cluster: nobody else has its state", found.Identity.Name).
			WithHint("restore a backup: kvctl restore PATH --to ... --initial-cluster ...")
	}
	return peers, nil
}

// rebuildFrom takes the state from the first member that can give it.
func (c *Call) rebuildFrom(peers []string, s *files.Salvage) (*backup.Rebuilt, string, error) {
	p, err := c.progress(true, true)
	if err != nil {
		return nil, "", err
	}
	p.told = time.Now()
	var failed error
	for _, endpoint := range peers {
		r, err := c.rebuildFromOne(endpoint, s, p)
		p.end()
		if err == nil {
			return r, fmt.Sprintf("%s at %s", r.Header.CreatedBy, endpoint), nil
		}
		if c.Err() != nil {
			return nil, "", c.Err()
		}
		if r != nil || messages.CodeOf(err) == messages.Code_REMOVED {
			return nil, "", err
		}
		if failed == nil || messages.CodeOf(failed) == messages.Code_UNREACHABLE {
			failed = err
		}
	}
	return nil, "", broken(failed, fmt.Sprintf("no member of %s gave its state: ", strings.Join(peers, ", ")))
}

func (c *Call) rebuildFromOne(endpoint string, s *files.Salvage, p *progress) (*backup.Rebuilt, error) {
	patience, err := c.patience()
	if err != nil {
		return nil, err
	}
	if err := c.Probe(c, endpoint, patience); err != nil {
		return nil, err
	}
	store, err := c.storeAt(c, endpoint)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	// What the member has applied when it reads at the newest revision holds all that was
	// acknowledged.
	if _, err := store.Get(c, []byte{0}, 0, false); err != nil && messages.CodeOf(err) != messages.Code_NOT_FOUND {
		return nil, err
	}
	info, err := prepare(c, store, p)
	if err != nil {
		return nil, err
	}
	defer func() { // the node lets it go by itself if it is not asked
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c), time.Second)
		defer cancel()
		_, _ = store.SnapshotDelete(ctx, info.Id)
	}()
	ctx, cancel := context.WithCancel(c)
	defer cancel()
	var from io.Reader = &partsReader{ctx: ctx, store: store, id: info.Id, told: &byteProgress{progress: p, phase: "copying"}}
	return backup.Rebuild(bufio.NewReaderSize(from, 1<<20), s, nil)
}

func (c *Call) printRebuilt(row rebuiltJSON) error {
	switch c.Format {
	case Simple:
		c.printSimple([][]string{{row.Data, row.ID, fmt.Sprint(row.Revision), row.Aside}})
		return nil
	case Table:
		_, err := fmt.Fprintf(c.Stdout, "rebuilt %s (%s) from %s: %s of revision %d at index %d, %s in %s; what was made was read again and is equal\nits vote in term %d and %s of its log behind that stay; what was replaced is in %s\n\nStart it:\n  %s serve --data %s\n",
			row.Data, row.ID, row.From, plural(row.Keys, "key"), row.Revision, row.Index, bytesText(row.Bytes), timeText(time.Duration(row.TookMs)*time.Millisecond),
			row.Term, countText(uint64(row.LogKept), "entry", "entries"), row.Aside, c.self(), quoteWord(row.Data))
		return err
	}
	return c.printJSON(row)
}

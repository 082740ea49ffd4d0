package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/client"
)

func newVerify(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:  "verify",
		Usage: "compare what all members hold, key by key",
		Description: `Asks every member of the cluster by itself what it holds as of one revision, by hashes
of ranges of keys, and compares. A member that is behind is waited for as long as it gets
on. If they differ, it names the first key that does, and what each member has there.
When that revision is given up meanwhile, it goes on at the newest one.
Exits 0 if all hold the same, 1 if they differ, 9 if a member could not be asked.
With --json an object: equal, revision, last_revision, keys, bytes, members (name,
endpoint, asked, error), and difference, null or an object: key, revision, and members
(name, present, revision, bytes, value, sha256); binary keys and values stand as
key_base64 and value_base64, long values are cut.`,
		UsageText: `kvctl verify
kvctl verify --prefix user/ --revision 1000 --json`,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "prefix", Usage: "the keys that begin with `PREFIX`"},
			&urfave.Uint64Flag{Name: "revision", Usage: "read as of `REVISION`", DefaultText: "the latest"},
			progressFlag(),
		},
		Action: sh.action(verify),
	}
}

type verifyJSON struct {
	Equal        bool               `json:"equal"` // those that could be asked
	Revision     uint64             `json:"revision,string"`
	LastRevision uint64             `json:"last_revision,string"` // another one if the first was given up meanwhile
	Keys         uint64             `json:"keys,string"`          // that are alike
	Bytes        uint64             `json:"bytes"`
	Members      []verifyMemberJSON `json:"members"`
	Difference   *differenceJSON    `json:"difference"`
}

type verifyMemberJSON struct {
	Name     string `json:"name"`
	Endpoint string `json:"endpoint"`
	Asked    bool   `json:"asked"` // to the end
	Error    string `json:"error"`
}

type differenceJSON struct {
	Key       *string    `json:"key,omitempty"`
	KeyBase64 *string    `json:"key_base64,omitempty"`
	Revision  uint64     `json:"revision,string"` // at which they differ
	Members   []heldJSON `json:"members"`
}

type heldJSON struct {
	Name        string  `json:"name"`
	Present     bool    `json:"present"`
	Revision    uint64  `json:"revision,string"` // of the key's last write
	Bytes       int     `json:"bytes"`           // of the whole value
	Value       *string `json:"value,omitempty"` // the first heldValueMax bytes
	ValueBase64 *string `json:"value_base64,omitempty"`
	SHA256      string  `json:"sha256"` // of the whole value
}

const heldValueMax = 64 // bytes of a value that a report shows

func verify(c *Call) error {
	prefix, revision := []byte(c.flags.String("prefix")), c.flags.Uint64("revision")
	if c.flags.IsSet("revision") && revision == 0 {
		return c.usage("", "--revision counts from 1")
	}
	p, err := c.progress(true, true)
	if err != nil {
		return err
	}
	patience, err := c.patience()
	if err != nil {
		return err
	}
	stall, err := c.timeout()
	if err != nil {
		return err
	}
	return c.withStore(func(ctx context.Context, store Store) error {
		newest, err := store.Newest(ctx)
		if err != nil {
			return err
		}
		if revision > newest {
			return notYet(revision, newest)
		}
		members, err := c.roster(ctx, patience)
		if err != nil {
			return err
		}
		v := &client.Verification{
			From: prefix, To: client.PrefixEnd(prefix), Revision: revision, Fixed: revision != 0, Newest: store.Newest, Patience: stall,
		}
		if !v.Fixed {
			v.Revision = newest
		}
		first := v.Revision
		tellTo(v, p)
		closeAll := c.summon(ctx, v, members)
		defer closeAll()
		began := time.Now()
		found, err := v.Run(ctx)
		p.end()
		if err != nil {
			return broken(err, fmt.Sprintf("the comparison broke after %s: ", plural(v.Keys, "key")))
		}
		return c.printVerified(v, first, members, found, time.Since(began))
	})
}

// summon connects to every member that answers. The function that it returns closes the
// connections.
func (c *Call) summon(ctx context.Context, v *client.Verification, members []member) func() {
	var stores []Store
	for i := range members {
		m := &members[i]
		r := &client.Replica{Name: m.Name}
		if m.Endpoint == "" {
			m.Endpoint = m.address
		}
		if m.problem != nil {
			r.Problem = m.problem
		} else if store, err := c.storeAt(ctx, m.Endpoint); err != nil {
			r.Problem = err
		} else {
			r.Holder = store
			stores = append(stores, store)
		}
		v.Replicas = append(v.Replicas, r)
	}
	return func() {
		for _, store := range stores {
			store.Close()
		}
	}
}

// verifyEvent is one line of --progress json.
type verifyEvent struct {
	Keys       uint64 `json:"keys,string"`
	Bytes      uint64 `json:"bytes_done"`
	Rate       uint64 `json:"rate_bytes_per_s"`
	WaitingFor string `json:"waiting_for,omitempty"`
}

// tellTo has a verification tell how far it is.
func tellTo(v *client.Verification, p *progress) {
	var r rate
	p.told = time.Now()
	v.Compared = func() {
		now := time.Now()
		r.note(now, v.Bytes)
		if p.due(now) {
			p.tell(now, verifyEvent{v.Keys, v.Bytes, uint64(r.perSecond), ""}, "compared %s, %s, %s/s",
				plural(v.Keys, "key"), bytesText(v.Bytes), bytesText(uint64(r.perSecond)))
		}
	}
	v.Waiting = func(name string, at, of uint64) {
		if now := time.Now(); p.due(now) {
			p.tell(now, verifyEvent{v.Keys, v.Bytes, 0, name}, "waiting for %s, which is at revision %d of %d", name, at, of)
		}
	}
}

func (c *Call) printVerified(v *client.Verification, first uint64, members []member, found *client.Difference, took time.Duration) error {
	r := verifyJSON{Revision: first, LastRevision: v.Revision, Keys: v.Keys, Bytes: v.Bytes}
	var absent, compared []string
	for i, replica := range v.Replicas {
		row := verifyMemberJSON{Name: replica.Name, Endpoint: members[i].Endpoint, Asked: replica.Problem == nil}
		if replica.Problem != nil {
			problem, _ := explain(replica.Problem)
			row.Error = problem.Message
			absent = append(absent, fmt.Sprintf("%s could not be asked: %s", replica.Name, problem.Message))
		} else {
			compared = append(compared, replica.Name)
		}
		r.Members = append(r.Members, row)
	}
	r.Equal = found == nil && (len(compared) > 1 || len(r.Members) == 1)
	r.Difference = differenceRow(found)
	switch {
	case c.Format.structured():
		if err := c.printJSON(r); err != nil {
			return err
		}
	case c.Format == Simple:
		c.printSimple([][]string{{verdict(r, len(absent)), strconv.FormatUint(v.Keys, 10)}})
	default:
		c.tellVerified(r, found, compared, took)
	}
	for _, line := range absent {
		c.note("%s%s", c.warning(), line)
	}
	switch {
	case found != nil:
		return quiet(exitFailure)
	case len(absent) > 0:
		return quiet(exitDegraded)
	}
	return nil
}

// verdict is one word for scripts.
func verdict(r verifyJSON, absent int) string {
	switch {
	case r.Difference != nil:
		return "different"
	case absent > 0:
		return "incomplete"
	}
	return "equal"
}

func (c *Call) tellVerified(r verifyJSON, found *client.Difference, compared []string, took time.Duration) {
	at := fmt.Sprintf("at revision %d", r.Revision)
	if r.LastRevision != r.Revision {
		at = fmt.Sprintf("at revisions %d to %d", r.Revision, r.LastRevision)
	}
	alike := fmt.Sprintf("%s, %s (%s)", plural(r.Keys, "key"), bytesText(r.Bytes), timeText(took))
	if found == nil {
		switch {
		case len(compared) > 1:
			fmt.Fprintf(c.Stdout, "%s hold the same %s: %s\n", strings.Join(compared, ", "), at, alike)
		case len(r.Members) == 1 && len(compared) == 1:
			fmt.Fprintf(c.Stdout, "%s is the only member: there is nothing to compare\n", compared[0])
		default:
			fmt.Fprintf(c.Stdout, "fewer than two members could be asked: nothing was compared\n")
		}
		return
	}
	fmt.Fprintf(c.Stdout, "%s: at revision %d the members do not hold the same. The first key that differs is %s:\n\n",
		c.paint(red, "DIFFERENT"), found.Revision, shown(found.Key))
	var cells [][]string
	for _, h := range found.Holds {
		if !h.Present {
			cells = append(cells, []string{h.Name, "-", "-", "-", "it is not there"})
			continue
		}
		cells = append(cells, []string{h.Name, strconv.FormatUint(h.Item.Revision, 10), strconv.Itoa(len(h.Item.Value)),
			valueHash(h.Item.Value)[:16], shown(h.Item.Value)})
	}
	c.printTable([]string{"MEMBER", "WRITTEN AT", "BYTES", "SHA-256", "VALUE"}, cells)
	c.note("\nThe keys before it are alike: %s. Keep the directory of whoever is wrong; see docs/OPERATIONS.md.", alike)
}

func valueHash(value []byte) string {
	sum := sha256.Sum256(value)
	return hex.EncodeToString(sum[:])
}

func differenceRow(d *client.Difference) *differenceJSON {
	if d == nil {
		return nil
	}
	row := &differenceJSON{Revision: d.Revision}
	row.Key, row.KeyBase64 = text(d.Key)
	for _, h := range d.Holds {
		one := heldJSON{Name: h.Name, Present: h.Present}
		if h.Present {
			one.Revision, one.Bytes, one.SHA256 = h.Item.Revision, len(h.Item.Value), valueHash(h.Item.Value)
			one.Value, one.ValueBase64 = text(h.Item.Value[:min(len(h.Item.Value), heldValueMax)])
		}
		row.Members = append(row.Members, one)
	}
	return row
}

package cli

import (
	"fmt"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/transport"
	"keyval/actors/transport/keys"
	"keyval/messages"
)

const defaultCerts = "./certs"

func newCert(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:  "cert",
		Usage: "make, list, check and replace the keys of a cluster",
		Description: `A cluster has an authority of its own, in --dir: ca.crt says what is trusted, ca.key signs
and is needed by no node. Each node and each user gets a directory there, nodes/NAME or
users/NAME, which goes to its machine whole and is what --certs-dir names. Keys are ECDSA
P-256, in files that their owner alone may read; nothing is ever overwritten.`,
		UsageText: `kvctl cert create-ca
kvctl cert create-node n1 10.0.0.1
kvctl cert create-client alice`,
		Subcommands: []*urfave.Command{
			newCertVerb(sh, "create-ca", "make the authority", "", certCreateCA,
				"Good for ten years. Keep ca.key where nobody else reads it: whoever has it can be any node."),
			newCertVerb(sh, "create-node", "make the keys of a node", "NAME HOST...", certCreate(transport.NodeKey),
				"NAME is the node's --name, and a HOST what others dial, a name or an IP address: both are\nchecked by whoever connects. Good for a year."),
			newCertVerb(sh, "create-client", "make the keys of a user", "USER", certCreate(transport.UserKey),
				"Good for a year. They never speak as a node."),
			newCertVerb(sh, "list", "list the certificates of a directory", "", certList,
				"With --json an array of objects: file, what (ca, node, user), name, hosts, expires,\nfingerprint, problem."),
			newCertVerb(sh, "check", "check keys: do they match, are they trusted, when do they expire", "", certCheck,
				"Of an authority's directory, or that of a node or a user. Exits 9 if something is wrong or\nexpires within 30 days."),
			newCertVerb(sh, "rotate-ca", "replace the authority, step by step", "[STEP]", certRotate,
				`Without a STEP it says which is next. In each the files of all nodes and users change, and
their directories have to be copied to their machines before the next: nodes load them by
themselves. The steps are both (a new authority is trusted too), leaves (it signs all
certificates anew; old files stay as FILE.old), and new (the old one is trusted no more).`),
		},
	}
}

func newCertVerb(sh *Shell, name, usage, args string, run func(*Call) error, description string) *urfave.Command {
	return &urfave.Command{
		Name: name, Usage: usage, ArgsUsage: args, Description: description,
		UsageText: strings.TrimSpace("kvctl cert " + name + " " + strings.NewReplacer("NAME HOST...", "n1 10.0.0.1", "USER", "alice", "[STEP]", "").Replace(args)),
		Flags:     []urfave.Flag{authorityFlag()},
		Action:    sh.action(run),
	}
}

func authorityFlag() urfave.Flag {
	return &urfave.StringFlag{Name: "dir", TakesFile: true, Usage: "the authority is in `DIR`", DefaultText: defaultCerts}
}

func (c *Call) authority() keys.Authority {
	return keys.Authority{Dir: nameOr(c.flags.String("dir"), defaultCerts)}
}

func certCreateCA(c *Call) error {
	a := c.authority()
	cert, err := a.Create()
	if err != nil {
		return err
	}
	c.note("%s is made in %s, and good until %s; keep its ca.key secret", cert.Subject.CommonName, a.Dir, cert.NotAfter.UTC().Format(time.DateOnly))
	c.note("next: %s cert create-node NAME HOST%s", c.self(), c.dirFlag())
	return nil
}

// dirFlag is the flag that a command to paste needs.
func (c *Call) dirFlag() string {
	if c.flags.IsSet("dir") {
		return " --dir " + quoteWord(c.flags.String("dir"))
	}
	return ""
}

func certCreate(kind transport.PrincipalKind) func(*Call) error {
	return func(c *Call) error {
		p := transport.Principal{Kind: kind, Name: c.Args[0]}
		dir, cert, err := c.authority().Issue(p, c.Args[1:])
		if err != nil {
			return err
		}
		c.note("the keys of %s are in %s, and good until %s", p, dir, cert.NotAfter.UTC().Format(time.DateOnly))
		if kind == transport.NodeKey {
			c.note("next: copy the directory to its machine, and start the node with --certs-dir %s", quoteWord(dir))
		} else {
			c.note("next: %s status --certs-dir %s", c.self(), quoteWord(dir))
		}
		return nil
	}
}

type certJSON struct {
	File        string    `json:"file"`
	What        string    `json:"what"`
	Name        string    `json:"name"`
	Hosts       []string  `json:"hosts"`
	Expires     time.Time `json:"expires"`
	Fingerprint string    `json:"fingerprint"`
	Problem     string    `json:"problem"`
}

func certList(c *Call) error {
	_, err := c.certificates()
	return err
}

func certCheck(c *Call) error {
	problems, err := c.certificates()
	if err == nil && problems > 0 {
		return quiet(exitDegraded)
	}
	return err
}

// certificates shows what a directory holds, and counts what is wrong.
func (c *Call) certificates() (problems int, err error) {
	entries, err := c.authority().Inspect()
	if err != nil {
		return 0, err
	}
	var rows []certJSON
	var cells [][]string
	for _, e := range entries {
		rows = append(rows, certJSON{e.File, e.What, e.Name, append([]string{}, e.Hosts...), e.Expires, e.Fingerprint, e.Problem})
		state := "good"
		if e.Problem != "" {
			problems, state = problems+1, e.Problem
		}
		expires := "-"
		if !e.Expires.IsZero() {
			expires = e.Expires.Format(time.DateOnly)
		}
		cells = append(cells, []string{e.What, nameOr(e.Name, "-"), nameOr(strings.Join(e.Hosts, ","), "-"), expires, nameOr(e.Fingerprint, "-"), e.File, state})
	}
	switch c.Format {
	case Table:
		c.printTable([]string{"WHAT", "NAME", "HOSTS", "EXPIRES", "FINGERPRINT", "FILE", "STATE"}, cells)
	case Simple:
		c.printSimple(cells)
	default:
		err = printJSONList(c, rows)
	}
	return problems, err
}

// rotation is the steps in their order: what the stage before is, what is taken, and what is
// left to do afterwards.
var rotation = []struct {
	before []keys.Stage
	step   string
	take   func(keys.Authority) error
	left   string
}{
	{[]keys.Stage{keys.Settled}, "both", keys.Authority.TrustBoth, "a new authority is made and trusted beside the old one"},
	{[]keys.Stage{keys.Both, keys.Signing}, "leaves", keys.Authority.SignAnew, "the new authority has signed all certificates anew"},
	{[]keys.Stage{keys.Leaves}, "new", keys.Authority.TrustNew, "the old authority is trusted no more"},
}

func certRotate(c *Call) error {
	a := c.authority()
	if len(c.Args) > 0 {
		at := -1
		for i, r := range rotation {
			if r.step == c.Args[0] {
				at = i
			}
		}
		if at < 0 {
			return c.usage("", "%q is none of both, leaves, new", c.Args[0])
		}
		if err := rotation[at].take(a); err != nil {
			return err
		}
		c.note("%s", rotation[at].left)
		c.note("next: copy the directories below %s/nodes and %s/users to their machines, and wait until every node has loaded them: kvctl status --json shows which authorities each trusts", a.Dir, a.Dir)
	}
	stage, err := a.Stage()
	if err != nil {
		return err
	}
	for _, r := range rotation {
		for _, before := range r.before {
			if before != stage {
				continue
			}
			if r.step == "both" && len(c.Args) > 0 {
				c.note("then the replacement is complete; remove %s/ca.key.old and the files that end in .old", a.Dir)
				return nil
			}
			_, err := fmt.Fprintf(c.Stdout, "%s cert rotate-ca %s%s\n", c.self(), r.step, c.dirFlag())
			return err
		}
	}
	return messages.Errorf(messages.Code_INTERNAL, "no step follows stage %d", stage)
}

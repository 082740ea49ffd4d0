package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/transport/grpc"
	"keyval/actors/transport/keys"
	"keyval/messages"
)

const joinTokenFlag = "join-token-file"

func joinTokenFileFlag() urfave.Flag {
	return &urfave.StringFlag{Name: joinTokenFlag, TakesFile: true,
		Usage: "with --join, fetch the keys that --certs-dir lacks by the token in `FILE`, - for standard input: kvctl cluster token create"}
}

// How long fetching goes on while nobody gives the last word.
const (
	redeemPatience  = 30 * time.Second
	confirmPatience = 5 * time.Second
	askPatience     = 10 * time.Second // for one answer: the leader waits for its log
	redeemPause     = 300 * time.Millisecond
	// deadRounds are those in which nobody answers at all: then the addresses are wrong, or the
	// network is.
	deadRounds = 30
	// shutRounds are those in which nobody is let in without a certificate: a follower may lag so
	// far behind the making of a token, and not more.
	shutRounds    = 10
	tokenBytesMax = 4 << 10
)

// fetchKeys fetches the keys of this node if there is a token for that, and no keys yet.
func (c *Call) fetchKeys() error {
	file := c.flags.String(joinTokenFlag)
	if file == "" {
		return nil
	}
	dir, _ := c.setting("certs-dir", envCertsDir, "")
	if dir == "" {
		return c.usage("add --certs-dir DIR; it need not be there yet", "--%s needs to know where the keys are to be", joinTokenFlag)
	}
	switch vacant, err := keys.Vacant(dir); {
	case err != nil:
		return err
	case !vacant:
		c.note("%s has keys already: the token is not needed, and was not used", dir)
		return nil
	}
	endpoints, err := c.joins(c.flags.String("join"))
	if err != nil {
		return err
	}
	name := c.flags.String("name")
	if len(endpoints) == 0 || name == "" {
		return c.usage("add --name NAME and --join HOST:PORT,...", "--%s fetches the keys of a node that joins", joinTokenFlag)
	}
	token, err := c.joinToken(file)
	if err != nil {
		return err
	}
	return c.redeem(dir, name, token, endpoints)
}

// joinToken reads a token. It is never an argument: those all users of a machine see.
func (c *Call) joinToken(file string) (token keys.JoinToken, err error) {
	from := c.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return token, messages.Errorf(messages.Code_INVALID, "--%s: %v", joinTokenFlag, err).WithHint("it holds what kvctl cluster token create has printed")
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o037 != 0 {
			c.note("%sothers on this machine may read %s, and whoever uses a token first has the keys: chmod 600 it", c.warning(), file)
		}
		from = f
	}
	text, err := io.ReadAll(io.LimitReader(from, tokenBytesMax))
	if err != nil {
		return token, messages.Errorf(messages.Code_INVALID, "--%s: %v", joinTokenFlag, err).WithHint("name a file that can be read")
	}
	token, refused := keys.ParseJoinToken(string(text))
	if refused != nil {
		return token, messages.Errorf(refused.Code, "--%s: %s", joinTokenFlag, refused.Message).WithHint("%s", refused.Hint)
	}
	return token, nil
}

// redeem fetches the keys of a node, and puts them into a directory. What was broken off goes on with
// the same token.
func (c *Call) redeem(dir, name string, token keys.JoinToken, endpoints []string) error {
	taker, err := keys.Taker(dir, token.ID[:])
	if err != nil {
		return err
	}
	r := &redemption{endpoints: endpoints, ask: func(ctx context.Context, endpoint string, m *messages.InvitationAsk) (*messages.InvitationAnswer, error) {
		return askInvitation(ctx, token, endpoint, m)
	}}
	ask := &messages.InvitationAsk{Request: 1, Id: token.ID[:], Proof: token.Proof(), Taker: taker, Node: name}
	answer, err := r.run(c, ask, redeemPatience)
	if err != nil {
		if r.over {
			keys.Taken(dir)
		}
		return err
	}
	k, err := token.Accept(answer.Sealed, name)
	if err == nil {
		err = keys.Install(dir, k)
	}
	if err != nil {
		return err
	}
	ask.Request, ask.Done = 2, true
	if _, err := r.run(c, ask, confirmPatience); err != nil {
		c.note("%sthe cluster was not told that the keys have come; until the token expires it keeps them, sealed, for this machine alone: %v", c.warning(), err)
	}
	keys.Taken(dir)
	c.note("the keys of %s were fetched, and are in %s; the token is of no more use", name, dir)
	return nil
}

// askInvitation asks one node, which has to prove that it is of the token's cluster before anything is told it.
func askInvitation(ctx context.Context, token keys.JoinToken, endpoint string, m *messages.InvitationAsk) (*messages.InvitationAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	answer, err := grpc.New(grpc.Options{Keys: keys.Pinned(token)}).Ask(ctx, endpoint, grpc.Asker(version()), m)
	if err != nil {
		return nil, err
	}
	a, is := answer.(*messages.InvitationAnswer)
	if !is || a.Request != m.Request {
		return nil, messages.Errorf(messages.Code_INVALID, "%s answered something else", endpoint).WithHint("see which version of kvctl runs there: kvctl status")
	}
	return a, nil
}

// redemption asks the nodes that it knows until one gives the last word.
type redemption struct {
	endpoints []string // those that were given, and the leader of whom was heard last in front
	ask       func(context.Context, string, *messages.InvitationAsk) (*messages.InvitationAnswer, error)
	over      bool // the last word was no: the token is of no use

	notes  map[string]*messages.Error // by endpoint: what was wrong in the round
	rounds int                        // one after the other in which nobody let this one in
}

// run asks round for round. Errors are *messages.Error.
func (r *redemption) run(ctx context.Context, m *messages.InvitationAsk, patience time.Duration) (*messages.InvitationAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for r.rounds = 0; ; {
		r.notes = map[string]*messages.Error{}
		for i := 0; i < len(r.endpoints); i++ {
			endpoint := r.endpoints[i]
			if r.notes[endpoint] != nil {
				continue
			}
			answer, err := r.ask(ctx, endpoint, m)
			leader, last := r.judge(endpoint, answer, err)
			switch {
			case last != nil:
				return nil, last
			case r.notes[endpoint] == nil:
				return answer, nil
			case leader != "" && r.notes[leader] == nil:
				r.endpoints = slices.Insert(slices.DeleteFunc(r.endpoints, func(e string) bool { return e == leader }), 0, leader)
				i = -1
			}
		}
		if last := r.shut(); last != nil {
			return nil, last
		}
		select {
		case <-ctx.Done():
			return nil, r.exhausted()
		case <-time.After(redeemPause):
		}
	}
}

// judge takes what an endpoint has said: with a note of it that is not the keys. leader is where to ask at
// once; last: nobody else need be asked.
func (r *redemption) judge(endpoint string, answer *messages.InvitationAnswer, err error) (leader string, last *messages.Error) {
	why, _ := explain(err)
	switch {
	case err != nil && why.Code == messages.Code_UNSAFE:
		return "", why
	case err != nil:
		r.notes[endpoint] = why
		return "", nil
	case answer.Code == messages.Code_OK:
		return "", nil
	}
	why = messages.Errorf(answer.Code, "%s", answer.Message).WithHint("%s", answer.Hint)
	if answer.Final && answer.Code != messages.Code_OUTCOME_UNKNOWN && answer.Code != messages.Code_BUSY {
		r.over = true
		return "", why.At(endpoint, "")
	}
	r.notes[endpoint] = why
	if at := answer.GetLeader().GetAddress(); answer.Code == messages.Code_REDIRECT && grpc.CheckReachable(at) == nil {
		leader = at
	}
	return leader, nil
}

// shut ends it once nobody has let this one in for a while: if they answer, no token is open.
func (r *redemption) shut() *messages.Error {
	said := 0
	for _, why := range r.notes {
		switch why.Code {
		case messages.Code_NOT_ALLOWED:
			said++
		case messages.Code_UNREACHABLE:
		default:
			r.rounds = 0
			return nil
		}
	}
	r.rounds++
	switch {
	case said == 0 && r.rounds >= deadRounds:
		return r.exhausted()
	case said == 0 || r.rounds < shutRounds:
		return nil
	}
	r.over = true
	return messages.Errorf(messages.Code_NOT_ALLOWED, "this cluster has no open token: this one was used, has expired, or was removed").
		WithHint("kvctl cluster token list says what became of it; where the authority is, make another: kvctl cluster token create NAME HOST")
}

// exhausted says who was asked in vain, and why.
func (r *redemption) exhausted() *messages.Error {
	code := messages.Code_UNREACHABLE
	var all []string
	for _, e := range r.endpoints {
		if why := r.notes[e]; why != nil {
			all = append(all, fmt.Sprintf("%s: %s", e, why.Message))
			if why.Code != messages.Code_UNREACHABLE {
				code = messages.Code_TIMED_OUT
			}
		}
	}
	return messages.Errorf(code, "no node of --join has given the keys: %s", strings.Join(all, "; ")).
		WithHint("check the addresses, and that the cluster has a leader: kvctl cluster health; the same command goes on with the same token")
}

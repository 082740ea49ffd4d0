package script

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"keyval/messages"
	"keyval/sim"
)

// everyone is the name of the client that knows all nodes; the one that knows only
// n2 is c2.
const everyone = "c"

// client is the client that a verb means.
func (p *player) client(w words) (sim.Client, *messages.Error) {
	at, given := w.options["at"]
	if !given {
		return p.scene.Client(everyone, p.scene.Servers()), nil
	}
	server, there := p.server(at)
	if !there {
		return sim.Client{}, p.noNode(at)
	}
	return p.clientOf(server), nil
}

func (p *player) clientOf(server sim.Server) sim.Client {
	return p.scene.Client(everyone+strings.TrimPrefix(server.Name(), "n"), []sim.Server{server})
}

// ask asks the cluster for something, and waits for the answer unless it is not
// wanted yet.
func (p *player) ask(w words, what string, submit *messages.Submit) *messages.Error {
	c, refusal := p.client(w)
	if refusal != nil {
		return refusal
	}
	p.pending = append(p.pending, pending{c.Ask(submit), what})
	if w.flags["nowait"] {
		return nil
	}
	return p.await()
}

// await waits for everything that was asked.
func (p *player) await() *messages.Error {
	p.pass(func() bool {
		return !slices.ContainsFunc(p.pending, func(asked pending) bool { return asked.Answer() == nil })
	})
	for _, asked := range p.pending {
		answer := asked.Answer()
		if answer == nil {
			return messages.Errorf(messages.Code_TIMED_OUT, "no answer to %s within %v", asked.what, patience)
		}
		if asked.what != "" || answer.Write.GetCode() != messages.Code_OK {
			p.answer("%s: %s", asked.what, p.names.Line(answer))
		}
	}
	p.pending = nil
	return nil
}

func writing(operation *messages.Operation) *messages.Submit {
	return &messages.Submit{Operations: []*messages.Operation{operation}}
}

func (p *player) put(w words) *messages.Error {
	key, value := w.args[0], w.args[1]
	if p.values[value] {
		return messages.Errorf(messages.Code_INVALID, "the value %q was written before", value).
			WithHint("every value is written once, so that what is read says which write it was")
	}
	p.values[value] = true
	return p.ask(w, "put "+key, writing(&messages.Operation{
		Kind: &messages.Operation_Put{Put: &messages.Put{Key: []byte(key), Value: []byte(value)}},
	}))
}

func (p *player) delete(w words) *messages.Error {
	return p.ask(w, "delete "+w.args[0], writing(&messages.Operation{
		Kind: &messages.Operation_Delete{Delete: &messages.Delete{Key: []byte(w.args[0])}},
	}))
}

func (p *player) get(w words) *messages.Error {
	revision, refusal := w.number("revision", 0)
	if refusal != nil {
		return refusal
	}
	read := &messages.Read{Revision: revision, Kind: &messages.Read_Get{Get: &messages.Get{Key: []byte(w.args[0])}}}
	if w.flags["stale"] {
		read.Consistency = messages.Consistency_STALE
	}
	return p.ask(w, "get "+w.args[0], &messages.Submit{Read: read})
}

func (p *player) fill(w words) *messages.Error {
	n, err := strconv.ParseUint(w.args[0], 10, 16)
	if err != nil || n == 0 {
		return messages.Errorf(messages.Code_INVALID, "%q is no number of keys", w.args[0])
	}
	for range n {
		p.filled++
		operation := &messages.Operation{Kind: &messages.Operation_Put{Put: &messages.Put{
			Key: fmt.Appendf(nil, "f%02d", p.filled), Value: fmt.Appendf(nil, "filled-%d", p.filled),
		}}}
		if refusal := p.ask(words{}, "", writing(operation)); refusal != nil {
			return refusal
		}
	}
	p.answer("%d keys are written", n)
	return nil
}

func (p *player) compact(w words) *messages.Error {
	revision, err := strconv.ParseUint(w.args[0], 10, 64)
	if err != nil {
		return messages.Errorf(messages.Code_INVALID, "%q is no revision", w.args[0])
	}
	return p.ask(w, "compact "+w.args[0], writing(&messages.Operation{
		Kind: &messages.Operation_Compact{Compact: &messages.Compact{Revision: revision}},
	}))
}

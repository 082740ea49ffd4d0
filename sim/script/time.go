package script

import (
	"strconv"
	"time"

	"keyval/messages"
)

func (p *player) waitUntil(w words) *messages.Error {
	p.until = &wanted{name: w.args[0], to: w.options["to"], from: w.options["from"]}
	p.pass(func() bool { return p.until.came })
	came := p.until.came
	p.until = nil
	if !came && !p.violated() {
		return messages.Errorf(messages.Code_TIMED_OUT, "no %s within %v", w.args[0], patience)
	}
	return nil
}

func (p *player) ticks(w words) *messages.Error {
	n, err := strconv.ParseUint(w.args[0], 10, 16)
	if err != nil {
		return messages.Errorf(messages.Code_INVALID, "%q is no number of ticks", w.args[0])
	}
	until := p.scene.Now() + time.Duration(n)*tick
	p.pass(func() bool { return p.scene.Now() >= until })
	return nil
}

func (p *player) stabilize(words) *messages.Error {
	if !p.quieten() && !p.violated() {
		p.answer("it does not come to rest within %v", patience)
	}
	return nil
}

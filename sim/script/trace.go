package script

import (
	"slices"
	"strings"

	"keyval/messages"
	"keyval/sim/phrase"
)

func (p *player) trace(w words) *messages.Error {
	if w.args[0] != "on" && w.args[0] != "off" {
		return messages.Errorf(messages.Code_INVALID, "trace is on or off, not %q", w.args[0])
	}
	f := filter{on: w.args[0] == "on"}
	for _, word := range strings.FieldsFunc(strings.Join(w.args[1:], ","), func(r rune) bool { return r == ',' }) {
		switch {
		case slices.Contains(phrase.Kinds, word):
			f.actors = append(f.actors, word)
		case word[0] >= 'A' && word[0] <= 'Z':
			f.messages = append(f.messages, word)
		default:
			return messages.Errorf(messages.Code_INVALID, "%q is neither an actor nor a message", word).
				WithHint("actors are %s; messages begin with a capital", strings.Join(phrase.Kinds, ", "))
		}
	}
	p.filter = f
	return nil
}

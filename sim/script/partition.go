package script

import (
	"strings"

	"keyval/messages"
)

// partition cuts every way between hosts of different groups.
func (p *player) partition(w words) *messages.Error {
	groups := [][]string{nil}
	for _, word := range w.args {
		if word == "|" {
			groups = append(groups, nil)
			continue
		}
		if !p.isHost(word) {
			return messages.Errorf(messages.Code_INVALID, "there is no host %q", word).
				WithHint("nodes are n1, n2, ...; the client c knows them all, c1 knows n1, c2 knows n2, ...")
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], word)
	}
	for i, group := range groups {
		for _, other := range groups[i+1:] {
			for _, a := range group {
				for _, b := range other {
					p.scene.Cut(a, b)
				}
			}
		}
	}
	return nil
}

// isHost reports whether a node or a client is named. A client starts when it is.
func (p *player) isHost(name string) bool {
	if _, there := p.server(name); there {
		return true
	}
	digits, isClient := strings.CutPrefix(name, everyone)
	if !isClient {
		return false
	}
	if digits == "" {
		p.scene.Client(everyone, p.scene.Servers())
		return true
	}
	server, there := p.server("n" + digits)
	if there {
		p.clientOf(server)
	}
	return there
}

func (p *player) heal(words) *messages.Error {
	p.scene.Mend()
	return nil
}

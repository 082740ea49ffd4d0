package transport

import (
	"strings"
	"unicode"

	"keyval/messages"
)

// wordsMax bounds a far side's words that are repeated to people, in bytes.
const wordsMax = 512

// refusal is a Refusal that is being worded.
type refusal struct{ *messages.Refusal }

func refuse(code messages.Code, format string, args ...any) *refusal {
	return &refusal{&messages.Refusal{Code: code, Message: messages.Errorf(code, format, args...).Message}}
}

func (r *refusal) hint(format string, args ...any) *refusal {
	r.Hint = messages.Errorf(r.Code, format, args...).Message
	return r
}

func refuseCluster(node string, its, wanted []byte) *refusal {
	if len(its) == 0 {
		return refuse(messages.Code_CONFLICT, "node %s belongs to no cluster yet, and cluster %x is wanted", node, wanted).
			hint("wait until it is founded, or use the endpoints of that cluster")
	}
	return refuse(messages.Code_CONFLICT, "node %s belongs to cluster %x, not to cluster %x", node, its, wanted).
		hint("check the endpoints; a node that is to change clusters needs an empty data directory")
}

// legible is what people are shown of a far side's words: a bounded line without
// controls.
func legible(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s[:min(len(s), wordsMax)], ""))
}

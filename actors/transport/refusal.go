package transport

import (
	"strings"
	"unicode"

	"keyval/messages"
)

// wordsMax bounds a far side's words that are repeated to people, in bytes.
const wordsMax = 512

// Refused is the error that an endpoint's refusal stands for.
func Refused(endpoint string, r *messages.Refusal) *messages.Error {
	return (&messages.Error{Code: r.Code, Message: Legible(r.Message), Hint: Legible(r.Hint)}).At(endpoint, "")
}

func refuseCluster(node string, its, wanted []byte) *messages.Error {
	if len(its) == 0 {
		return messages.Errorf(messages.Code_CONFLICT, "node %s belongs to no cluster yet, and cluster %x is wanted", node, wanted).
			WithHint("wait until it is founded, or use the endpoints of that cluster")
	}
	return messages.Errorf(messages.Code_CONFLICT, "node %s belongs to cluster %x, not to cluster %x", node, its, wanted).
		WithHint("check the endpoints; a node that is to change clusters needs an empty data directory")
}

// Legible makes a far side's words safe to show: one bounded line without control
// characters.
func Legible(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s[:min(len(s), wordsMax)], ""))
}

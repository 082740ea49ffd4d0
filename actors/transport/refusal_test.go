package transport

import (
	"strings"
	"testing"
)

func TestLegible(t *testing.T) {
	for in, want := range map[string]string{
		"node2, näher": "node2, näher", "a\x1b[2J\nb": "a [2J b", "": "",
		strings.Repeat("x", 2*wordsMax): strings.Repeat("x", wordsMax), strings.Repeat("x", wordsMax-1) + "ä": strings.Repeat("x", wordsMax-1),
	} {
		if got := Legible(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

package script

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"keyval/messages"
)

// Line is a line of a scenario that was played.
type Line struct {
	Number int // in the text, from 1
	Text   string
	Verb   bool   // it was played; others are prose, or blank
	Said   string // what was said meanwhile, in whole lines
}

// goldenMark stands between a verb and its golden conversation.
const goldenMark = "----"

// Play plays a scenario and hands over each of its lines, as soon as it is
// played: also the line that an error is about. Where the text holds a golden
// conversation already, that is left out.
//
// The format is that of cockroachdb/datadriven: lines that begin with # are prose,
// others are verbs; what stands between a mark and the next blank line is output.
func Play(text io.Reader, each func(Line) error) error {
	p := newPlayer()
	defer p.close()
	lines := bufio.NewScanner(text)
	inGolden := false
	for number := 1; lines.Scan(); number++ {
		line := Line{Number: number, Text: strings.TrimSpace(lines.Text())}
		switch {
		case line.Text == goldenMark:
			inGolden = true
			continue
		case line.Text == "":
			inGolden = false
		case inGolden:
			continue
		}
		var refusal error
		if line.Text != "" && !strings.HasPrefix(line.Text, "#") {
			line.Verb = true
			line.Said, refusal = p.do(line.Text)
		}
		if err := each(line); err != nil {
			return err
		}
		if refusal != nil {
			return atLine(number, refusal)
		}
	}
	if err := lines.Err(); err != nil {
		return messages.Errorf(messages.Code_INVALID, "the script cannot be read: %v", err)
	}
	return p.finish()
}

// atLine says where in a script a refusal is; a violation speaks for itself.
func atLine(number int, err error) error {
	var refusal *messages.Error
	if !errors.As(err, &refusal) {
		return err
	}
	located := *refusal
	located.Message = fmt.Sprintf("line %d: %s", number, refusal.Message)
	return &located
}

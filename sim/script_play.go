package sim

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"keyval/messages"
)

// PlayScript plays a scenario and writes its conversation: the prose and the verbs
// as they stand, and behind each verb what was said. Where the text holds a golden
// conversation already, it is left out.
//
// The format is that of cockroachdb/datadriven: lines that begin with # are prose,
// others are verbs; what stands between a mark and the next blank line is output.
func PlayScript(text io.Reader, out io.Writer) error { return playScript(text, out, "") }

// goldenMark stands between a verb and its golden conversation.
const goldenMark = "----"

// playScript writes the mark, if any, on a line of its own behind each verb.
func playScript(text io.Reader, out io.Writer, mark string) error {
	s := NewScript()
	defer s.Close()
	lines := bufio.NewScanner(text)
	inGolden := false
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		switch {
		case line == goldenMark:
			inGolden = true
			continue
		case line == "":
			inGolden = false
		case inGolden:
			continue
		}
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		said, err := s.Do(line)
		if mark != "" {
			said = mark + "\n" + said
		}
		if _, failed := io.WriteString(out, said); failed != nil {
			return failed
		}
		if err != nil {
			return atLine(number, err)
		}
	}
	if err := lines.Err(); err != nil {
		return messages.Errorf(messages.Code_INVALID, "read the script: %v", err)
	}
	return s.Finish()
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

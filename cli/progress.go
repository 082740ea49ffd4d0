package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"
)

func progressFlag() urfave.Flag {
	return &urfave.StringFlag{Name: "progress", Usage: "tell how far it is as `STYLE`: auto, plain, json or none", Value: "auto"}
}

// progress tells on stderr how far long work is.
type progress struct {
	c       *Call
	style   string        // plain, json or none
	rewrite bool          // the line before is written over
	every   time.Duration // the least between two lines
	told    time.Time     // the last
	open    bool          // a line stands that the next one writes over
}

// progress makes one. In auto, progress goes to a terminal only, unless lines are
// wanted elsewhere too. With rewrite it is one line, written over.
func (c *Call) progress(rewrite, linesOffTTY bool) (*progress, error) {
	p := &progress{c: c, style: c.flags.String("progress"), every: time.Second}
	switch {
	case !slices.Contains(choices["progress"], p.style):
		return nil, c.usage("", "--progress %q is none of %s", p.style, strings.Join(choices["progress"], ", "))
	case p.style != "auto":
	case c.Format.structured() && (c.ErrTTY || linesOffTTY):
		p.style = "json"
	case c.ErrTTY:
		p.style, p.rewrite = "plain", rewrite && c.Env("TERM") != "dumb"
	case linesOffTTY:
		p.style = "plain"
	default:
		p.style = "none"
	}
	if p.rewrite {
		p.every = 100 * time.Millisecond
	}
	return p, nil
}

// due reports whether the next line may be told already.
func (p *progress) due(now time.Time) bool {
	return p.style != "none" && now.Sub(p.told) >= p.every
}

// tell writes one line, or event as JSON.
func (p *progress) tell(now time.Time, event any, format string, args ...any) {
	p.told = now
	switch {
	case p.style == "none":
	case p.style == "json":
		encoder := json.NewEncoder(p.c.Stderr)
		encoder.SetEscapeHTML(false)
		_ = encoder.Encode(event) // a stderr that cannot be written to has nobody to be told about
	case p.rewrite:
		p.open = true
		fmt.Fprintf(p.c.Stderr, "\r"+format+"\x1b[K", args...)
	default:
		p.c.note(format, args...)
	}
}

// phase tells that a part of the work is done, on a line that stays.
func (p *progress) phase(event any, format string, args ...any) {
	switch p.style {
	case "none":
	case "json":
		p.tell(p.told, event, "")
	default:
		p.end()
		p.c.note(format, args...)
	}
}

// end removes the line that is written over.
func (p *progress) end() {
	if p.open {
		p.open = false
		fmt.Fprint(p.c.Stderr, "\r\x1b[K")
	}
}

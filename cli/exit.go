package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	urfave "github.com/urfave/cli/v2"

	"keyval/messages"
)

// What kvctl's exit codes mean to scripts. They stay.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitNotAllowed  = 4
	exitUnreachable = 5
	exitUnsafe      = 6
	exitConflict    = 7
	exitUnknown     = 8 // timed out, outcome unknown or still running
	exitDegraded    = 9
	exitInterrupted = 130 // by Ctrl-C or SIGTERM, as shells have it
)

// exitCodes is what each code of the cluster ends with; others with exitFailure.
var exitCodes = map[messages.Code]int{
	messages.Code_OK:              exitOK,
	messages.Code_INVALID:         exitUsage,
	messages.Code_NOT_FOUND:       exitNotFound,
	messages.Code_NOT_ALLOWED:     exitNotAllowed,
	messages.Code_REMOVED:         exitNotAllowed,
	messages.Code_NO_LEADER:       exitUnreachable,
	messages.Code_UNREACHABLE:     exitUnreachable,
	messages.Code_STARTING:        exitUnreachable,
	messages.Code_UNSAFE:          exitUnsafe,
	messages.Code_CONFLICT:        exitConflict,
	messages.Code_OUTCOME_UNKNOWN: exitUnknown,
	messages.Code_TIMED_OUT:       exitUnknown,
}

// quiet ends a command whose output has said everything with an exit code.
type quiet int

func (q quiet) Error() string { return fmt.Sprintf("exit code %d", int(q)) }

// report says what went wrong, on stderr, and returns the exit code.
func report(sh *Shell, app *urfave.App, style errorStyle, err error) int {
	var q quiet
	if err == nil {
		return exitOK
	}
	if errors.As(err, &q) {
		return int(q)
	}
	problem, code := explain(err)
	var usage *UsageError
	isUsage := errors.As(err, &usage)
	if isUsage && problem.Hint == "" && style.json {
		problem = problem.WithHint("%s --help", join(append([]*urfave.Command{{Name: binary}}, usage.Path...)))
	}
	var conflict *conflictError
	errors.As(err, &conflict)
	if style.json {
		writeErrorJSON(sh, problem, conflict)
		return code
	}
	writeError(sh, style, problem, conflict)
	if isUsage {
		writeUsage(sh.Stderr, app, usage.Path)
	}
	return code
}

// explain gives every error a code and a message for people.
func explain(err error) (*messages.Error, int) {
	var problem *messages.Error
	switch {
	case errors.As(err, &problem):
	case errors.Is(err, context.DeadlineExceeded):
		problem = messages.Errorf(messages.Code_TIMED_OUT, "no answer in time").WithHint("give it longer with --timeout")
	case errors.Is(err, context.Canceled):
		problem = messages.Errorf(messages.Code_INTERNAL, "interrupted")
	default:
		problem = messages.Errorf(messages.Code_INTERNAL, "%v", err)
	}
	code, known := exitCodes[problem.Code]
	if !known || code == exitOK {
		code = exitFailure
	}
	return problem, code
}

// writeError says what went wrong, and what stands where a condition did not hold; nil:
// it was not that.
func writeError(sh *Shell, style errorStyle, e *messages.Error, conflict *conflictError) {
	prefix := binary + ":"
	if style.colour {
		prefix = "\x1b[" + red + "m" + prefix + "\x1b[0m"
	}
	fmt.Fprintf(sh.Stderr, "%s %s\n", prefix, e.Message)
	if e.Endpoint != "" {
		fmt.Fprintf(sh.Stderr, "  endpoint: %s\n", e.Endpoint)
	}
	if e.RequestID != "" {
		fmt.Fprintf(sh.Stderr, "  request:  %s\n", e.RequestID)
	}
	if conflict != nil && conflict.current.Revision > 0 {
		fmt.Fprintf(sh.Stderr, "  value:    %s\n", cutCell(conflict.value))
	}
	if e.Hint != "" {
		fmt.Fprintf(sh.Stderr, "  next: %s\n", e.Hint)
	}
}

func writeErrorJSON(sh *Shell, e *messages.Error, conflict *conflictError) {
	encoder := json.NewEncoder(sh.Stderr)
	encoder.SetEscapeHTML(false)
	var current *getJSON
	if conflict != nil {
		current = &conflict.current
	}
	// A stderr that cannot be written to has nobody to be told about.
	_ = encoder.Encode(struct {
		Code      string   `json:"code"`
		Message   string   `json:"message"`
		Endpoint  string   `json:"endpoint"`
		RequestID string   `json:"request_id"`
		Hint      string   `json:"hint"`
		Current   *getJSON `json:"current,omitempty"` // what stands where a condition did not hold
	}{e.Code.String(), e.Message, e.Endpoint, e.RequestID, e.Hint, current})
}

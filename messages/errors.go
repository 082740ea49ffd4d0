package messages

import (
	"errors"
	"fmt"
	"strings"
)

// Error is the one error type that crosses actors, wires and exit codes: what
// was wrong, where, and what to do next.
type Error struct {
	Code      Code
	Message   string // what was wrong, in a sentence without a capital
	Endpoint  string // the node that said so, if one did
	RequestID string
	Hint      string // the next step, if there is one
}

// Errorf makes an Error with a code.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// WithHint names the next step.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// At names the endpoint and the request.
func (e *Error) At(endpoint, requestID string) *Error {
	c := *e
	c.Endpoint, c.RequestID = endpoint, requestID
	return &c
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Message)
	if e.Endpoint != "" {
		fmt.Fprintf(&b, " (endpoint %s)", e.Endpoint)
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, " (request %s)", e.RequestID)
	}
	return b.String()
}

// Is reports whether target is an Error that is nothing but e's code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && *t == Error{Code: t.Code}
}

// CodeOf is the code of err: OK for nil, INTERNAL for a stranger.
func CodeOf(err error) Code {
	if err == nil {
		return Code_OK
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Code_INTERNAL
}

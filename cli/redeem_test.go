package cli

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keyval/messages"
)

// TestRedemption: nodes say things, a round after the other, until one has the last word.
func TestRedemption(t *testing.T) {
	const a, b, c = "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"
	says := func(code messages.Code, final bool) *messages.InvitationAnswer {
		return &messages.InvitationAnswer{Code: code, Message: "it says " + code.String(), Final: final}
	}
	keys := &messages.InvitationAnswer{Sealed: []byte("keys"), Final: true}
	leads := func(at string) *messages.InvitationAnswer {
		return &messages.InvitationAnswer{Code: messages.Code_REDIRECT, Message: "n leads", Leader: &messages.Leader{Address: at}}
	}
	dead := messages.Errorf(messages.Code_UNREACHABLE, "nothing listens")
	lost := messages.Errorf(messages.Code_OUTCOME_UNKNOWN, "it broke")
	shut := messages.Errorf(messages.Code_NOT_ALLOWED, "it takes nobody")
	between := messages.Errorf(messages.Code_UNSAFE, "somebody is in between")
	for name, test := range map[string]struct {
		says  map[string][]any // by endpoint, in their order; the last goes on
		want  string           // the keys, or the error
		asked string           // of whom in their order; empty: that does not matter
		over  bool
	}{
		"the first":              {map[string][]any{a: {keys}, b: {keys}}, "keys", "1", false},
		"a follower":             {map[string][]any{a: {leads(b)}, b: {keys}}, "keys", "1 2", false},
		"one of whom it hears":   {map[string][]any{a: {leads(c)}, b: {dead}, c: {keys}}, "keys", "1 3", false},
		"one that leads no more": {map[string][]any{a: {leads(b), leads(a), keys}, b: {leads(a)}}, "keys", "1 2 2 1 1", false},
		"a lost answer":          {map[string][]any{a: {lost, keys}, b: {dead}}, "keys", "1 2 1", false},
		"one that lags":          {map[string][]any{a: {says(messages.Code_NOT_FOUND, false)}, b: {keys}}, "keys", "1 2", false},
		"an election":            {map[string][]any{a: {says(messages.Code_NO_LEADER, false), says(messages.Code_BUSY, true), says(messages.Code_OUTCOME_UNKNOWN, true), keys}}, "keys", "1 1 1 1", false},
		"the door opens late":    {map[string][]any{a: {shut, shut, keys}, b: {dead}}, "keys", "1 2 1 2 1", false},
		"used":                   {map[string][]any{a: {says(messages.Code_CONFLICT, true)}, b: {keys}}, "CONFLICT it says CONFLICT", "1", true},
		"somebody in between":    {map[string][]any{a: {between}, b: {keys}}, "UNSAFE somebody is in between", "1", false},
		"the door is shut":       {map[string][]any{a: {shut}, b: {dead}}, "NOT_ALLOWED this cluster has no open token", "", true},
		"nobody is there":        {map[string][]any{a: {dead}, b: {dead}}, "UNREACHABLE no node of --join has given the keys: 10.0.0.1:1: nothing listens; 10.0.0.2:1: nothing listens", "", false},
		"nobody leads":           {map[string][]any{a: {says(messages.Code_NO_LEADER, false)}, b: {dead}}, "TIMED_OUT no node of --join has given the keys: 10.0.0.1:1: it says NO_LEADER; 10.0.0.2:1: nothing listens", "", false},
		"a leader that is none":  {map[string][]any{a: {leads("nonsense")}}, "TIMED_OUT", "", false},
	} {
		synctest.Test(t, func(t *testing.T) {
			var asked []string
			turn := map[string]int{}
			r := &redemption{ask: func(_ context.Context, endpoint string, m *messages.InvitationAsk) (*messages.InvitationAnswer, error) {
				asked = append(asked, endpoint[len("10.0.0."):len("10.0.0.")+1])
				all := test.says[endpoint]
				said := all[min(turn[endpoint], len(all)-1)]
				turn[endpoint]++
				if err, is := said.(*messages.Error); is {
					return nil, err
				}
				return said.(*messages.InvitationAnswer), nil
			}}
			for _, e := range []string{a, b} {
				if test.says[e] != nil {
					r.endpoints = append(r.endpoints, e)
				}
			}
			begun := time.Now()
			answer, err := r.run(context.Background(), &messages.InvitationAsk{}, redeemPatience)
			got := string(answer.GetSealed())
			if err != nil {
				why, _ := explain(err)
				if got = why.Code.String() + " " + why.Message; why.Hint == "" && !strings.Contains(got, "it says") && why != between {
					t.Errorf("%s: no next step", name)
				}
			}
			if !strings.HasPrefix(got, test.want) || r.over != test.over || time.Since(begun) > redeemPatience {
				t.Errorf("%s: %q after %v, over %v; want %q", name, got, time.Since(begun), r.over, test.want)
			}
			if line := strings.Join(asked, " "); test.asked != "" && line != test.asked {
				t.Errorf("%s: it asks %s, want %s", name, line, test.asked)
			}
		})
	}
}

// TestConfirmingCountsAnew: a door that opened late for the keys may be late for what follows, too.
func TestConfirmingCountsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shut := 0
		r := &redemption{endpoints: []string{"10.0.0.1:1"}, ask: func(context.Context, string, *messages.InvitationAsk) (*messages.InvitationAnswer, error) {
			if shut++; shut%shutRounds != 0 {
				return nil, messages.Errorf(messages.Code_NOT_ALLOWED, "it takes nobody")
			}
			return &messages.InvitationAnswer{Final: true}, nil
		}}
		for _, patience := range []time.Duration{redeemPatience, confirmPatience} {
			if _, err := r.run(context.Background(), &messages.InvitationAsk{}, patience); err != nil {
				t.Fatal(err)
			}
		}
	})
}

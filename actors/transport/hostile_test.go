package transport

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// A Detach has no answer that could be counted against it.
func TestDetachesAreBounded(t *testing.T) {
	send := func(i *inlet, m proto.Message, times int) (err error) {
		e := &messages.Envelope{Sender: "me"}
		for range times {
			if err = i.count(e, m); err != nil {
				return err
			}
			i.window.answered()
		}
		return nil
	}
	for _, test := range []struct {
		name               string
		attaches, detaches int
		ok                 bool
	}{
		{"what was attached elsewhere", 0, detachesMax, true}, {"more than that", 0, detachesMax + 1, false},
		{"what was attached here", 1000, 1000 + detachesMax, true}, {"and more", 1000, 1001 + detachesMax, false},
	} {
		i := &inlet{window: newWindow(&pool{})}
		if err := send(i, &messages.Attach{}, test.attaches); err != nil {
			t.Fatal(err)
		}
		if err := send(i, &messages.Detach{}, test.detaches); (err == nil) != test.ok {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

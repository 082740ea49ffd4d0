package files

import (
	"os"
	"strings"
	"unicode"

	"keyval/messages"
	"keyval/storeactor/files/durable"
)

const reasonMax = 4 << 10 // bytes of a reason that are kept

// Condemn keeps the first reason: what follows is often only its effect.
func (f *directory) Condemn(reason string) error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.condemned() != nil {
		return nil
	}
	if err := durable.Replace(f.path(condemnedName), []byte(reason[:min(len(reason), reasonMax)]+"\n")); err != nil {
		return durable.Error("condemn the data directory", err)
	}
	return nil
}

// condemned is DAMAGED, with the reason, if the directory was condemned. The file
// alone condemns it, whatever it holds.
func (f *directory) condemned() error {
	text, err := durable.ReadBounded(f.path(condemnedName), reasonMax)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return durable.Error("read why the data directory was condemned", err)
	}
	reason := strings.Map(func(r rune) rune {
		if r == '\n' || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.TrimSpace(string(text)))
	return messages.Errorf(messages.Code_DAMAGED, "%s was condemned: %s", f.dir, reason).
		WithHint("this node must not serve again: put a new one in its place, and keep the directory for inspection")
}

// Suspect keeps a file only as long as there is a suspicion, so that people see that there
// is one.
func (f *directory) Suspect(s *messages.Suspicion) error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if len(s.GetAccusations()) > 0 {
		return replaceText(f.path(suspectedName), "suspicion", s)
	}
	if err := os.Remove(f.path(suspectedName)); err != nil && !os.IsNotExist(err) {
		return durable.Error("lift the suspicion of the data directory", err)
	}
	if err := durable.SyncDirectory(f.dir); err != nil {
		return durable.Error("lift the suspicion of the data directory", err)
	}
	return nil
}

func (f *directory) Suspicion() (*messages.Suspicion, error) {
	s := &messages.Suspicion{}
	_, err := readText(f.path(suspectedName), "suspicion", s)
	return s, err
}

package files

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/files/durable"
)

const reasonMax = 4 << 10 // bytes of a reason that are kept

func (f *directory) Condemn(reason string) error {
	return f.giveUp(condemnedName, "condemn the data directory", reason)
}

func (f *directory) Retire(how string) error {
	return f.giveUp(retiredName, "retire the data directory", how)
}

// giveUp keeps the first reason: what follows is often only its effect.
func (f *directory) giveUp(name, what, reason string) error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if _, given, err := f.givenUp(name); given || err != nil {
		return err
	}
	if err := durable.Replace(f.path(name), []byte(reason[:min(len(reason), reasonMax)]+"\n")); err != nil {
		return durable.Error(what, err)
	}
	return nil
}

// givenUp reads a reason, on one line. The file alone gives the directory up, whatever it
// holds.
func (f *directory) givenUp(name string) (reason string, given bool, err error) {
	text, err := durable.ReadBounded(f.path(name), reasonMax)
	switch {
	case os.IsNotExist(err):
		return "", false, nil
	case err != nil:
		return "", false, durable.Error("read why the data directory is not to be served", err)
	}
	return strings.Map(func(r rune) rune {
		if r == '\n' || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.TrimSpace(string(text))), true, nil
}

// condemned is why the directory is not to be served again: DAMAGED if it was condemned,
// REMOVED if it was retired.
func (f *directory) condemned() error {
	reason, given, err := f.givenUp(condemnedName)
	switch {
	case err != nil:
		return err
	case given:
		return messages.Errorf(messages.Code_DAMAGED, "%s was condemned: %s", f.dir, reason).
			WithHint("this node must not serve this again: %s", disk.RebuildHint)
	}
	how, given, err := f.givenUp(retiredName)
	if err == nil && given {
		return messages.Errorf(messages.Code_REMOVED, "%s is of no more use: %s", f.dir, how).
			WithHint("%s", disk.RetiredHint)
	}
	return err
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
	if err := durable.Sync(f.dir); err != nil {
		return durable.Error("lift the suspicion of the data directory", err)
	}
	return nil
}

func (f *directory) Suspicion() (*messages.Suspicion, error) {
	s := &messages.Suspicion{}
	_, err := readText(f.path(suspectedName), "suspicion", s)
	return s, err
}

func (f *directory) Lineage() (*messages.Lineage, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	lineage, _, err := f.lineage()
	return lineage, err
}

// lineage reads what stands beside the checkpoint that counts, and where.
func (f *directory) lineage() (*messages.Lineage, string, error) {
	generation, err := f.current()
	if err != nil {
		return nil, "", err
	}
	lineage, path := &messages.Lineage{}, filepath.Join(generation, lineageName)
	_, err = readText(path, "lineage", lineage)
	return lineage, path, err
}

// Confirm keeps no file where there is no lineage, so that people see that there is one.
func (f *directory) Confirm(index uint64) error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	lineage, path, err := f.lineage()
	if err != nil || len(lineage.From) == 0 || lineage.Index != index {
		return err
	}
	if err := errors.Join(os.Remove(path), durable.Sync(filepath.Dir(path))); err != nil {
		return durable.Error("end the lineage of the state", err)
	}
	return nil
}

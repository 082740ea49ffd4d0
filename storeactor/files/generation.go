package files

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/files/durable"
	"keyval/storeactor/files/wal"
)

// generationNumber is the number in the name of a generation; 0 for other names.
func generationNumber(name string) uint64 {
	var number uint64
	if n, _ := fmt.Sscanf(name, "generation-%d", &number); n != 1 || name != generationName(number) {
		return 0
	}
	return number
}

func generationName(number uint64) string {
	return fmt.Sprintf("generation-%d", number)
}

// current is the path of the generation that counts; NOT_FOUND if there is none.
func (f *directory) current() (string, error) {
	text, err := os.ReadFile(f.path(currentName))
	if os.IsNotExist(err) {
		if err := f.refuseUsed(); err != nil {
			return "", err
		}
		return "", messages.Errorf(messages.Code_NOT_FOUND, "%s is not initialised", f.dir)
	}
	if err != nil {
		return "", durable.Error("read CURRENT", err)
	}
	name, _ := strings.CutSuffix(string(text), "\n")
	if generationNumber(name) == 0 {
		return "", disk.Damaged("%s names no generation: %q", f.path(currentName), name)
	}
	switch info, err := os.Stat(f.path(name)); {
	case durable.Refused(err):
		return "", durable.Error("read the data directory", err)
	case err != nil || !info.IsDir():
		return "", disk.Damaged("%s names %s, which is missing", f.path(currentName), name)
	}
	return f.path(name), f.refuseOlder(name)
}

// refuseOlder is DAMAGED if a later generation was in use: CURRENT never goes back. One
// that was not is what a crash left of an Install.
func (f *directory) refuseOlder(current string) error {
	names, err := f.generations()
	if err != nil {
		return err
	}
	for _, name := range names {
		if generationNumber(name) <= generationNumber(current) {
			continue
		}
		last, found, err := wal.ReadWitness(f.path(name))
		if err != nil {
			return err
		}
		if found && last.Sequence > 1 {
			return disk.Damaged("%s names %s, and %s was in use since", f.path(currentName), current, name).
				WithHint("if nothing else was changed, write the line %q to %s", name, f.path(currentName))
		}
	}
	return nil
}

// currentSynced is current, made durable. A process may crash after it renamed CURRENT and
// before it synced that: the next one sees the new name, which a power cut could still
// take back.
func (f *directory) currentSynced() (string, error) {
	generation, err := f.current()
	if err != nil {
		return "", err
	}
	if err := errors.Join(durable.Sync(generation), durable.Sync(f.dir)); err != nil {
		return "", durable.Error("sync the data directory", err)
	}
	return generation, nil
}

// refuseUsed is DAMAGED if there is a generation that was in use, and no CURRENT
// to name it. A first one that was never opened is what a crash left of an
// Install; a later one has followed another.
func (f *directory) refuseUsed() error {
	names, err := f.generations()
	if err != nil {
		return err
	}
	var used []string // those with a log; others were staged, or broke off
	for _, name := range names {
		last, found, err := wal.ReadWitness(f.path(name))
		if !found && err == nil || name == firstName && err == nil && last.Sequence == 1 {
			continue
		}
		used = append(used, name)
	}
	switch missing := f.path(currentName); {
	case len(used) == 1:
		return disk.Damaged("%s is missing, and %s was in use", missing, used[0]).
			WithHint("if nothing else is missing, write the line %q to %s", used[0], missing)
	case len(used) > 1:
		return disk.Damaged("%s is missing, and %s were in use", missing, strings.Join(used, " and "))
	case len(names) > 1 || len(names) == 1 && names[0] != firstName:
		return disk.Damaged("%s is missing, and so is the generation that was in use", missing)
	}
	return nil
}

// generations are the names of all generations that are there, whole or not.
func (f *directory) generations() ([]string, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, durable.Error("read the data directory", err)
	}
	var names []string
	for _, e := range entries {
		if generationNumber(e.Name()) != 0 {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// removeStale removes generations that do not count: those before an installed
// one, unless an engine still reads there, and what a crash left of a staging. A
// condemned or damaged directory stays as it is. What cannot be removed now is
// removed another time.
func (f *directory) removeStale() {
	generation, err := f.current()
	if err != nil || f.condemned() != nil {
		return
	}
	keep := []string{generation}
	if f.engine != nil && !f.engine.Closed() {
		keep = append(keep, f.engineOf)
	}
	if f.staging != nil {
		keep = append(keep, f.staging.path)
	}
	names, err := f.generations()
	for _, name := range names {
		if path := f.path(name); !slices.Contains(keep, path) {
			err = errors.Join(err, os.RemoveAll(path))
			f.step("stale generation removed")
		}
	}
	if err != nil {
		f.logger.Warn("a state that does not count any more cannot be removed", "reason", err)
	}
}

func (f *directory) Initialised() (bool, error) {
	if err := f.condemned(); err != nil {
		return false, err
	}
	generation, err := f.current()
	switch {
	case messages.CodeOf(err) == messages.Code_NOT_FOUND:
		return false, f.refuseEmptied()
	case err != nil:
		return false, err
	}
	id, err := f.Identity()
	if err != nil {
		return false, err
	}
	return true, f.refuseAged(id, generation)
}

// refuseEmptied is DAMAGED for a directory that is founded. It has no generation.
func (f *directory) refuseEmptied() error {
	id, err := f.Identity()
	switch {
	case messages.CodeOf(err) == messages.Code_NOT_FOUND:
		return nil
	case err != nil:
		return err
	case len(id.ClusterId) > 0:
		return disk.Damaged("%s belongs to cluster %x, and its data are gone", f.dir, id.ClusterId)
	}
	return nil
}

// refuseAged is DAMAGED for a directory that is not founded, as its identity says, and
// whose log was used: the identity is an old one, or another's.
func (f *directory) refuseAged(id *messages.Identity, generation string) error {
	if len(id.ClusterId) > 0 {
		return nil
	}
	last, found, err := wal.ReadWitness(generation)
	switch {
	case err != nil:
		return err
	case !found || last.Sequence > 1:
		return disk.Damaged("the identity of %s says that its cluster was never founded, and %s was in use: the identity is older than the data", f.dir, generation)
	}
	return nil
}

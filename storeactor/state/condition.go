package state

import (
	"bytes"
	"cmp"

	"keyval/messages"
	"keyval/storeactor/disk"
)

// looked is what a command's conditions have looked at.
type looked struct {
	keys  int
	bytes int // of the keys and values of ranges
}

func (l *looked) within() bool { return l.keys <= ConditionKeysMax && l.bytes <= ConditionBytesMax }

// failing finds the first condition that does not hold for the command at revision,
// counted from 1; 0: all hold. It reports false if they look at more than they may.
func (b *Batch) failing(conditions []condition, revision uint64) (place int, within bool, err error) {
	var spent looked
	for i := range conditions {
		holds, err := b.holds(&conditions[i], revision, &spent)
		switch {
		case err != nil:
			return 0, false, err
		case !spent.within():
			return 0, false, nil
		case !holds:
			return i + 1, true, nil
		}
	}
	return 0, true, nil
}

func (b *Batch) holds(c *condition, revision uint64, spent *looked) (bool, error) {
	if len(c.to) > 0 {
		return b.holdsOver(c, revision, spent)
	}
	spent.keys++
	row, err := b.newest(c.key, c.target == targetValue, revision)
	return err == nil && c.satisfied(&row), err
}

// holdsOver looks at a range, as far as it has to.
func (b *Batch) holdsOver(c *condition, revision uint64, spent *looked) (bool, error) {
	to := c.to
	if string(to) == endOfKeys {
		to = nil
	}
	before, holds := spent.keys, true
	err := b.live(c.key, to, revision, func(row *disk.Row) bool {
		spent.keys++
		spent.bytes += len(row.Key) + len(row.Value)
		holds = c.satisfied(row)
		return holds && spent.within()
	})
	if err == nil && spent.keys == before {
		spent.keys++
		holds = c.satisfied(&disk.Row{})
	}
	return holds, err
}

// endOfKeys is a Condition.to that has no end.
const endOfKeys = "\x00"

// newest is a key's row for the command at revision, as far as a condition asks; one
// of version 0 if the key is not there.
func (b *Batch) newest(key []byte, value bool, revision uint64) (disk.Row, error) {
	if value {
		if i, found := b.search(key); found {
			return b.Rows[b.ordered[i]], nil
		}
		row, _, err := b.store.Get(key, before(revision))
		return row, err
	}
	k, err := b.find(key, revision)
	if err != nil || k.version == 0 {
		return disk.Row{}, err
	}
	return disk.Row{Revision: k.revision, Created: k.created, Version: k.version}, nil
}

// satisfied reports whether a row is as the condition says.
func (c *condition) satisfied(row *disk.Row) bool {
	order := 0
	switch c.target {
	case targetValue:
		if row.Version == 0 {
			return false
		}
		order = bytes.Compare(row.Value, c.value)
	case targetVersion:
		order = cmp.Compare(row.Version, c.number)
	case targetCreated:
		order = cmp.Compare(row.Created, c.number)
	case targetModified:
		order = cmp.Compare(row.Revision, c.number)
	}
	switch messages.Comparison(c.comparison) {
	case messages.Comparison_EQUAL:
		return order == 0
	case messages.Comparison_NOT_EQUAL:
		return order != 0
	case messages.Comparison_LESS:
		return order < 0
	}
	return order > 0
}

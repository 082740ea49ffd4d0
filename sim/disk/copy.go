package disk

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// Copy is a copy of a whole directory, as an operator or a machine's image keeps one.
type Copy struct {
	identity  *messages.Identity
	now       *generation
	heard     *messages.StartsHeard
	condemned string
	retired   string
	suspicion *messages.Suspicion
	files     map[string][]byte
}

// Copy copies the directory of a process that has ended. What was in the page cache is
// on the media of the copy.
func (d *Disk) Copy() Copy {
	return Copy{d.identity, d.now.copy(), d.heard, d.condemned, d.retired, d.suspicion, maps.Clone(d.files)}
}

// Restore ends the process and puts a copy in the place of the directory.
func (d *Disk) Restore(c Copy) {
	d.endProcess()
	d.identity, d.now, d.heard, d.files = c.identity, c.now.copy(), c.heard, maps.Clone(c.files)
	d.condemned, d.retired, d.suspicion = c.condemned, c.retired, c.suspicion
	d.before, d.faults.stateLost = nil, false
}

// RestoreLog ends the process and puts log and state of a copy in the place of those that
// count. What was counted of starts stays, and does not fit then, unless the log's witness is
// altered to fit.
func (d *Disk) RestoreLog(c Copy, fit bool) {
	d.endProcess()
	starts := d.now.starts
	d.now = c.now.copy()
	d.now.starts = starts
	if fit {
		d.now.log.count(starts.GetNumber())
	}
	d.before, d.faults.stateLost = nil, false
}

// Last is the index at which the log of the copy ends.
func (c Copy) Last() uint64 {
	last, _ := c.now.log.cached.last()
	return last
}

// LoseGeneration ends the process and takes log and state off the media: the identity
// is all that is left.
func (d *Disk) LoseGeneration() {
	d.endProcess()
	d.now, d.before = &generation{table: &table{}}, nil
}

func (g *generation) copy() *generation {
	c := &generation{table: g.table.copy(), starts: g.starts, lineage: g.lineage, log: log{
		used: g.log.used, cached: g.log.cached.clone(), durable: g.log.cached.clone(),
		witness: g.log.witness, durableWitness: g.log.witness,
	}}
	if g.checkpoint != nil {
		c.checkpoint = proto.Clone(g.checkpoint).(*messages.Checkpoint)
	}
	return c
}

func (t *table) copy() *table {
	c := &table{bytes: t.bytes}
	for _, k := range t.keys {
		versions := slices.Clone(k.versions)
		for i := range versions {
			versions[i].durable = true
		}
		c.keys = append(c.keys, &keyRows{key: k.key, versions: versions})
	}
	return c
}

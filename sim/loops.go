package sim

import (
	"slices"

	"keyval/messages"
)

// Clients also do what the blocking façade does in loops: a scan asks for page after page
// at the revision of the first, and a deletion of a range begins each step at the first
// key that is left. The loops of the façade itself block, so these stand for them.

// stepsMax bounds a loop, whose end others may keep away for ever.
const stepsMax = 30

// walk scans a range in pages. A revision of 0 is the newest: the first page's counts.
func (c *customer) walk(from, to []byte, revision uint64, steps int) {
	op := c.submit(&messages.Submit{Read: &messages.Read{Revision: revision, Kind: &messages.Read_Scan{Scan: &messages.Scan{
		From: from, To: to, Limit: 1 + uint32(c.run.load.IntN(3)),
	}}}})
	op.then = func(d *messages.Done) {
		if items := d.Read.Items; d.Read.More && len(items) > 0 && steps > 1 {
			c.walk(append(slices.Clone(items[len(items)-1].Key), 0), to, d.Read.Revision, steps-1)
		}
	}
}

// clearOut deletes a range in steps.
func (c *customer) clearOut(from, to []byte, steps int) {
	first := c.submit(&messages.Submit{Read: &messages.Read{Kind: &messages.Read_Scan{Scan: &messages.Scan{
		From: from, To: to, Limit: 1, KeysOnly: true,
	}}}})
	first.then = func(d *messages.Done) {
		if len(d.Read.Items) == 0 {
			return
		}
		at := d.Read.Items[0].Key
		step := c.submit(writing(&messages.Operation{Kind: &messages.Operation_DeleteRange{DeleteRange: &messages.DeleteRange{
			From: at, To: to, Limit: 1 + uint32(c.run.load.IntN(3)),
		}}}))
		step.then = func(d *messages.Done) {
			if d.Write.GetMore() && steps > 1 {
				c.clearOut(at, to, steps-1)
			}
		}
	}
}

// loop begins one of them.
func (c *customer) loop() {
	from, to := c.span()
	if c.run.swarm.ranges && !c.idle() && c.run.load.IntN(4) == 0 {
		c.clearOut(from, to, stepsMax)
	} else {
		c.walk(from, to, 0, stepsMax)
	}
}

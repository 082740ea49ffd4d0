package cli

import "strings"

// home is kvctl alone: how the cluster is, and what to do next.
func home(c *Call) error {
	rows, err := c.status()
	if err != nil {
		return err
	}
	outcome := c.printStatus(rows)
	if c.Format.structured() {
		return outcome
	}
	tries := suggestions(rows)
	width := 0
	for i := range tries {
		line := strings.Replace(tries[i].left, " ENDPOINTS", c.endpointFlags(), 1)
		tries[i].left = c.self() + " " + line
		width = max(width, len(tries[i].left))
	}
	c.note("\nTry:")
	for _, t := range tries {
		c.note("  %-*s  # %s", width, t.left, t.right)
	}
	return outcome
}

// suggestions are three commands that fit the cluster's state, and what for.
func suggestions(rows []nodeJSON) []helpRow {
	answered, led := 0, false
	for _, r := range rows {
		if r.problem == nil {
			answered++
			led = led || r.Role == leading || r.Leader != ""
		}
	}
	switch {
	case answered == 0:
		return []helpRow{
			{"dev", "run a cluster of three nodes here"},
			{"status --endpoints HOST:PORT,...", "look at a cluster elsewhere"},
			{"help serve", "run one node of a cluster"},
		}
	case !led:
		return []helpRow{
			{"status ENDPOINTS", "no node leads: look again"},
			{"get KEY --consistency stale ENDPOINTS", "read what one node has"},
			{"help serve", "start the nodes that do not answer"},
		}
	}
	return []helpRow{
		{"put hello world ENDPOINTS", "store a value"},
		{"get hello ENDPOINTS", "read it from any node"},
		{"help", "see all commands"},
	}
}

// endpointFlags is what a command to paste needs to reach the same cluster.
func (c *Call) endpointFlags() string {
	switch {
	case c.flags.IsSet("endpoints"):
		return " --endpoints " + quoteWord(c.flags.String("endpoints")) + c.keyArgs()
	case c.flags.IsSet("server"):
		return " --server " + quoteWord(c.flags.String("server")) + c.keyArgs()
	}
	return c.keyArgs()
}

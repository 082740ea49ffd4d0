package cli

import "strings"

// home is kvctl alone: how the cluster is, and what to do next.
func home(c *Call) error {
	rows, err := c.status()
	if err != nil {
		return err
	}
	outcome := c.printStatus(rows)
	self, flags := c.self(), c.endpointFlags()
	c.note("\nTry:")
	for _, s := range suggestions(rows) {
		c.note("  %s", strings.ReplaceAll(strings.ReplaceAll(s, "kvctl", self), " ENDPOINTS", flags))
	}
	return outcome
}

// suggestions are three commands that fit the cluster's state.
func suggestions(rows []nodeJSON) []string {
	answered, led := 0, false
	for _, r := range rows {
		if r.problem == nil {
			answered++
			led = led || r.Role == "leader" || r.Leader != ""
		}
	}
	switch {
	case answered == 0:
		return []string{
			"kvctl dev                               # run a cluster of three nodes here",
			"kvctl status --endpoints HOST:PORT,...  # look at a cluster elsewhere",
			"kvctl help serve                        # run one node of a cluster",
		}
	case !led:
		return []string{
			"kvctl status ENDPOINTS          # no node leads yet: look again",
			"kvctl help serve                # start the nodes that do not answer",
			"kvctl get KEY --consistency stale ENDPOINTS  # read what one node has",
		}
	}
	return []string{
		"kvctl put hello world ENDPOINTS",
		"kvctl get hello ENDPOINTS",
		"kvctl status --json ENDPOINTS",
	}
}

// endpointFlags is what a command to paste needs to reach the same cluster.
func (c *Call) endpointFlags() string {
	switch {
	case c.flags.IsSet("endpoints"):
		return " --endpoints " + quoteWord(c.flags.String("endpoints"))
	case c.flags.IsSet("server"):
		return " --server " + quoteWord(c.flags.String("server"))
	}
	return ""
}

package cli

import (
	"strconv"
	"time"

	"github.com/dustin/go-humanize"
	urfave "github.com/urfave/cli/v2"

	"keyval/actors"
)

// tuning is how a node treats history and followers that lag. It is not recorded in
// the data directory: each start says it anew.
type tuning struct {
	historyRevisions uint64        // 0: no bound
	historyTime      time.Duration // 0: no bound
	snapshotRate     uint64        // bytes a second
	roomBytes        int64         // 0: the default; below 0: nobody looks
	snapshotsKeep    int           // 0: all
}

const (
	envHistoryRevisions = "KVCTL_HISTORY_REVISIONS"
	envHistoryTime      = "KVCTL_HISTORY_TIME"
	envSnapshotRate     = "KVCTL_SNAPSHOT_RATE"
	envRoom             = "KVCTL_ROOM"
	envSnapshotsKeep    = "KVCTL_SNAPSHOTS_KEEP"

	defaultHistoryRevisions = "100000"
	defaultHistoryTime      = "1h"
	defaultSnapshotRate     = "64MiB"
)

func tuningFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "history-revisions", Usage: "keep the last `N` revisions readable; 0: no bound [$" + envHistoryRevisions + "]", DefaultText: defaultHistoryRevisions},
		&urfave.StringFlag{Name: "history-time", Usage: "keep what was written in the last `DURATION` readable; 0: no bound [$" + envHistoryTime + "]", DefaultText: defaultHistoryTime},
		&urfave.StringFlag{Name: "snapshot-rate", Usage: "bring a follower that lags at most `SIZE` a second, such as 64MiB [$" + envSnapshotRate + "]", DefaultText: defaultSnapshotRate},
		&urfave.StringFlag{Name: "snapshots-keep", Usage: "keep the newest `N` snapshots of this node, and delete older ones when another is written; 0: all [$" + envSnapshotsKeep + "]", DefaultText: "0"},
		&urfave.StringFlag{Name: "room", Usage: "call the disk scarce below `SIZE` free, such as 1GiB: writes are refused while a quorum needs it; 0: never [$" + envRoom + "]", DefaultText: "a tenth, 512MiB to 2GiB"},
	}
}

// setting is the text of a flag, else of its environment variable, else its default,
// and where it is from.
func (c *Call) setting(flag, env, otherwise string) (text, source string) {
	switch {
	case c.flags.IsSet(flag):
		return c.flags.String(flag), nameOr(c.sources[flag], "--"+flag)
	case c.Env(env) != "":
		return c.Env(env), env
	}
	return otherwise, "--" + flag
}

// refuseWithout refuses flags that mean nothing unless another is given too, with such a value.
func (c *Call) refuseWithout(another, value string, flags ...string) error {
	for _, f := range flags {
		if c.flags.IsSet(f) {
			return c.usage("add "+another+" "+value, "%s has no meaning without %s", nameOr(c.sources[f], "--"+f), another)
		}
	}
	return nil
}

func (c *Call) tuning() (t tuning, err error) {
	text, source := c.setting("history-revisions", envHistoryRevisions, defaultHistoryRevisions)
	if t.historyRevisions, err = strconv.ParseUint(text, 10, 64); err != nil {
		return t, c.usage("", "%s: %q is no number of revisions", source, text)
	}
	text, source = c.setting("history-time", envHistoryTime, defaultHistoryTime)
	if t.historyTime, err = time.ParseDuration(text); err != nil || t.historyTime < 0 || t.historyTime > 0 && t.historyTime < time.Second {
		return t, c.usage("", "%s: %q is no duration from 1s on, and not 0", source, text)
	}
	text, source = c.setting("snapshot-rate", envSnapshotRate, defaultSnapshotRate)
	if t.snapshotRate, err = humanize.ParseBytes(text); err != nil || t.snapshotRate < 1<<10 {
		return t, c.usage("", "%s: %q is no size from 1KiB on, such as 64MiB", source, text)
	}
	text, source = c.setting("snapshots-keep", envSnapshotsKeep, "0")
	if t.snapshotsKeep, err = strconv.Atoi(text); err != nil || t.snapshotsKeep < 0 || t.snapshotsKeep > actors.SnapshotsMax {
		return t, c.usage("", "%s: %q is no number from 0 to %d", source, text, actors.SnapshotsMax)
	}
	if text, source = c.setting("room", envRoom, ""); text != "" {
		size, err := humanize.ParseBytes(text)
		if err != nil || size > 1<<60 {
			return t, c.usage("", "%s: %q is no size, such as 1GiB", source, text)
		}
		if t.roomBytes = int64(size); size == 0 {
			t.roomBytes = -1
		}
	}
	return t, nil
}

// tuningArgs are the flags that give another node the same tuning: those that were
// chosen.
func (c *Call) tuningArgs() []string {
	var args []string
	for _, s := range []struct{ flag, env string }{
		{"history-revisions", envHistoryRevisions}, {"history-time", envHistoryTime}, {"snapshot-rate", envSnapshotRate}, {"room", envRoom}, {"snapshots-keep", envSnapshotsKeep},
	} {
		if text, _ := c.setting(s.flag, s.env, ""); text != "" {
			args = append(args, "--"+s.flag, text)
		}
	}
	return args
}

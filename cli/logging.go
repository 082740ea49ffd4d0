package cli

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
	urfave "github.com/urfave/cli/v2"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"gopkg.in/natefinch/lumberjack.v2"

	"keyval/actors/seam/production"
	"keyval/messages"
)

// Bounds of the files that a log is kept in. The smallest takes the longest line that
// production.Lines lets through.
const (
	logFileLeast = 1 << 20 // bytes
	logFileMost  = 1 << 40
	logFilesMost = 1000
	logDaysMost  = 3650
)

func logFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "log-level", Usage: "log at `LEVEL`: debug, info, warn or error", Value: "info"},
		&urfave.StringFlag{Name: "log-format", Usage: "write logs as `FORMAT`: text, or json with a line each", Value: "text"},
		&urfave.StringFlag{Name: "log-file", TakesFile: true, Usage: "write logs to `FILE` instead of stderr, and turn it when it is full"},
		&urfave.StringFlag{Name: "log-file-size", Usage: "call the file full at `SIZE`, such as 64MiB", Value: "64MiB"},
		&urfave.StringFlag{Name: "log-file-count", Usage: "keep the newest `N` full files", Value: "10"},
		&urfave.StringFlag{Name: "log-file-days", Usage: "delete full files older than `N` days; 0: at no age", Value: "0"},
	}
}

// newHandler makes what writes lines in the format of --log-format.
type newHandler func(io.Writer, *slog.HandlerOptions) slog.Handler

func textLog(to io.Writer, o *slog.HandlerOptions) slog.Handler { return slog.NewTextHandler(to, o) }

func (c *Call) logFormat() (newHandler, error) {
	switch format := c.flags.String("log-format"); format {
	case "text":
		return textLog, nil
	case "json":
		return func(to io.Writer, o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(to, o) }, nil
	default:
		return nil, c.usage("", "--log-format %q is none of %s", format, strings.Join(choices["log-format"], ", "))
	}
}

// logger writes to stderr or --log-file as --log-level and --log-format say, is sparing, and
// keeps what was said lately.
func (c *Call) logger() (*slog.Logger, *keptEvents, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.flags.String("log-level"))); err != nil {
		return nil, nil, c.usage("", "--log-level %q is none of debug, info, warn, error", c.flags.String("log-level"))
	}
	handler, err := c.logFormat()
	if err != nil {
		return nil, nil, err
	}
	to := c.Stderr
	if c.flags.String("log-file") == "" {
		if err := c.refuseWithout("--log-file", "FILE", "log-file-size", "log-file-count", "log-file-days"); err != nil {
			return nil, nil, err
		}
	} else {
		file, err := c.openLogFile()
		if err != nil {
			return nil, nil, err
		}
		lines := production.NewLines(file, handler)
		c.lines = append(c.lines, lines)
		to = lines
	}
	lately := newEvents(handler(to, &slog.HandlerOptions{Level: level}))
	return slog.New(newSparing(lately)), lately.kept, nil
}

// logFile is a file that this process alone writes to.
type logFile struct {
	*lumberjack.Logger
	lock *fileutil.LockedFile // held until the process ends
}

// openLogFile finds mistakes that the library would find at the first line, or never: it
// takes whatever bears the name for a file that it may rename, and believes that nobody else
// writes to it.
func (c *Call) openLogFile() (io.Writer, error) {
	file, err := c.logFileSettings()
	if err != nil {
		return nil, err
	}
	refuse := func(err error) error {
		return messages.Errorf(messages.Code_INVALID, "--log-file: %v", err).WithHint("name a file of its own in a directory that this node may write to")
	}
	if file.Filename, err = filepath.Abs(file.Filename); err != nil {
		return nil, refuse(err)
	}
	if to, err := filepath.EvalSymlinks(file.Filename); err == nil {
		file.Filename = to // a link would be renamed when its file is full
	}
	if is, err := os.Stat(file.Filename); err == nil && !is.Mode().IsRegular() {
		return nil, messages.Errorf(messages.Code_INVALID, "--log-file: %s is no regular file", file.Filename).
			WithHint("name a file that may be renamed when it is full; without --log-file logs go to stderr")
	}
	if err := os.MkdirAll(filepath.Dir(file.Filename), 0o755); err != nil {
		return nil, refuse(err)
	}
	// The lock has a file of its own, since the log's changes its name.
	name := file.Filename + ".lock"
	lock, err := fileutil.TryLockFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
	switch {
	case errors.Is(err, fileutil.ErrLocked):
		return nil, messages.Errorf(messages.Code_CONFLICT, "--log-file: another process writes to %s: it holds %s", file.Filename, name).
			WithHint("give each node a file of its own")
	case err != nil:
		return nil, refuse(err)
	}
	probe, err := os.OpenFile(file.Filename, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, refuse(err)
	}
	if err := probe.Close(); err != nil {
		return nil, refuse(err)
	}
	return &logFile{file, lock}, nil
}

// logFileSettings reads the flags. A full file stays beside, with the time in its name.
func (c *Call) logFileSettings() (*lumberjack.Logger, error) {
	text, source := c.setting("log-file-size", "", c.flags.String("log-file-size"))
	size, err := humanize.ParseBytes(text)
	if err != nil || size < logFileLeast || size > logFileMost {
		return nil, c.usage("", "%s: %q is no size from %s to %s, such as 64MiB", source, text, humanize.IBytes(logFileLeast), humanize.IBytes(logFileMost))
	}
	number := func(flag string, least, most int) (int, error) {
		text, source := c.setting(flag, "", c.flags.String(flag))
		n, err := strconv.Atoi(text)
		if err != nil || n < least || n > most {
			return 0, c.usage("", "%s: %q is no number from %d to %d", source, text, least, most)
		}
		return n, nil
	}
	count, err := number("log-file-count", 1, logFilesMost)
	if err != nil {
		return nil, err
	}
	days, err := number("log-file-days", 0, logDaysMost)
	if err != nil {
		return nil, err
	}
	return &lumberjack.Logger{Filename: c.flags.String("log-file"), MaxSize: int(size >> 20), MaxBackups: count, MaxAge: days}, nil
}

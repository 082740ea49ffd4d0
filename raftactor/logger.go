package raftactor

import (
	"context"
	"fmt"
	"log/slog"

	"go.etcd.io/raft/v3"
)

// raftLogger lets raft speak through slog. Its Panic panics, as raft relies on;
// its Fatal too: only the node's assembly ends a process.
type raftLogger struct{ log *slog.Logger }

var _ raft.Logger = raftLogger{}

func (l raftLogger) write(level slog.Level, format string, v []any) {
	if !l.log.Enabled(context.Background(), level) {
		return
	}
	l.log.Log(context.Background(), level, fmt.Sprintf(format, v...))
}

func (l raftLogger) writeln(level slog.Level, v []any) {
	if !l.log.Enabled(context.Background(), level) {
		return
	}
	l.log.Log(context.Background(), level, fmt.Sprint(v...))
}

// raft tells at info what an operator reads as debug: every vote, every probe.
func (l raftLogger) Debug(v ...any)                   { l.writeln(slog.LevelDebug, v) }
func (l raftLogger) Debugf(format string, v ...any)   { l.write(slog.LevelDebug, format, v) }
func (l raftLogger) Info(v ...any)                    { l.writeln(slog.LevelDebug, v) }
func (l raftLogger) Infof(format string, v ...any)    { l.write(slog.LevelDebug, format, v) }
func (l raftLogger) Warning(v ...any)                 { l.writeln(slog.LevelWarn, v) }
func (l raftLogger) Warningf(format string, v ...any) { l.write(slog.LevelWarn, format, v) }
func (l raftLogger) Error(v ...any)                   { l.writeln(slog.LevelError, v) }
func (l raftLogger) Errorf(format string, v ...any)   { l.write(slog.LevelError, format, v) }
func (l raftLogger) Fatal(v ...any)                   { panic(fmt.Sprint(v...)) }
func (l raftLogger) Fatalf(format string, v ...any)   { panic(fmt.Sprintf(format, v...)) }
func (l raftLogger) Panic(v ...any)                   { panic(fmt.Sprint(v...)) }
func (l raftLogger) Panicf(format string, v ...any)   { panic(fmt.Sprintf(format, v...)) }

package badger

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
)

// logAdapter lets Badger speak through our logger, its chatter as detail.
type logAdapter struct {
	logger *slog.Logger
	says   func(format string) // hears what is about to happen; nil: nobody does
}

func line(format string, args []any) string {
	return "badger: " + strings.TrimSpace(fmt.Sprintf(format, args...))
}

func (l logAdapter) Errorf(format string, args ...any) { l.logger.Error(line(format, args)) }
func (l logAdapter) Warningf(format string, args ...any) {
	l.logger.Warn(line(format, args))
}
func (l logAdapter) Infof(format string, args ...any) {
	if l.says != nil {
		l.says(format)
	}
	l.Debugf(format, args...)
}

func (l logAdapter) Debugf(format string, args ...any) {
	if l.logger.Enabled(context.Background(), slog.LevelDebug) {
		l.logger.Debug(line(format, args))
	}
}

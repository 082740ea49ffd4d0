package storeactor

import (
	"context"
	"log/slog"
	"slices"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// walLogger lets the WAL package speak through our logger.
func walLogger(logger *slog.Logger) *zap.Logger {
	return zap.New(walCore{logger: logger})
}

// walCore is zap's back end over a slog.Logger.
type walCore struct {
	logger *slog.Logger
}

func walLevel(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.ErrorLevel:
		return slog.LevelError
	case l == zapcore.WarnLevel:
		return slog.LevelWarn
	}
	return slog.LevelDebug // what the WAL finds worth an Info is detail to us
}

func (c walCore) Enabled(l zapcore.Level) bool {
	return c.logger.Enabled(context.Background(), walLevel(l))
}

func (c walCore) With(fields []zapcore.Field) zapcore.Core {
	return walCore{logger: c.logger.With(walAttributes(fields)...)}
}

func (c walCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

func (c walCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	c.logger.Log(context.Background(), walLevel(e.Level), "wal: "+e.Message, walAttributes(fields)...)
	return nil
}

func (c walCore) Sync() error { return nil }

func walAttributes(fields []zapcore.Field) []any {
	encoder := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(encoder)
	}
	names := make([]string, 0, len(encoder.Fields))
	for name := range encoder.Fields {
		names = append(names, name)
	}
	slices.Sort(names)
	var attributes []any
	for _, name := range names {
		attributes = append(attributes, slog.Any(name, encoder.Fields[name]))
	}
	return attributes
}

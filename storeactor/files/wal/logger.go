package wal

import (
	"context"
	"log/slog"
	"slices"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapLogger lets the WAL package speak through our logger.
func zapLogger(logger *slog.Logger) *zap.Logger {
	return zap.New(core{logger: logger})
}

// core is zap's back end over a slog.Logger.
type core struct {
	logger *slog.Logger
}

func levelOf(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.ErrorLevel:
		return slog.LevelError
	case l == zapcore.WarnLevel:
		return slog.LevelWarn
	}
	return slog.LevelDebug // what the WAL finds worth an Info is detail to us
}

func (c core) Enabled(l zapcore.Level) bool {
	return c.logger.Enabled(context.Background(), levelOf(l))
}

func (c core) With(fields []zapcore.Field) zapcore.Core {
	return core{logger: c.logger.With(attributes(fields)...)}
}

func (c core) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

func (c core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	c.logger.Log(context.Background(), levelOf(e.Level), "wal: "+e.Message, attributes(fields)...)
	return nil
}

func (c core) Sync() error { return nil }

func attributes(fields []zapcore.Field) []any {
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

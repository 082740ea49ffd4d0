package cli

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace"

	"keyval/actors/telemetry"
)

// TestTracingFlags: what cannot work is refused with the flag's name, before anything is
// sent; and a name that is only known later is the one that spans carry.
func TestTracingFlags(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		line, fail, warns string
		env               string // a variable that names the empty file
		traces            bool
		begins            int // of 100 requests, where that is sure
	}{
		{line: ""},
		{line: "--tracing-endpoint http://127.0.0.1:4317 --tracing-ratio 0", traces: true},
		{line: "--tracing-endpoint https://collector:4317/ --tracing-ratio 1", traces: true, begins: 100},
		{line: "--tracing-endpoint http://10.0.0.1:4317 --tracing-ratio 0", traces: true, warns: "warning: spans go to 10.0.0.1:4317 unencrypted"},
		{line: "--tracing-endpoint 127.0.0.1:4317", fail: `--tracing-endpoint: "127.0.0.1:4317" is no URL of a collector`},
		{line: "--tracing-endpoint http://127.0.0.1:4317/v1/traces", fail: `is no URL of a collector`},
		{line: "--tracing-endpoint http://collector", fail: `--tracing-endpoint: "http://collector" is no URL of a collector`},
		{line: "--tracing-endpoint grpc://collector:4317", fail: `is no URL of a collector`},
		{line: "--tracing-endpoint http://127.0.0.1:4317 --tracing-ratio 1.5", fail: `--tracing-ratio: "1.5" is no number from 0 to 1`},
		{line: "--tracing-endpoint http://127.0.0.1:4317 --tracing-ratio NaN", fail: `--tracing-ratio: "NaN" is no number from 0 to 1`},
		{line: "--tracing-ratio 0.5", fail: "--tracing-ratio has no meaning without --tracing-endpoint"},
		{line: "--tracing-cacert ca.pem", fail: "--tracing-cacert has no meaning without --tracing-endpoint"},
		{line: "--tracing-endpoint http://127.0.0.1:4317 --tracing-cacert " + empty, fail: "--tracing-cacert has no meaning with http://"},
		{line: "--tracing-cert c.pem", fail: "--tracing-cert has no meaning without --tracing-endpoint"},
		{line: "--tracing-endpoint http://127.0.0.1:4317 --tracing-key " + empty, fail: "--tracing-key has no meaning with http://"},
		{line: "--tracing-endpoint https://127.0.0.1:4317 --tracing-cert " + empty, fail: "--tracing-cert and --tracing-key are needed together"},
		{line: "--tracing-endpoint https://127.0.0.1:4317 --tracing-cert " + empty + " --tracing-key " + empty, fail: "--tracing-cert, --tracing-key: tls: failed to find any PEM data"},
		{line: "--tracing-endpoint https://127.0.0.1:4317", env: "OTEL_EXPORTER_OTLP_CERTIFICATE", fail: "OTEL_EXPORTER_OTLP_CERTIFICATE: " + empty + " holds no certificate"},
		{line: "--tracing-endpoint https://127.0.0.1:4317", env: "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", fail: "--tracing-cert and OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY are needed together"},
		{line: "--tracing-endpoint https://127.0.0.1:4317 --tracing-cacert " + empty, fail: "holds no certificate that can be read"},
		{line: "--tracing-endpoint https://127.0.0.1:4317 --tracing-cacert " + empty + ".none", fail: "holds no certificate that can be read"},
	} {
		var said bytes.Buffer
		var traces func(string) trace.TracerProvider
		sh := &Shell{Stderr: &said, Stdout: io.Discard, Env: func(name string) string { return map[string]string{row.env: empty}[name] }}
		app := newApp(sh)
		named(app.Commands, "serve").Action = sh.action(func(c *Call) error {
			of, end, err := c.openTracing(slog.New(slog.DiscardHandler))
			if traces = of; end != nil {
				t.Cleanup(end)
			}
			return err
		})
		line, err := Normalize(app, append([]string{"kvctl", "serve"}, strings.Fields(row.line)...))
		if err != nil {
			t.Fatal(err)
		}
		err = app.RunContext(t.Context(), line.Argv)
		if row.fail != "" {
			if err == nil || !strings.Contains(err.Error(), row.fail) {
				t.Errorf("%s: %v, want %s", row.line, err, row.fail)
			}
			continue
		}
		if err != nil || (traces != nil) != row.traces || strings.TrimSpace(said.String()) != row.warns {
			t.Errorf("%s: %v, traces: %v, says %q", row.line, err, traces != nil, &said)
			continue
		}
		begins := 0
		for range 100 {
			if row.traces && traces("n1").(telemetry.Chooser).Begins() {
				begins++
			}
		}
		if begins != row.begins {
			t.Errorf("%s: %d of 100 requests begin a trace", row.line, begins)
		}
	}
}

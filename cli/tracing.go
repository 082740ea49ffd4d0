package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"strconv"
	"time"

	urfave "github.com/urfave/cli/v2"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/credentials"

	"keyval/actors/telemetry"
	"keyval/actors/transport/grpc"
	"keyval/messages"
)

const defaultTracingRatio = "0.01"

// Bounds of what waits for a collector: spans beyond it are lost, and nobody waits for them.
const (
	spansMax      = 4096 // in number
	spansBatchMax = 512  // the same, at once
	spansEvery    = time.Second
	spansLastMax  = 2 * time.Second // for what is left when the process ends
)

func tracingFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "tracing-endpoint", Usage: "send spans by OTLP over gRPC to the collector at `URL`: https://HOST:PORT, or http:// where the network is trusted"},
		&urfave.StringFlag{Name: "tracing-ratio", Usage: "trace this `SHARE` of the requests whose client does not say whether it traces, from 0 to 1", DefaultText: defaultTracingRatio},
		&urfave.StringFlag{Name: "tracing-cacert", TakesFile: true, Usage: "trust the collector's certificate by the authorities in `FILE`", DefaultText: "the system's"},
		&urfave.StringFlag{Name: "tracing-cert", TakesFile: true, Usage: "prove to the collector who this is by the certificate in `FILE`, with --tracing-key"},
		&urfave.StringFlag{Name: "tracing-key", TakesFile: true, Usage: "the key of --tracing-cert is in `FILE`"},
	}
}

// tracingFile is a file that a flag names, or else the variables that OpenTelemetry has for it.
func (c *Call) tracingFile(flag, otel string) (file, source string) {
	if file = c.flags.String(flag); file != "" {
		return file, nameOr(c.sources[flag], "--"+flag)
	}
	for _, of := range []string{"OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"} {
		if file = c.Env(of + otel); file != "" {
			return file, of + otel
		}
	}
	return "", "--" + flag
}

// openTracing makes what traces go to, and what ends it. It is nil if that was not asked for. A
// collector that is not there is no error: spans are lost until it is.
func (c *Call) openTracing(logger *slog.Logger) (traces func(node string) trace.TracerProvider, end func(), err error) {
	options, share, err := c.tracing()
	if err != nil {
		return nil, nil, err
	}
	if options == nil {
		return nil, func() {}, nil
	}
	exporter, err := otlptracegrpc.New(context.Background(), options...)
	if err != nil {
		return nil, nil, messages.Errorf(messages.Code_INVALID, "--tracing-endpoint: %v", err).WithHint("write it as https://HOST:PORT")
	}
	p := provider{share: share}
	traces = func(node string) trace.TracerProvider {
		if p.TracerProvider == nil { // else the same node goes on, which has joined
			p.TracerProvider = sdk.NewTracerProvider(
				sdk.WithIDGenerator(telemetry.IDs{}), sdk.WithSampler(sdk.ParentBased(sdk.AlwaysSample())),
				sdk.WithSpanProcessor(sdk.NewBatchSpanProcessor(&saying{SpanExporter: exporter, logger: logger},
					sdk.WithMaxQueueSize(spansMax), sdk.WithMaxExportBatchSize(spansBatchMax), sdk.WithBatchTimeout(spansEvery))),
				sdk.WithResource(resource.NewSchemaless(
					attribute.String("service.name", "keyval"), attribute.String("service.instance.id", node), attribute.String("service.version", version()))),
			)
		}
		return p
	}
	return traces, func() {
		if p.TracerProvider != nil {
			ctx, cancel := context.WithTimeout(context.Background(), spansLastMax)
			defer cancel()
			_ = p.Shutdown(ctx) // what did not arrive is lost
		}
	}, nil
}

// tracing reads the flags. No options: nobody asked for traces.
func (c *Call) tracing() (options []otlptracegrpc.Option, share float64, err error) {
	endpoint := c.flags.String("tracing-endpoint")
	if endpoint == "" {
		return nil, 0, c.refuseWithout("--tracing-endpoint", "URL", "tracing-ratio", "tracing-cacert", "tracing-cert", "tracing-key")
	}
	if options, err = c.collector(endpoint); err != nil {
		return nil, 0, err
	}
	ratio := nameOr(c.flags.String("tracing-ratio"), defaultTracingRatio)
	share, err = strconv.ParseFloat(ratio, 64)
	if err != nil || !(share >= 0 && share <= 1) {
		return nil, 0, c.usage("", "--tracing-ratio: %q is no number from 0 to 1, such as 0.01", ratio)
	}
	return options, share, nil
}

// tracingArgs are the flags that have another node trace the same way.
func (c *Call) tracingArgs() (args []string) {
	for _, f := range tracingFlags() {
		if name := f.Names()[0]; c.flags.String(name) != "" {
			args = append(args, "--"+name, c.flags.String(name))
		}
	}
	return args
}

// collector reads what the flags say of whom spans go to.
func (c *Call) collector(endpoint string) ([]otlptracegrpc.Option, error) {
	at, err := url.Parse(endpoint)
	if err != nil || at.Scheme != "http" && at.Scheme != "https" || at.Path != "" && at.Path != "/" || grpc.CheckReachable(at.Host) != nil {
		return nil, c.usage("write https://HOST:PORT, or http://HOST:PORT where nobody else is on the way", "--tracing-endpoint: %q is no URL of a collector", endpoint)
	}
	options := []otlptracegrpc.Option{otlptracegrpc.WithEndpoint(at.Host), otlptracegrpc.WithTimeout(5 * time.Second)}
	if at.Scheme == "http" {
		for _, f := range []string{"tracing-cacert", "tracing-cert", "tracing-key"} {
			if c.flags.String(f) != "" {
				return nil, c.usage("write --tracing-endpoint https://"+at.Host, "%s has no meaning with http://", nameOr(c.sources[f], "--"+f))
			}
		}
		if !grpc.Loopback(at.Host) {
			c.note("warning: spans go to %s unencrypted", at.Host)
		}
		return append(options, otlptracegrpc.WithInsecure()), nil
	}
	config, err := c.collectorTLS()
	if err != nil {
		return nil, err
	}
	return append(options, otlptracegrpc.WithTLSCredentials(credentials.NewTLS(config))), nil
}

// collectorTLS is whom the collector's certificate has to be from, and the own one, if it asks for
// that. Its files are read anew for each connection.
func (c *Call) collectorTLS() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if authorities, source := c.tracingFile("tracing-cacert", "CERTIFICATE"); authorities != "" {
		text, err := os.ReadFile(authorities)
		if config.RootCAs = x509.NewCertPool(); err != nil || !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, messages.Errorf(messages.Code_INVALID, "%s: %s holds no certificate that can be read", source, authorities).WithHint("name a file of certificates as PEM")
		}
	}
	cert, source := c.tracingFile("tracing-cert", "CLIENT_CERTIFICATE")
	key, keySource := c.tracingFile("tracing-key", "CLIENT_KEY")
	if cert == "" && key == "" {
		return config, nil
	}
	if cert == "" || key == "" {
		return nil, c.usage("give both", "%s and %s are needed together", source, keySource)
	}
	if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
		return nil, messages.Errorf(messages.Code_INVALID, "%s, %s: %v", source, keySource, err).WithHint("name a certificate and its key as PEM")
	}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(cert, key)
		return &pair, err
	}
	return config, nil
}

// provider begins traces of a share of the requests, and of all operations of members: they are few.
type provider struct {
	*sdk.TracerProvider
	share float64
}

// Begins implements telemetry.Chooser.
func (p provider) Begins() bool { return rand.Float64() < p.share }

// saying tells once that a collector does not take spans, and once that it does again. Its
// processor exports one batch at a time.
type saying struct {
	sdk.SpanExporter
	logger *slog.Logger
	fails  bool
}

func (s *saying) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := s.SpanExporter.ExportSpans(ctx, spans)
	switch {
	case err != nil && !s.fails:
		s.logger.Warn("spans are lost: the collector does not take them", "reason", err, "hint", "look at the collector, and at --tracing-endpoint")
	case err == nil && s.fails:
		s.logger.Info("the collector takes spans again")
	}
	s.fails = err != nil
	return nil
}

package inside

import (
	"context"
	"crypto/tls"
	"embed"
	"encoding/json"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"keyval/actors/client"
	"keyval/actors/transport/grpc"
	"keyval/actors/transport/keys"
	"keyval/cli/doctor"
)

// Bounds of what those who look may take from a node.
const (
	headerMax  = 8 << 10          // of one request, in bytes
	requestMax = 5 * time.Second  // from the connection, or the answer before, to the end of a request; for a handshake too
	answerMax  = 40 * time.Second // a profile takes 30 s
	idleMax    = time.Minute
)

// Options say what is served.
type Options struct {
	Version string
	Profile bool         // serve /debug/pprof too
	Keys    *keys.Ring   // of the node; nil: nothing is secured, and everybody may look
	Plain   bool         // nothing is secured all the same, and everybody may look
	Logger  *slog.Logger // hears of connections that fail; nil: nobody does
}

// Page serves what can be seen of a node, without being told anything that changes it:
//
//	/            a page for eyes
//	/state       what it shows, as JSON
//	/metrics     for Prometheus
//	/livez       200 as long as the process should live
//	/readyz      200 if the node can serve; ?verbose names each check, ?exclude=NAME leaves one out
//	/version
//
// With keys all of it is under TLS, and what tells of the node, or of others, is for those
// users alone who may ask for its status.
type Page struct {
	Registry *prometheus.Registry // where the node's actors count

	own     *prometheus.Registry // what the node is asked for, and what there is of every process
	source  source
	options Options
	server  http.Server
}

// Open serves at a listener until Close.
func Open(listener net.Listener, o Options) *Page {
	p := &Page{Registry: prometheus.NewRegistry(), own: prometheus.NewRegistry(), options: o}
	p.own.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collector{&p.source})
	p.server = http.Server{
		Handler: counted(p.routes()), ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, whose{}, visitorOf(c))
		},
		ReadTimeout: requestMax, WriteTimeout: answerMax, IdleTimeout: idleMax, MaxHeaderBytes: headerMax, ErrorLog: log.New(complaintsTo(o.Logger), "", 0),
	}
	listener = &door{Listener: listener}
	if o.Keys != nil && !o.Plain {
		listener = tls.NewListener(listener, o.Keys.Page())
	}
	go p.server.Serve(listener) // until Close
	return p
}

// complaints are what the server says of connections, for the node's log. Whoever comes causes them.
type complaints struct{ log *grpc.Limited } // nil: nobody hears of them

func complaintsTo(logger *slog.Logger) complaints {
	if logger == nil {
		return complaints{}
	}
	return complaints{grpc.NewLimited(logger, "")}
}

func (c complaints) Write(line []byte) (int, error) {
	if c.log != nil {
		c.log.Warn("a connection to the page failed", "reason", strings.TrimSpace(strings.TrimPrefix(string(line), "http: ")))
	}
	return len(line), nil
}

type whose struct{}

// counted has the door know whose requests are being answered.
func counted(then http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := r.Context().Value(whose{}).(*visitor)
		v.answers(1)
		defer v.answers(-1)
		then.ServeHTTP(w, r)
	})
}

// Close ends it.
func (p *Page) Close() { p.server.Close() }

// Running is told of the node that runs now.
func (p *Page) Running(n Node) { p.source.set(n) }

//go:embed page.html
var page embed.FS

func (p *Page) routes() http.Handler {
	routes := http.NewServeMux()
	routes.HandleFunc("GET /{$}", p.guarded(toLook, func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, page, "page.html") }))
	routes.HandleFunc("GET /state", p.guarded(toLook, p.serveState))
	routes.HandleFunc("GET /metrics", p.guarded(toLook, promhttp.HandlerFor(prometheus.Gatherers{p.own, p.Registry}, promhttp.HandlerOpts{EnableOpenMetrics: true}).ServeHTTP))
	routes.HandleFunc("GET /livez", p.serveChecks(alive))
	routes.HandleFunc("GET /readyz", p.serveChecks(ready))
	routes.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]string{"version": p.options.Version})
	})
	if p.options.Profile {
		routes.HandleFunc("GET /debug/pprof/", p.guarded(toProfile, pprof.Index))
		routes.HandleFunc("GET /debug/pprof/profile", p.guarded(toProfile, pprof.Profile))
		routes.HandleFunc("GET /debug/pprof/trace", p.guarded(toProfile, pprof.Trace))
		routes.HandleFunc("GET /debug/pprof/symbol", p.guarded(toProfile, pprof.Symbol))
	}
	return routes
}

// serveChecks answers as Kubernetes does: 200 and ok, or 503 and what fails.
func (p *Page) serveChecks(of func(facts) []check) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		checks, unknown := without(of(p.source.ask(r.Context())), r.URL.Query()["exclude"])
		_, verbose := r.URL.Query()["verbose"]
		var text strings.Builder
		status, verdict := http.StatusOK, "ok"
		for _, c := range checks {
			switch {
			case c.fail != "":
				status, verdict = http.StatusServiceUnavailable, "failed"
				fmt.Fprintf(&text, "[-] %s: %s\n", c.name, c.fail)
			case verbose:
				fmt.Fprintf(&text, "[+] %s\n", c.name)
			}
		}
		if len(unknown) > 0 {
			fmt.Fprintf(&text, "there are no checks %q to exclude\n", unknown)
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(status)
		fmt.Fprintf(w, "%s%s\n", text.String(), verdict)
	}
}

// state is what the page shows.
type state struct {
	Node       string                      `json:"node"`
	Version    string                      `json:"version"`
	Serves     bool                        `json:"serves"`
	Why        string                      `json:"why"` // it does not; else empty
	Revision   uint64                      `json:"revision,string"`
	RoomBytes  uint64                      `json:"room_bytes"`
	LogBytes   uint64                      `json:"log_bytes"`
	Cluster    *client.ClusterInfo         `json:"cluster"`
	Health     *client.ClusterHealth       `json:"health"`
	Found      []doctor.Finding            `json:"found"` // as kvctl doctor says it, by what this node knows
	Operations []*client.ReplaceNodeStatus `json:"operations"`
	Rooms      map[string]uint64           `json:"member_room_bytes"` // by member, where it is known
	Events     []event                     `json:"events"`            // of this node's log, the newest last
}

// event is a line of the log.
type event struct {
	At    time.Time `json:"at"`
	Level string    `json:"level"`
	Text  string    `json:"text"`
}

func (p *Page) serveState(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, stateOf(p.source.ask(r.Context()), p.options.Version))
}

func stateOf(f facts, version string) state {
	s := state{Version: version, Found: []doctor.Finding{}, Operations: []*client.ReplaceNodeStatus{}, Rooms: map[string]uint64{}, Events: []event{}}
	if f.status == nil {
		s.Why = f.why.Error()
		return s
	}
	s.Serves, s.Node, s.Revision, s.RoomBytes, s.LogBytes = true, f.status.Name, f.status.Revision, f.status.RoomBytes, f.status.LogBytes
	s.Cluster, s.Health = f.cluster.Info(), f.cluster.Health(nil)
	s.Found = append(s.Found, doctor.Examine(f.examined())...)
	s.Operations = append(s.Operations, f.cluster.Operations()...)
	for _, m := range f.cluster.GetView().GetMembers() {
		if m.RoomBytes > 0 {
			s.Rooms[m.Member.Name] = m.RoomBytes
		}
	}
	for _, e := range f.status.Events {
		s.Events = append(s.Events, event{time.UnixMilli(e.AtMs).UTC(), e.Level, e.Text})
	}
	return s
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v) // whoever asked is gone, then
}

// Package metrics counts what a server does, for Prometheus: text over http, on an
// address that only the machine itself reaches ([metrics] listen). Labels are from
// short lists; none is the name of an app, a key or an address, so that the number
// of series does not grow with use.
package metrics

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"scotch/deployer"
)

// Source is asked for what is counted elsewhere, at each scrape.
type Source struct {
	Deployer func() deployer.Stats
	// Sessions of ssh that are open now, and those ever opened.
	Sessions func() (open, total int64)
}

// Metrics is a deployer.Observer. Make one with New.
type Metrics struct {
	registry   *prometheus.Registry
	deploys    *prometheus.CounterVec
	operations *prometheus.CounterVec
	stages     *prometheus.HistogramVec
	whole      prometheus.Histogram
	refused    *prometheus.CounterVec
}

// New makes the metrics. version is scotch's.
func New(version string, from Source) *Metrics {
	// From a redeploy that reuses all to an install of many minutes.
	buckets := []float64{.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600}
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		deploys: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "scotch_deploys_total", Help: "Deploys that began, by result: live, failed, cancelled.",
		}, []string{"result"}),
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "scotch_operations_total", Help: "Operations on apps that switch, by what they are and their result.",
		}, []string{"operation", "result"}),
		stages: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "scotch_deploy_stage_seconds", Help: "How long the stages of deploys took, failed ones too.", Buckets: buckets,
		}, []string{"stage"}),
		whole: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "scotch_deploy_seconds", Help: "From the beginning of a deploy, its wait in the queue left out, until it was live.", Buckets: buckets,
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "scotch_ssh_refused_total", Help: "Connections and sessions of ssh that were refused, by reason: key, limit.",
		}, []string{"reason"}),
	}
	// A series that begins with its first event hides that event from rate().
	for _, r := range results() {
		m.deploys.WithLabelValues(r)
	}
	for _, s := range []string{"checkout", "register"} {
		m.stages.WithLabelValues(s)
	}
	for _, r := range []string{"key", "limit"} {
		m.refused.WithLabelValues(r)
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "scotch_info", Help: "Always 1.", ConstLabels: prometheus.Labels{"version": version}})
	info.Set(1)
	m.registry.MustRegister(m.deploys, m.operations, m.stages, m.whole, m.refused, info, newState(from),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func results() []string { return []string{"live", "failed", "cancelled"} }

// Observe implements deployer.Observer.
func (m *Metrics) Observe(e deployer.Event) {
	result := string(e.State)
	switch {
	case e.State == deployer.EventStarted:
		return
	case e.Cancelled:
		result = "cancelled"
	}
	what := e.What
	if !slices.Contains([]string{"deploy", "restart", "start", "rollback", "rebuild", "change"}, what) {
		what = "other"
	}
	m.operations.WithLabelValues(what, result).Inc()
	if what != "deploy" {
		return
	}
	m.deploys.WithLabelValues(result).Inc()
	for _, s := range e.Stages {
		m.stages.WithLabelValues(s.Stage).Observe(s.Took.Seconds())
	}
	if e.State == deployer.EventLive {
		m.whole.Observe(e.Took.Seconds())
	}
}

// Refused counts a connection or a session that was not let in, for its key or
// for a limit.
func (m *Metrics) Refused(limit bool) {
	reason := "key"
	if limit {
		reason = "limit"
	}
	m.refused.WithLabelValues(reason).Inc()
}

// Serve answers at /metrics until ctx is done, and closes l.
func (m *Metrics) Serve(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 20 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// state is what is asked for at each scrape.
type state struct {
	from                                                      Source
	apps, waiting, running, restarts, sessions, sessionsTotal *prometheus.Desc
}

func newState(from Source) *state {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &state{
		from:          from,
		apps:          desc("scotch_apps", "Apps by state.", "state"),
		waiting:       desc("scotch_queue_length", "Operations that wait for their app's turn."),
		running:       desc("scotch_operations_running", "Operations that have their app's turn."),
		restarts:      desc("scotch_app_restarts_total", "Processes of apps that ended by themselves and were started again."),
		sessions:      desc("scotch_ssh_sessions", "Sessions of ssh that are open."),
		sessionsTotal: desc("scotch_ssh_sessions_total", "Sessions of ssh since the server's start."),
	}
}

func (s *state) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{s.apps, s.waiting, s.running, s.restarts, s.sessions, s.sessionsTotal} {
		ch <- d
	}
}

func (s *state) Collect(ch chan<- prometheus.Metric) {
	put := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	now := s.from.Deployer()
	for name, n := range now.Apps {
		put(s.apps, prometheus.GaugeValue, float64(n), name)
	}
	put(s.waiting, prometheus.GaugeValue, float64(now.Waiting))
	put(s.running, prometheus.GaugeValue, float64(now.Running))
	put(s.restarts, prometheus.CounterValue, float64(now.Restarts))
	open, total := s.from.Sessions()
	put(s.sessions, prometheus.GaugeValue, float64(open))
	put(s.sessionsTotal, prometheus.CounterValue, float64(total))
}

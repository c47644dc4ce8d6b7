package main

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"github.com/sirupsen/logrus"

	"scotch/config"
	"scotch/deployer"
	"scotch/deployer/metrics"
	"scotch/deployer/notify"
	"scotch/gitserver"
	"scotch/gitserver/access"
	"scotch/gitserver/audit"
)

// observers are those who are told of what goes on: the audit log, [notify] and
// [metrics].
type observers struct {
	audit   *audit.Log
	notify  *notify.Notifier
	metrics *metrics.Metrics // nil where [metrics] listen is not set
}

// newObservers makes them. Where what they count comes from is known later: see count.
func newObservers(site *config.Site, run deployer.Runner, log logrus.FieldLogger) (*observers, error) {
	// What cannot be written is told, and keeps nothing from being done.
	if err := new(deployer.Files).MkdirAll("make-logs", site.Paths.Logs, site.DirMode); err != nil {
		log.Errorf("making the directory of logs: %v", err)
	}
	return &observers{
		audit: &audit.Log{
			Path: filepath.Join(site.Paths.Logs, "audit.log"), Size: site.Server.LogSize, Keep: site.Server.LogKeep,
			Report: func(err error) {
				if err != nil {
					log.Errorf("%v", err)
					return
				}
				log.Info("the audit log is written again")
			},
		},
		notify: notify.New(notify.Options{Notify: site.Notify, Runner: run, User: gitUser(site), Log: log}),
	}, nil
}

// count opens [metrics] listen, and says where the numbers come from. l is nil
// where it is not set.
func (o *observers) count(site *config.Site, d *deployer.Deployer, sshd *gitserver.Server) (l net.Listener, err error) {
	if site.Metrics.Listen == "" {
		return nil, nil
	}
	if l, err = net.Listen("tcp", site.Metrics.Listen); err != nil {
		return nil, fmt.Errorf("listening for [metrics] at %q: %w\nanother program has that address; [metrics] listen says which to take", site.Metrics.Listen, err)
	}
	o.metrics = metrics.New(version(), metrics.Source{Deployer: d.Stats, Sessions: sshd.Sessions})
	return l, nil
}

// serve answers for metrics until ctx is done.
func (o *observers) serve(ctx context.Context, l net.Listener) error {
	if l == nil {
		return nil
	}
	return o.metrics.Serve(ctx, l)
}

// close ends them, when nothing is to be told any more.
func (o *observers) close() {
	o.notify.Close()
	o.audit.Close()
}

// Observe implements deployer.Observer.
func (o *observers) Observe(e deployer.Event) {
	o.notify.Observe(e)
	if o.metrics != nil {
		o.metrics.Observe(e)
	}
	if e.State == deployer.EventStarted {
		return // its end is recorded
	}
	entry := audit.Entry{
		Kind: audit.Switch, By: e.By.Name, Key: e.By.Key, From: e.By.From, Verb: e.What, App: e.App, OldRelease: e.OldRelease, Old: e.Old, Release: e.Release, New: e.Commit,
		Result: audit.OK, Reason: e.Reason, Seconds: e.Took.Seconds(),
	}
	if e.State == deployer.EventFailed {
		entry.Result, entry.Status = audit.Failed, 1
	}
	o.audit.Record(entry)
}

// Record implements gitserver.Auditor.
func (o *observers) Record(e audit.Entry) {
	o.audit.Record(e)
	if e.Kind == audit.Refused && e.Verb != gitserver.RefusedFetch && o.metrics != nil { // which counts connections
		o.metrics.Refused(e.Verb == gitserver.RefusedByLimit)
	}
}

// record records the end of a command of this session.
func (s *session) record(begin time.Time, status int) {
	if s.srv == nil || s.srv.seen == nil {
		return
	}
	e := s.did
	e.Kind, e.By, e.Key, e.From = audit.Command, s.who.Name, s.who.Fingerprint, s.who.Addr
	e.Status, e.Seconds = status, time.Since(begin).Seconds()
	if s.who.Local {
		e.From = "local"
	}
	switch {
	case e.Result != "":
	case status == 0:
		e.Result = audit.OK
	default:
		e.Result = audit.Failed
	}
	// Whom reading is allowed to changes nothing.
	reads := access.May(access.Identity{Role: access.Read}, access.Verb(e.Verb), e.App)
	e.Idle = e.Result == audit.Denied || status == exitUsage || reads
	s.srv.seen.audit.Record(e)
}

// actor is who runs the command, as the deployer records it.
func (s *session) actor() deployer.Actor {
	return deployer.Actor{Name: s.who.Name, Key: s.who.Fingerprint, From: s.who.Addr}
}

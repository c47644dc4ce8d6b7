package deployer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"scotch/config"
)

// zeroID is how git writes "no such object".
const zeroID = "0000000000000000000000000000000000000000"

// register makes a checked-out instance live. ref is the branch that moves
// with the switch, empty where none does (a restart).
func (op *operation) register(ctx context.Context, a *config.App, rec *Record, refs []RefUpdate) (*member, error) {
	d := op.d
	op.report.Stage("register")
	if err := op.allowed(); err != nil {
		return nil, err
	}
	if op.handOver != nil {
		if err := op.handOver(); err != nil {
			return nil, fmt.Errorf("giving the app's data to its new user: %w", err)
		}
	}
	if a.Release != "" && op.what == "deploy" {
		// From here on it may have changed a database, also when it fails.
		rec.Released = true
		op.noteBegun("register", true)
		if err := op.command(ctx, a, rec, "release", a.Release, nil); err != nil {
			return nil, remains(err)
		}
	}
	m, err := op.boot(ctx, a, rec)
	if err != nil {
		return nil, op.afterRelease(rec, err)
	}
	op.next = m
	old := op.nowLive()
	rec.Outside, rec.Settings = op.outside, a.Settings()
	rec.Watch, rec.Previous = 0, ""
	if op.what == "deploy" {
		rec.Watch = a.Health.Watch
	}
	if err := d.render(a, op.l, rec); err != nil {
		return nil, op.afterRelease(rec, err)
	}
	if err := op.between(a, rec, old); err != nil {
		return nil, op.afterRelease(rec, err)
	}
	var answered int64
	if m != nil {
		answered, _ = d.requests(ctx, m) // 0 where not known: then its health requests count too
	}
	if err := op.goLive(ctx, rec, refs, old); err != nil {
		if op.kept {
			op.endWatch()
			op.serves(m)
		}
		return nil, op.afterRelease(rec, err)
	}
	if m != nil {
		m.setServes(tenure{time.Now(), answered})
	}
	op.endWatch()
	d.mu.Lock()
	s := d.state(op.app)
	retired := s.live
	s.live, s.damage = m, nil
	d.mu.Unlock()
	if err := d.files.Remove("start-app", op.l.stopped()); err != nil {
		d.log.WithField("app", op.app).Errorf("removing the mark of a stopped app: %v", err)
	}
	op.vigil = d.keepVigil(op.app, retired, m)
	op.tellRetention()
	return m, nil
}

// serves notes that current names m's instance although its switch failed: it could not
// be taken back. What served before is let go of.
func (op *operation) serves(m *member) {
	d := op.d
	os.Remove(filepath.Join(op.dir, begunName))
	d.mu.Lock()
	s := d.state(op.app)
	old := s.live
	s.live, s.damage = m, nil
	d.mu.Unlock()
	if old != nil && old != m {
		d.retire(op.app, old)
	}
}

// nowLive is the record of what is live, nil where nothing is.
func (op *operation) nowLive() *Record {
	old, err := op.l.live()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		op.d.log.WithField("app", op.app).Warnf("the record of what is live cannot be read: %v", err)
	}
	return old
}

// afterRelease adds to an error what the release command leaves behind.
func (op *operation) afterRelease(rec *Record, err error) error {
	if !rec.Released || op.what != "deploy" {
		return err
	}
	return remains(err)
}

func remains(err error) error {
	return fmt.Errorf("%w\nchanges that the release command made to the database remain", err)
}

// boot starts the instance beside the old one and waits until it is ready and
// healthy: that start is the proof of its entry point.
func (op *operation) boot(ctx context.Context, a *config.App, rec *Record) (*member, error) {
	d := op.d
	inst := instanceFor(a, rec)
	inst.Env = inst.environment(nil)
	rec.Environment = inst.Env
	if op.what == "deploy" {
		op.tellOutranked(a)
	}
	notes := op.report.Output()
	defer notes.Close()
	plan, err := d.AppServer.Plan(ctx, inst, notes)
	if err != nil {
		return nil, err
	}
	plan.Server, plan.Protocol = d.serverName(), d.protocol()
	rec.Plan = plan
	if !plan.runs() {
		op.report.Step(d.serverName(), "off: nothing is started", -1)
		return nil, nil
	}
	if err := config.CheckSocketPath(plan.Socket); err != nil {
		return nil, err
	}
	gid, err := d.readers(a)
	if err != nil {
		return nil, err
	}
	for _, f := range plan.Files {
		if !within(inst.Run, f.Path) {
			continue // to look at, of what is live: written after the switch
		}
		if err := d.files.WriteFor(gid, "write-instance-file", f.Path, f.Data, f.Mode); err != nil {
			return nil, err
		}
	}
	p := &plan.Process
	p.Name = op.app + "/" + op.id
	p.Record = filepath.Join(op.dir, processRecordName)
	p.Log = d.logPath(op.app, op.id)
	p.User, p.Group = a.User, a.Group
	p.Umask = d.site.Umask
	p.Limits, p.Writes = AppLimits(a), appWrites(inst)
	if p.Grace == 0 {
		p.Grace = a.Timeout
	}

	begin := time.Now()
	if err := d.files.before("start-process"); err != nil {
		return nil, err
	}
	running, err := d.Runner.Start(*p)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", filepath.Base(p.Args[0]), err)
	}
	m := d.watch(p.Name, *p, plan.Ready, rec, running)
	op.undo = append(op.undo, func() {
		if op.switched { // it was live for a moment, and may have requests
			m.letGo()
			d.drain(d.ctx, m)
		}
		stopCtx, cancel := context.WithTimeout(context.Background(), quickStop)
		defer cancel()
		m.end(stopCtx)
	})
	if err := d.files.before("await-ready"); err != nil {
		return nil, err
	}
	if err := op.awaitReady(ctx, a, rec, running); err != nil {
		return nil, err
	}
	op.report.Step(d.serverName(), plural(a.Workers, "worker")+" ready", since(begin))
	return m, op.awaitHealthy(ctx, a, rec, running)
}

// quickStop bounds the end of an instance that never served.
const quickStop = 2 * time.Second

func (d *Deployer) serverName() string {
	if n, ok := d.AppServer.(interface{ Name() string }); ok {
		return n.Name()
	}
	return "app"
}

// protocol is what the application server's sockets speak, "" for uwsgi.
func (d *Deployer) protocol() string {
	if s, ok := d.AppServer.(Speaker); ok && s.Protocol() != ProtocolUWSGI {
		return s.Protocol()
	}
	return ""
}

// firstServer made the plans that say nothing of it: they are older than any other.
const firstServer = "uwsgi"

func (p *Plan) server() string { return cmp.Or(p.Server, firstServer) }

// ours tells whether a plan is of the application server that [plugins] has today.
// What another one has started is not asked, counted or judged by it.
func (d *Deployer) ours(p *Plan) bool { return p != nil && p.server() == d.serverName() }

package system

import (
	"strings"
	"time"
)

// service is the unit of the tests. scotch setup writes a better one; what
// matters for processes is the same here: their server has no right to start
// anything as anybody but by systemd, and ends alone.
const service = `[Unit]
Description=scotch
After=network.target nginx.service

[Service]
ExecStart=/usr/local/bin/scotch serve
Restart=always
RestartSec=1
KillMode=mixed
RuntimeDirectory=scotch
RuntimeDirectoryPreserve=yes
Environment=HOME=/root
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths=/etc /var /run
PrivateTmp=yes
CapabilityBoundingSet=CAP_CHOWN CAP_FOWNER CAP_FSETID CAP_DAC_OVERRIDE CAP_SETUID CAP_SETGID CAP_KILL CAP_SYS_PTRACE CAP_SYS_RESOURCE CAP_AUDIT_WRITE CAP_NET_BIND_SERVICE

[Install]
WantedBy=multi-user.target
`

// install makes scotch a service of the machine, with root's key as an admin's.
func (m *machine) install() {
	m.t.Helper()
	m.copy(build(m.t, "build", "scotch/cmd/scotch"), "/usr/local/bin/scotch", 0o755)
	m.write("/etc/scotch.cfg", "[site]\ndomain = example.org\n[server]\nlisten = 127.0.0.1:2222\n[notify]\ncommand = /opt/notify\n", 0o644)
	m.write("/opt/notify", "#!/bin/sh\n{ env; cat; echo; } >> /var/log/notified\n", 0o755)
	m.write("/etc/systemd/system/scotch.service", service, 0o644)
	m.sh(`
		rm -f /etc/nginx/sites-enabled/default
		mkdir -p /etc/scotch ~/.ssh
		useradd --system --user-group --shell /usr/sbin/nologin scotch
		touch /var/log/notified; chown scotch: /var/log/notified
		ssh-keygen -q -t ed25519 -N '' -C root -f ~/.ssh/id_ed25519
		printf 'Host *\n StrictHostKeyChecking accept-new\n' >~/.ssh/config
		git config --global user.name root; git config --global user.email root@example.org
		git config --global init.defaultBranch main
		systemctl daemon-reload
		systemctl enable --now nginx scotch 2>&1`)
	m.eventually("scotch is up", m.check(`test -S /run/scotch/control.sock || { systemctl is-failed --quiet scotch && exit 3; exit 1; }; scotch list`))
	m.sh(`scotch keys add root --role admin ~/.ssh/id_ed25519.pub`)
	m.sh(`cat /etc/nginx/nginx.conf | grep -q sites-enabled`)
}

// check is a script for eventually.
func (m *machine) check(script string) func() error {
	return func() error {
		out, status := m.try("", "bash", "-euc", script)
		if status != 0 {
			return &failed{status, out}
		}
		return nil
	}
}

type failed struct {
	status int
	out    string
}

func (f *failed) Error() string { return strings.TrimSpace(tail(f.out, 8)) }

// app is one that needs no packages. /slow takes a second, /hog takes memory
// until something happens.
const app = `import os, time
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/slow":
        time.sleep(1)
    if path == "/hog":
        x = []
        while True: x.append(b"x" * (4 << 20))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [("VERSION %s %s\n" % (os.environ["SCOTCH_APP"], os.environ["SCOTCH_RELEASE"])).encode()]
`

// push makes a commit of an app and pushes it.
func (m *machine) push(name, version string) string {
	m.t.Helper()
	begin := time.Now()
	m.write("/srv/"+name+"/app.py", strings.Replace(app, "VERSION", version, 1), 0o644)
	m.write("/srv/"+name+"/Procfile", "web: app:app\n", 0o644)
	out := m.sh(`cd /srv/` + name + `
		[ -d .git ] || { git init -q; git remote add scotch ssh://scotch@127.0.0.1:2222/` + name + `; }
		git add -A; git commit -q -m "` + version + `"
		git push scotch main 2>&1`)
	m.t.Logf("pushed %s in %s:\n%s", name, time.Since(begin).Round(10*time.Millisecond), tail(out, 20))
	return out
}

func (m *machine) get(app, path string) (string, int) {
	m.t.Helper()
	return m.try("", "curl", "-sS", "-m", "20", "-w", "%{http_code}", "--resolve", app+".example.org:80:127.0.0.1", "http://"+app+".example.org"+path)
}

// serves checks for eventually that an app answers with its version.
func (m *machine) serves(name, version string) func() error {
	return func() error {
		out, status := m.get(name, "/")
		if status != 0 || !strings.HasPrefix(out, version+" "+name+" ") || !strings.HasSuffix(out, "200") {
			return &failed{status, out}
		}
		return nil
	}
}

// load asks apps without a pause until it is told to stop, and counts.
const load = `
import http.client, json, os, sys, threading, time
count, lost, lock = {}, [], threading.Lock()
def ask(app, path):
    while not os.path.exists(sys.argv[1]):
        try:
            c = http.client.HTTPConnection("127.0.0.1", 80, timeout=20)
            c.request("GET", path, headers={"Host": app + ".example.org"})
            r = c.getresponse(); r.read(); c.close()
            ok, what = r.status == 200, r.status
        except Exception as e:
            ok, what = False, repr(e)
        with lock:
            count[app] = count.get(app, 0) + 1
            if not ok: lost.append([time.time(), app, path, what])
threads = [threading.Thread(target=ask, args=(app, path)) for app in sys.argv[2:] for path in ("/", "/slow")]
for t in threads: t.start()
for t in threads: t.join()
print(json.dumps({"requests": count, "lost": len(lost), "first": lost[:5]}))
`

// underLoad runs steps while the apps are asked, and returns what was counted.
func (m *machine) underLoad(apps []string, steps func()) string {
	m.t.Helper()
	m.write("/srv/load.py", load, 0o644)
	m.sh(`rm -f /run/load.stop /run/load.out; mkdir -p /run
		systemd-run --quiet --unit=load --collect -p StandardOutput=file:/run/load.out python3 /srv/load.py /run/load.stop ` + strings.Join(apps, " "))
	m.sh(`sleep 1`)
	steps()
	m.sh(`sleep 1; touch /run/load.stop`)
	m.eventually("the load ends", m.check(`! systemctl is-active --quiet load`))
	out := m.sh(`cat /run/load.out`)
	m.t.Logf("load: %s", strings.TrimSpace(out))
	return out
}

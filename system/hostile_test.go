package system

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// An app that means harm, in everything that it may run: the build of a
// dependency, [app] build and release, a one-off command, the app itself. What it
// tries is in testdata/hostile/attack.py; each attempt must be refused.
func TestHostile(t *testing.T) {
	on(t, "bookworm", func(t *testing.T, m *machine) {
		m.install()
		m.push("victim", "one")
		m.sh(`scotch env victim set TOKEN=secret-of-the-victim 2>&1
			echo secret-of-the-victim > /var/lib/scotch/data/victim/secret; chown scotch-victim: /var/lib/scotch/data/victim/secret`)
		m.eventually("the victim answers", m.serves("victim", "one"))
		for _, f := range []string{"attack.py", "app.py", "plant", "requirements.txt", "scotch.cfg", "package/pyproject.toml", "package/backend.py"} {
			m.copy("testdata/hostile/"+f, "/srv/evil/"+f, 0o644)
		}
		m.write("/srv/evil/static/x", "x", 0o644)
		pids := func() string {
			return m.sh(`echo scotch $(systemctl show -p MainPID --value scotch)
				echo nginx $(systemctl show -p MainPID --value nginx)
				echo victim $(systemctl show -p MainPID --value scotch-app-victim-000002)
				echo worker $(pgrep -P $(systemctl show -p MainPID --value scotch-app-victim-000002) | head -1)`)
		}
		before := pids()
		m.write("/srv/pids", "systemd 1\n"+before, 0o644)
		m.sh(`scotch create evil 2>&1
			scotch config evil set limits:tasks=60 limits:build_tasks=60 limits:memory=200m limits:build_memory=400m 2>&1
			cd /srv/evil; git init -q; git remote add scotch ssh://scotch@127.0.0.1:2222/evil; git add -A; git commit -q -m evil`)
		// Who owns what, and who may do what with it; what a push writes is left out.
		state := func() string {
			return m.sh(`find /etc /root /usr/local /boot /opt /var/spool /var/lib/scotch/data/victim /var/local/scotch/victim /var/lib/scotch/repositories/victim.git \
				-not -path '*/.cache*' -not -path '/var/local/scotch/victim/000001*' -not -name destroyed -not -name 'scotch_evil*' -not -name '*scotch-server*' -not -name 'evil*' -not -path '/root*/.*' -printf '%p %m %u:%g %l\n' | grep -vE '^/etc(/(passwd|group|shadow|gshadow|subuid|subgid)-?|/nginx/.*|/\.pwd.lock)? ' | sort
				getfacl -pRs /etc /root /var/lib/scotch/data/victim 2>/dev/null; ls /srv`)
		}
		was := state()

		results := map[string]map[string][2]string{}
		collect := func(stage string) {
			t.Helper()
			var r map[string][2]string
			if err := json.Unmarshal([]byte(m.sh("cat /var/lib/scotch/data/evil/attack-"+stage+".json")), &r); err != nil {
				t.Fatal(err)
			}
			results[stage] = r
			if left, _ := m.try("", "pgrep", "-af", "[e]vil-stays-"+stage); stage != "app" && left != "" {
				t.Errorf("what %s left goes on: %s", stage, left)
			}
		}
		out := m.sh(`cd /srv/evil; git push scotch main 2>&1`)
		t.Logf("\n%s", tail(out, 40))
		for _, stage := range []string{"setup", "build", "release"} {
			collect(stage)
		}
		if out, status := m.try("", "scotch", "run", "evil", "--", "python3", "attack.py", "run"); status != 0 {
			t.Errorf("run exited with %d: %s", status, out)
		}
		collect("run")
		if out, _ := m.get("evil", "/tmp"); out != "[]200" {
			t.Errorf("the app finds what others left for it: %s", out)
		}
		m.get("evil", "/attack")
		collect("app")
		// The kernel picks who goes: who fills it, or the worker that waits for that.
		if out, _ := m.get("evil", "/fill"); !strings.HasPrefix(out, "refused") && !strings.HasSuffix(out, "502") {
			t.Errorf("it fills memory: %s", out)
		}
		// nginx shows nothing but what is the app's.
		for _, path := range []string{"/static/host_key", "/static/apps-enabled/victim.cfg", "/assets/shadow", "/etc/host_key", "/all/shadow", "/assets/scotch/host_key", "/assets/victim/app.py"} {
			if out, _ := m.get("evil", path); !strings.HasSuffix(out, "404") && !strings.HasSuffix(out, "403") {
				t.Errorf("nginx answers %s with %.80q", path, out)
			}
		}
		if out, status := m.try("", "bash", "-c", "scotch config evil set static:/data/=data:shared 2>&1"); status != 1 || !strings.Contains(out, "escapes") {
			t.Errorf("data that is a link elsewhere was mapped, status %d: %s", status, out)
		}
		// Once more, over what it planted, and back.
		again, status := m.try("", "bash", "-c", `cd /srv/evil; git commit -q --allow-empty -m again; git push scotch main 2>&1; scotch restart evil 2>&1; scotch rollback evil 2>&1; scotch prune 2>&1`)
		t.Logf("again, exit status %d:\n%s", status, tail(again, 12))
		m.sh(`scotch stop evil 2>&1`)
		if left, _ := m.try("", "ps", "-u", "scotch-evil", "-o", "pid,args"); strings.Count(left, "\n") > 1 {
			t.Errorf("processes outlive the app's stop:\n%s", left)
		}
		m.sh(`scotch destroy evil --force --purge 2>&1`)
		if left := m.sh(`find / -path /proc -prune -o -path /sys -prune -o -user scotch-evil -print; ls -d /var/lib/systemd/linger/* /run/user/$(id -u scotch-evil) 2>/dev/null || true`); left != "" {
			t.Errorf("what is left of it:\n%s", left)
		}
		if now := state(); now != was {
			t.Errorf("what is not the app's has changed:\n%s", difference(was, now))
		}
		if after := pids(); after != before {
			t.Errorf("the processes are %s\nand were %s", after, before)
		}
		if err := m.serves("victim", "one")(); err != nil {
			t.Error(err)
		}
		m.sh(`test ! -e /srv/hooked`)

		// An operator can open more for one app.
		m.write("/etc/systemd/system/scotch-app-victim-.service.d/local.conf", "[Service]\nReadWritePaths=/srv\n", 0o644)
		m.sh(`systemctl daemon-reload; scotch restart victim 2>&1`)
		if out := m.sh(`systemctl show -p ReadWritePaths 'scotch-app-victim-*'`); !strings.Contains(out, "/srv") {
			t.Errorf("the drop-in is not read: %s", out)
		}
		report(t, results)
	})
}

// report prints who was refused what and how, and fails for what was not.
func report(t *testing.T, results map[string]map[string][2]string) {
	stages := slices.Sorted(maps.Keys(results))
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(results["app"])) {
		how := map[string][]string{}
		for _, stage := range stages {
			r := results[stage][name]
			if r[0] != "refused" {
				t.Errorf("%s, by %s: %s %s", name, stage, r[0], r[1])
			}
			how[r[0]+": "+r[1]] = append(how[r[0]+": "+r[1]], stage)
		}
		for _, h := range slices.Sorted(maps.Keys(how)) {
			who := strings.Join(how[h], " ")
			if len(how) == 1 {
				who = "all"
			}
			fmt.Fprintf(&b, "%-60.60s %-10s %s\n", name, who, h)
		}
	}
	t.Logf("%d attempts by each of %s:\n%s", len(results["app"]), strings.Join(stages, ", "), &b)
	if path := os.Getenv("SCOTCH_TEST_REPORT"); path != "" {
		os.WriteFile(path, []byte(b.String()), 0o644)
	}
}

// difference lists the lines that only one of two texts has.
func difference(a, b string) string {
	count := map[string]int{}
	for l := range strings.Lines(a) {
		count[l]--
	}
	for l := range strings.Lines(b) {
		count[l]++
	}
	var out []string
	for l, n := range count {
		if n != 0 {
			out = append(out, fmt.Sprintf("%+d %s", n, l))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "")
}

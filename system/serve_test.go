package system

import (
	"strings"
	"testing"
)

// A server's life: pushes, a restart and a kill of scotch under load, an app at
// its limit of memory, a reboot.
func TestServe(t *testing.T) {
	each(t, func(t *testing.T, m *machine) {
		m.install()
		m.push("blog", "one")
		m.push("blog-api", "one")
		m.eventually("blog answers", m.serves("blog", "one"))
		status := m.sh(`systemctl status --no-pager -n0 'scotch-app-*'; systemd-cgls --no-pager -l /scotch.slice || true`)
		t.Log("\n" + status)
		for _, want := range []string{"scotch-app-blog-000", "scotch-app-blog.api-000", "scotch: blog, instance 000"} {
			if !strings.Contains(status, want) {
				t.Errorf("%q is not in it", want)
			}
		}
		pids := func() string {
			return m.sh(`systemctl show -p MainPID --value 'scotch-app-*' | sort | tr '\n' ' '`)
		}
		before := pids()

		out := m.underLoad([]string{"blog", "blog-api"}, func() {
			m.sh(`systemctl restart scotch`)
			m.eventually("scotch is back", m.check(`scotch ps`))
			m.sh(`systemctl kill --kill-whom=main -s KILL scotch`)
			m.eventually("scotch is back after kill -9", m.check(`systemctl is-active --quiet scotch && scotch ps`))
			m.try("", "systemctl", "daemon-reexec") // which may lose who asked for it
			m.eventually("systemd is back", m.check(`systemctl is-system-running`))
		})
		if !strings.Contains(out, `"lost": 0,`) {
			t.Errorf("requests were lost: %s", out)
		}
		if after := pids(); after != before {
			t.Errorf("the apps' processes are %q, and were %q", after, before)
		}
		out = m.underLoad([]string{"blog", "blog-api"}, func() { m.push("blog", "two") })
		if !strings.Contains(out, `"lost": 0,`) {
			t.Errorf("requests were lost in a push: %s", out)
		}
		if err := m.serves("blog", "two")(); err != nil {
			t.Error(err)
		}
		m.eventually("[notify] command was told", m.check(`grep '"deploy.live"' /var/log/notified | grep '"blog-api"'`))
		if out := m.sh(`scotch df; scotch prune`); !strings.Contains(out, "blog-api") || !strings.Contains(out, "freed") {
			t.Errorf("df and prune say: %s", out)
		}
		if left := m.sh(`systemctl list-units --all --plain --no-legend 'scotch-run-*' 'scotch-app-*' | grep -v 'active *running' || true`); left != "" {
			t.Errorf("units are left: %s", left)
		}

		// One over its limit: its worker is killed and comes again; nobody else notices.
		m.sh(`scotch config blog set limits:memory=200m limits:tasks=100 2>&1`)
		out = m.underLoad([]string{"blog-api"}, func() {
			if out, _ := m.get("blog", "/hog"); !strings.HasSuffix(out, "502") {
				t.Errorf("what took too much memory was answered with %q", out)
			}
			m.eventually("blog answers again", m.serves("blog", "two"))
			for command, want := range map[string]string{
				"doctor":        "app blog: one of its processes was killed: out of memory ([limits] memory = 200m)",
				"releases blog": "v2 has trouble: one of its processes was killed",
				"ps blog":       "blog v2: 1 killed by the kernel",
			} {
				if out, _ := m.try("", "sh", "-c", "scotch "+command); !strings.Contains(out, want) {
					t.Errorf("%s does not say %q: %s", command, want, out)
				}
			}
			if out := m.sh("scotch ps blog-api"); strings.Contains(out, "killed") {
				t.Errorf("the neighbour is blamed: %s", out)
			}
		})
		if !strings.Contains(out, `"lost": 0,`) {
			t.Errorf("the neighbour noticed: %s", out)
		}

		m.reboot()
		for _, app := range []string{"blog", "blog-api"} {
			version := map[string]string{"blog": "two", "blog-api": "one"}[app]
			m.eventually(app+" answers after the reboot", m.serves(app, version))
		}
		m.push("blog", "three")

		// ssh asks for a terminal; what runs on it is in a unit as all else.
		if out, _ := m.try("", "script", "-qec", `ssh -tt -p 2222 scotch@127.0.0.1 run blog -- sh -c "'tty; stty size; id -un; test -t 0 && echo a terminal; cat /proc/self/cgroup; exit 7'"; echo status $?`, "/dev/null"); !strings.Contains(out, "/dev/pts/") ||
			!strings.Contains(out, "a terminal") || !strings.Contains(out, "scotch-blog\r") || !strings.Contains(out, "scotch-run-blog-") || !strings.Contains(out, "status 7") {
			t.Errorf("run on a terminal: %s", out)
		}

		// A command's environment is its own, and its exit status comes back.
		if out, status := m.try("", "scotch", "run", "blog", "--", "sh", "-c", `cat /proc/self/cgroup; id -un; exit 7`); status != 7 ||
			!strings.Contains(out, "scotch-run-blog-") || !strings.Contains(out, "scotch-blog\n") {
			t.Errorf("run exited with %d: %s", status, out)
		}
	})
}

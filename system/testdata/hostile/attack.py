"""What a hostile app tries. Each attempt raises, or returns what it got.

Whoever calls it names a stage; the results go to attack-STAGE.json in the app's
data, which is its own to write.
"""
import ctypes, glob, grp, json, os, pwd, resource, shutil, signal, socket, stat, subprocess, sys, time

STAGE = "none"
DATA = os.environ.get("SCOTCH_DATA_DIR", "")
INSTANCES, APPS = "/var/local/scotch", "/etc/scotch/apps-enabled"
LIBC = ctypes.CDLL(None, use_errno=True)
attempts = []


class Refused(Exception):
    pass


def attempt(f):
    attempts.append((f.__name__.replace("_", " "), f))


def each(name, things, how):
    for thing in things:
        attempts.append((name + " " + str(thing), lambda thing=thing: how(thing)))


def read(path):
    if os.path.isdir(path):
        return os.listdir(path)
    with open(path, "rb") as f:
        return f.read(60)


def write(path):
    if os.path.isdir(path):
        path = os.path.join(path, "evil-file")
    existed = os.path.exists(path)
    with open(path, "ab"):
        pass
    if not existed:
        os.unlink(path)
    return "opened"


def command(*args):
    p = subprocess.run(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20)
    if p.returncode:
        raise Refused("exit %d: %s" % (p.returncode, p.stdout.decode(errors="replace").strip().split("\n")[-1]))
    return p.stdout[:200]


def called(result):
    if result == -1:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))
    return result


each("read", [
    "/etc/shadow", "/etc/scotch.cfg", "/etc/scotch", "/etc/scotch/host_key", "/etc/scotch/authorized_keys", "/etc/scotch/keys",
    APPS, APPS + "/victim.cfg", os.path.join("/root", ".ssh", "id_ed25519"),
    INSTANCES + "/victim/current/src", INSTANCES + "/victim/current/src/app.py",
    INSTANCES + "/victim/current/release.json", INSTANCES + "/victim/current/venv", INSTANCES + "/victim/current/run",
    INSTANCES + "/victim/current/run/uwsgi.ini", INSTANCES + "/victim/current/deploy.log", INSTANCES + "/evil/current/release.json",
    "/var/lib/scotch/data/victim", "/var/lib/scotch/data/victim/secret",
    "/var/lib/scotch/repositories/victim.git", "/var/lib/scotch/repositories/victim.git/config", "/var/lib/scotch/repositories/evil.git/config",
    "/var/log/scotch/victim", "/var/log/scotch/audit.log", "/run/scotch/instances", "/run/systemd/private",
], read)
each("write", [
    "/etc/scotch/authorized_keys", "/etc/scotch.cfg", "/etc/scotch", APPS, APPS + "/victim.cfg", "/etc/passwd", "/etc/cron.d", "/etc/ld.so.preload",
    "/etc/systemd/system", "/etc/nginx/nginx.conf", "/etc/nginx/sites-enabled", "/usr/local/bin", "/usr/local/bin/scotch", "/usr/bin/env", "/boot", "/root",
    "/var/spool/cron", "/var/lib/scotch", "/var/lib/scotch/repositories/evil.git/hooks", "/var/lib/scotch/repositories/evil.git/config",
    "/var/lib/scotch/repositories/victim.git", "/var/lib/scotch/data", "/var/lib/scotch/data/victim", "/var/log/scotch", "/var/log/scotch/evil",
    "/run", "/run/scotch", "/run/systemd/system", "/srv",
    INSTANCES, INSTANCES + "/evil", INSTANCES + "/evil/releases", INSTANCES + "/victim", INSTANCES + "/victim/current/src", INSTANCES + "/victim/current/venv",
    INSTANCES + "/victim/current/run", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/fs/cgroup", "/dev/mem", "/dev/kmsg", "/dev/sda", "/proc/1/oom_score_adj",
], write)

@attempt
def write_what_is_live_of_its_own():
    here = os.path.realpath(INSTANCES + "/evil/current")
    got = []
    for path in ("", "/src", "/src/app.py", "/release.json", "/venv", "/venv/bin/python", "/static"):
        try:
            if os.path.exists(here + path):
                write(os.path.realpath(here + path))
                got.append(path)
        except OSError as e:
            last = e
    return got if got else refuse(last if os.path.exists(here) else "nothing is live yet")


def refuse(why):
    raise Refused(str(why))


@attempt
def replace_its_own_link_current():
    os.symlink("/etc", INSTANCES + "/evil/current.new")
    os.rename(INSTANCES + "/evil/current.new", INSTANCES + "/evil/current")


def pids():
    with open("/srv/pids") as f:
        return [(what, pid) for what, *all_of_it in map(str.split, f) for pid in all_of_it]


def others(name, how):
    def all_of_them():
        got, last = [], None
        for what, pid in pids():
            try:
                how(int(pid))
                got.append(what)
            except (OSError, Refused) as e:
                last = e
        return got if got else refuse(last)
    attempts.append((name, all_of_them))


others("signal scotch, nginx, systemd and the other app", lambda pid: os.kill(pid, signal.SIGKILL))
others("read the environment of others", lambda pid: open("/proc/%d/environ" % pid, "rb").read())
others("see their command lines", lambda pid: open("/proc/%d/cmdline" % pid, "rb").read() or refuse("empty"))
others("read their memory", lambda pid: open("/proc/%d/mem" % pid, "rb"))
others("take their files", lambda pid: os.listdir("/proc/%d/fd" % pid))
others("go in by their root", lambda pid: os.listdir("/proc/%d/root" % pid))
others("trace them", lambda pid: called(LIBC.ptrace(16, pid, 0, 0)))
others("change their priority", lambda pid: os.setpriority(os.PRIO_PROCESS, pid, 10))
others("limit them", lambda pid: resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, 1)))


@attempt
def find_a_secret_in_any_environment():
    for path in glob.glob("/proc/[0-9]*/environ"):
        try:
            if b"secret-of-the-victim" in open(path, "rb").read():
                return path
        except OSError:
            pass
    refuse("none has it")


@attempt
def ask_systemd_for_a_secret():
    out = command("sh", "-c", "systemctl show 'scotch-*'; systemctl cat 'scotch-*'; systemctl status -n50 'scotch-*'; true")
    p = subprocess.run(["sh", "-c", "systemctl show 'scotch-*'; systemctl cat 'scotch-*'; journalctl -n 1000"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20)
    return "told" if b"secret-of-the-victim" in p.stdout else refuse("it tells none")


def connect(path):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(5)
    s.connect(path)


each("connect to", [
    INSTANCES + "/victim/current/run/uwsgi.sock", "/run/scotch/control.sock", "/run/systemd/private", "/run/udev/control",
    # logind gives each user who asks a manager of units that stays.
    "/run/dbus/system_bus_socket",
], connect)


@attempt
def go_on_by_logind():
    return command("loginctl", "--no-ask-password", "enable-linger")


@attempt
def write_its_users_home():
    # sshd's authorized_keys, .forward, units of a session: all begin there.
    return write(pwd.getpwuid(os.getuid()).pw_dir)


@attempt
def find_system_v_memory_that_another_stage_left():
    if LIBC.shmget(0x5C07C4, 1 << 20, 0o3600) == -1:  # IPC_CREAT | IPC_EXCL
        return "it is there" if ctypes.get_errno() == 17 else called(-1)
    refuse("none is there")


@attempt
def be_killed_last():
    with open("/proc/self/oom_score_adj", "w") as f:
        f.write("-900")


@attempt
def link_the_other_apps_socket():
    os.link(INSTANCES + "/victim/current/run/uwsgi.sock", INSTANCES + "/evil/current/run/other.sock")


@attempt
def watch_the_other_apps_data():
    called(LIBC.inotify_add_watch(LIBC.inotify_init(), b"/var/lib/scotch/data/victim", 0xFFF))


@attempt
def run_something_by_systemd():
    return command("systemd-run", "--no-ask-password", "--wait", "--pipe", "id")


@attempt
def stop_scotch_by_systemd():
    return command("systemctl", "--no-ask-password", "stop", "scotch")


@attempt
def stop_the_other_app_by_systemd():
    return command("systemctl", "--no-ask-password", "stop", "scotch-app-victim-000001.service")


@attempt
def link_a_unit_of_its_own():
    return command("systemctl", "--no-ask-password", "link", DATA + "/evil.service")


each("command", ["scotch list --json", "scotch env victim", "scotch keys list", "scotch run victim -- id"], lambda c: command("/usr/local/bin/scotch", *c.split()[1:]))
each("command", ["sudo -n id", "su -c id", "mount -t tmpfs none /mnt", "mount --bind /etc /mnt", "unshare -Ur id", "unshare -m true",
                 "nsenter -t 1 -m true", "dmesg", "ip link add dummy0 type dummy", "hostname evil", "date -s 2001-01-01", "passwd -d root"],
     lambda c: command(*c.split()))


@attempt
def change_the_root():
    os.chroot("/tmp")


@attempt
def become_root():
    os.setuid(0)


@attempt
def take_the_web_servers_group():
    os.setgid(grp.getgrnam("www-data").gr_gid)


@attempt
def use_a_program_with_the_web_servers_group():
    # In a directory that hands its group on, new files belong to nginx's group.
    run = INSTANCES + "/evil/current/run"
    path = os.path.join(run, "id")
    try:
        fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o2755)
        with open("/usr/bin/id", "rb") as f, os.fdopen(fd, "wb") as g:
            shutil.copyfileobj(f, g)
        try:
            os.chmod(path, 0o2755)
        except OSError:
            pass
        out = subprocess.run([path, "-Gn"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout.decode()
    finally:
        if os.path.exists(path):
            os.unlink(path)
    return out if "www-data" in out else refuse("it ran with " + out.strip())


@attempt
def gain_by_setuid():
    path = os.path.join(DATA, "id")
    shutil.copy("/usr/bin/id", path)
    os.chmod(path, 0o6755)
    try:
        os.chown(path, 0, 0)
        return command(path)
    finally:
        os.unlink(path)


@attempt
def keep_any_capability():
    caps = [l.split()[1] for l in open("/proc/self/status") if l.startswith(("CapPrm", "CapEff", "CapBnd", "CapAmb"))]
    return caps if any(int(c, 16) for c in caps) else refuse("none is left")


@attempt
def gain_privileges_by_exec():
    return "may" if "NoNewPrivs:\t0" in open("/proc/self/status").read() else refuse("no_new_privs")


@attempt
def make_a_device():
    os.mknod(os.path.join(DATA, "disk"), stat.S_IFBLK | 0o600, os.makedev(254, 0))


@attempt
def link_the_shadow_file():
    os.link("/etc/shadow", os.path.join(DATA, "shadow"))


@attempt
def raw_packets():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW)


@attempt
def raise_its_own_limits():
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))
    except ValueError as e:
        refuse(e)


@attempt
def real_time():
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))


@attempt
def fork_without_end():
    children = []
    try:
        for _ in range(2000):
            pid = os.fork()
            if pid == 0:
                time.sleep(60)
                os._exit(0)
            children.append(pid)
        return "%d children" % len(children)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, 0)


def stay():
    """A daemon by all rules of the art: a session of its own, no terminal, no
    environment, no file, its parent gone."""
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    for fd in range(3):
        os.close(fd)
        os.open("/dev/null", os.O_RDWR)
    os.closerange(3, 256)
    # One that ignores what it is asked takes the server's patience.
    code = "import signal, time; signal.signal(1, signal.SIG_IGN); time.sleep(3600)"
    if STAGE == "build":
        code = "import signal; signal.signal(15, signal.SIG_IGN); " + code
    os.execve("/usr/bin/python3", ["python3", "-c", code, "evil-stays-" + STAGE], {})


def main(stage):
    global STAGE
    STAGE = stage
    results = {}
    for name, f in attempts:
        try:
            results[name] = ["got", repr(f())[:200]]
        except (OSError, Refused, subprocess.SubprocessError) as e:
            results[name] = ["refused", str(e)[:120]]
        except Exception as e:
            results[name] = ["broken", repr(e)[:200]]
    with open("/tmp/evil", "w") as f:  # for whoever comes next
        f.write(stage)
    with open("/dev/shm/evil", "w") as f:
        f.write(stage)
    with open(os.path.join(DATA, "attack-%s.json" % stage), "w") as f:
        json.dump(results, f)
    stay()
    return results


if __name__ == "__main__":
    main(sys.argv[1])

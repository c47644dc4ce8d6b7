import json, os, signal, subprocess, sys
import attack


def hog():
    """Fills memory that is a file. The one that does it is killed, or told that it is full."""
    pid = os.fork()
    if pid == 0:
        try:
            with open("/dev/shm/full", "wb") as f:
                for _ in range(600):
                    f.write(b"x" * (1 << 20))
            os._exit(0)
        except OSError:
            os._exit(7)
    _, status = os.waitpid(pid, 0)
    if os.path.exists("/dev/shm/full"):
        os.unlink("/dev/shm/full")
    return "it could" if status == 0 else "refused: status %d" % status


def app(environ, start_response):
    path = environ["PATH_INFO"]
    out = "hello"
    if path == "/attack":
        out = json.dumps(attack.main("app"))
    elif path == "/fill":
        out = hog()
    elif path == "/tmp":
        out = repr([open(p).read() for p in ("/tmp/evil", "/dev/shm/evil") if os.path.exists(p)])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [out.encode()]

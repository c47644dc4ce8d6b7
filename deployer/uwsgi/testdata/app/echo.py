"""A WSGI app for tests: it says what it was asked."""
import json
import os
import sys
import time


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/raise":
        raise RuntimeError("as asked")
    if path == "/slow":
        open(os.path.join(os.environ["MARKS"], "slow"), "w").close()
        while not os.path.exists(os.path.join(os.environ["MARKS"], "go")):
            time.sleep(0.01)
    status = environ["QUERY_STRING"] or "200 OK"
    start_response(status.replace("+", " "), [("Content-Type", "application/json")])
    strings = {k: v for k, v in environ.items() if isinstance(v, str)}
    strings["wsgi.url_scheme"] = environ["wsgi.url_scheme"]
    return [json.dumps({
        "environ": strings,
        "executable": sys.executable,
        "prefix": sys.prefix,
        "library": os.path.dirname(os.__file__),
        "cwd": os.getcwd(),
    }).encode()]


def create_app():
    return application

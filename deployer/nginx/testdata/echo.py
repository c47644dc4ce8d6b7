"""A WSGI app for tests: it says what it was asked."""
import json
import os


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/crash":
        os._exit(3)
    if path == "/error":
        raise ValueError("an app's mistake")
    size = len(environ["wsgi.input"].read()) if environ.get("CONTENT_LENGTH") else 0
    status = {"/own503": "503 Busy", "/gone": "410 Gone"}.get(path, "200 OK")
    start_response(status, [("Content-Type", "application/json")])
    said = {k: v for k, v in environ.items() if isinstance(v, str)}
    said.update(NAME=os.environ["NAME"], SIZE=str(size), scheme=environ["wsgi.url_scheme"])
    return [json.dumps(said).encode()]

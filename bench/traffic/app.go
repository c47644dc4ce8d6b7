package traffic

import (
	"fmt"
	"strings"
)

// app answers its version in the first line and then what was sent to it. Its
// length is declared, so that an answer that is cut off shows.
const app = `import os, sys, time

VERSION = %q
%s

def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(3)
    sent = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    answer = VERSION.encode() + b"\n" + sent
    start_response(STATUS, [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]
`

// App is the app.py of an app that traffic can be sent to. more is Python that
// runs at its import; it may set STATUS.
func App(version, more string) string {
	if !strings.Contains(more, "STATUS") {
		more += "\nSTATUS = \"200 OK\""
	}
	return fmt.Sprintf(app, version, more)
}

// Failure is a way for a deploy to fail.
type Failure struct {
	Name   string
	Python string // for App's more
	Config string // the scotch.cfg of the source
	// Include tells that the app's own file names a bad [nginx] include meanwhile:
	// the web server may reload when it is taken back.
	Include bool
}

// Failures are ways for a deploy to fail once it has come to register.
func Failures() []Failure {
	return []Failure{
		{Name: "import error", Python: "raise RuntimeError('as planned')"},
		{Name: "hang at import", Python: "time.sleep(600)", Config: "[health]\ntimeout = 2\n"},
		{Name: "500 on health", Python: "STATUS = '500 As Planned'"},
		{Name: "exit of the release command", Config: "[app]\nrelease = exit 3\n"},
		{Name: "bad nginx include", Include: true},
	}
}

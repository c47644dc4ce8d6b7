package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/sirupsen/logrus"

	"scotch/deployer"
)

// notifier tells systemd how the server is (sd_notify(3)). The zero value, of a
// server that systemd did not start, tells nobody.
type notifier struct {
	socket   string
	watchdog time.Duration // systemd ends a server that was silent for so long; 0: never
}

// newNotifier reads what systemd gave this process, and takes it out of the
// environment: it is for no child.
func newNotifier() notifier {
	n := notifier{socket: os.Getenv("NOTIFY_SOCKET")}
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	pid := os.Getenv("WATCHDOG_PID")
	if err == nil && usec > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n.watchdog = time.Duration(usec) * time.Microsecond
	}
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		os.Unsetenv(name)
	}
	return n
}

// tell sends one message. A service manager that does not take it is none of the
// server's trouble.
func (n notifier) tell(state string) {
	if n.socket == "" {
		return
	}
	// net writes a leading @ as the NUL of the abstract namespace, as sd_notify does.
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return
	}
	defer c.Close()
	c.SetWriteDeadline(time.Now().Add(time.Second))
	io.WriteString(c, state)
}

// keepAlive tells the watchdog that the server is alive, as long as it is: the
// deployer's state can be had, and until serving is done its socket answers. stop
// ends that; a server that waits for deploys under way is alive.
func (n notifier) keepAlive(serving context.Context, socket string, d *deployer.Deployer, log logrus.FieldLogger) (stop func()) {
	if n.socket == "" {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopping := context.AfterFunc(serving, func() { n.tell("STOPPING=1") })
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n.watchdog > 0 && ctx.Err() == nil {
			if err := alive(ctx, serving, socket, d, n.watchdog/3); err == nil {
				n.tell("WATCHDOG=1")
			} else if ctx.Err() == nil && serving.Err() == nil {
				log.Errorf("no sign of life for the watchdog: %v", err)
			}
			select {
			case <-time.After(n.watchdog / 3):
			case <-ctx.Done():
			}
		}
	}()
	return func() {
		stopping()
		cancel()
		<-done
	}
}

func alive(ctx, serving context.Context, socket string, d *deployer.Deployer, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := d.Alive(ctx); err != nil || serving.Err() != nil {
		return err
	}
	return answers(ctx, socket)
}

// answers tells whether a server answers at the control socket. It runs no command,
// which would go into the audit log several times a minute.
func answers(ctx context.Context, socket string) error {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://scotch/", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close() // whatever it says
}

package main

import (
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"

	"scotch/deployer/control"
)

// localTerminal is the terminal that this program was started at, nil where its
// input or its output is none. done must be called; it leaves raw mode.
func (s *session) localTerminal() (t *control.Terminal, done func()) {
	in, isFile := s.stdin.(*os.File)
	out, isToo := s.stdout.(*os.File)
	if !isFile || !isToo || !isTerminal(in) || !isTerminal(out) {
		return nil, func() {}
	}
	fd := int(in.Fd())
	sizes := make(chan unix.Winsize, 1)
	look := func() {
		size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
		if err != nil {
			size = &unix.Winsize{Row: 24, Col: 80}
		}
		select {
		case <-sizes:
		default:
		}
		sizes <- *size
	}
	// Before the first look, so that no change falls between the two.
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	look()
	over := make(chan struct{})
	go func() {
		for {
			select {
			case <-changed:
				look()
			case <-over:
				return
			}
		}
	}()
	var mu sync.Mutex
	var before *unix.Termios // while it is in raw mode
	raw := func(on bool) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case on == (before != nil):
		case on:
			if was, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil && unix.IoctlSetTermios(fd, unix.TCSETS, rawMode(*was)) == nil {
				before = was
			}
		default:
			// What was typed ahead belongs to the shell.
			unix.IoctlSetTermios(fd, unix.TCSETSW, before)
			before = nil
		}
	}
	return &control.Terminal{Name: os.Getenv("TERM"), Sizes: sizes, Raw: raw}, func() {
		signal.Stop(changed)
		close(over)
		raw(false)
	}
}

// rawMode is what cfmakeraw(3) makes of t.
func rawMode(t unix.Termios) *unix.Termios {
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return &t
}

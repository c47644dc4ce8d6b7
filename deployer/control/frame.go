package control

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// The answer to a call is a sequence of frames: one byte of kind, the length
// of the payload in four bytes, big-endian, the payload. The last frame is the
// exit status, one byte.
const (
	frameStdout = 1
	frameStderr = 2
	frameExit   = 3
	// framePing keeps a silent call's connection alive; it has no payload.
	framePing = 4

	maxFrame = 64 << 10
)

// framer writes frames. Its methods may be called at once by many.
type framer struct {
	mu    sync.Mutex
	w     io.Writer
	flush func() error
}

func (f *framer) frame(kind byte, p []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	head := make([]byte, 5, 5+len(p))
	head[0] = kind
	binary.BigEndian.PutUint32(head[1:], uint32(len(p)))
	if _, err := f.w.Write(append(head, p...)); err != nil {
		return err
	}
	return f.flush()
}

// stream is one of the two outputs of a command.
type stream struct {
	f    *framer
	kind byte
}

func (s stream) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		n := min(len(p)-done, maxFrame)
		if err := s.f.frame(s.kind, p[done:done+n]); err != nil {
			return done, err
		}
		done += n
	}
	return len(p), nil
}

var errTornAnswer = errors.New("the server went away before the command had ended")

// eachFrame calls do for each frame until it is done, or r at its end. The
// payload is valid during the call.
func eachFrame(r io.Reader, do func(kind byte, payload []byte) (done bool, err error)) error {
	var head [5]byte
	buf := make([]byte, maxFrame)
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(head[1:])
		if n > maxFrame {
			return fmt.Errorf("a frame of %d bytes came, at most %d are allowed", n, maxFrame)
		}
		p := buf[:n]
		if _, err := io.ReadFull(r, p); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if done, err := do(head[0], p); done || err != nil {
			return err
		}
	}
}

// readFrames copies the frames of an answer to where they belong and returns
// the exit status. raw, where not nil, is told the mode that the terminal is to
// be in.
func readFrames(r io.Reader, stdout, stderr io.Writer, raw func(bool)) (status int, err error) {
	err = eachFrame(r, func(kind byte, p []byte) (bool, error) {
		switch {
		case kind == frameStdout:
			_, err := stdout.Write(p)
			return false, err
		case kind == frameStderr:
			_, err := stderr.Write(p)
			return false, err
		case kind == frameRaw && len(p) == 1 && raw != nil:
			raw(p[0] == 1)
		case kind == frameExit && len(p) == 1:
			status = int(p[0])
			return true, nil
		}
		return false, nil
	})
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, fmt.Errorf("%w (%v)", errTornAnswer, err)
	}
	return status, err
}

package control

import (
	"encoding/binary"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

// Terminal is the terminal that a call was typed at. A command that takes none
// leaves it alone.
type Terminal struct {
	Name string // $TERM
	// Sizes has the terminal's size, and each new one.
	Sizes <-chan unix.Winsize
	// Raw puts the terminal into raw mode, and back. Do puts it back in any case.
	Raw func(on bool)
}

// caller is the terminal's part of a call.
type caller struct {
	Name    string `json:"name"`
	Rows    uint16 `json:"rows"`
	Columns uint16 `json:"columns"`
}

// input of a call with a terminal comes in frames like the answer's.
const (
	frameStdin  = 5
	frameResize = 6 // rows and columns, two bytes each

	// In the answer: one byte, 1 for raw mode.
	frameRaw = 7
)

// sendInput frames what is typed and each new size, until the input's end.
func sendInput(w io.Writer, stdin io.Reader, sizes <-chan unix.Winsize, done <-chan struct{}) error {
	f := &framer{w: w, flush: func() error { return nil }}
	var wg sync.WaitGroup
	defer wg.Wait()
	over := make(chan struct{})
	defer close(over)
	wg.Go(func() {
		for {
			select {
			case s := <-sizes:
				p := binary.BigEndian.AppendUint16(nil, s.Row)
				if f.frame(frameResize, binary.BigEndian.AppendUint16(p, s.Col)) != nil {
					return
				}
			case <-done:
				return
			case <-over:
				return
			}
		}
	})
	_, err := io.Copy(stream{f, frameStdin}, stdin)
	return err
}

// readInput writes what is typed to w, and keeps the newest size in sizes.
func readInput(r io.Reader, w io.Writer, sizes chan unix.Winsize) error {
	return eachFrame(r, func(kind byte, p []byte) (bool, error) {
		switch {
		case kind == frameStdin:
			_, err := w.Write(p)
			return false, err
		case kind == frameResize && len(p) == 4:
			keepNewest(sizes, unix.Winsize{Row: binary.BigEndian.Uint16(p), Col: binary.BigEndian.Uint16(p[2:])})
		}
		return false, nil
	})
}

// keepNewest has one writer.
func keepNewest(sizes chan unix.Winsize, s unix.Winsize) {
	select {
	case <-sizes:
	default:
	}
	sizes <- s
}

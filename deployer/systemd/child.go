package systemd

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Arg is the argument by which this program becomes the process of a unit: main
// calls Child when it is the only one, before anything else. Its number is that
// of the hand-over's form, because an upgrade puts another program in the place
// of the one that runs.
const Arg = "systemd-child-1"

// handover is what a unit's process is to become.
type handover struct {
	Path string
	Args []string
	Env  []string
}

// arrived begins what the status file gets once the program is as good as
// started: its end without that is a unit that systemd could not start.
const arrived = '+'

// send gives a process, by its socket, what it is to become, and its standard
// files. The fourth file gets words when that fails, and is closed by the kernel
// when the program is started.
func send(conn *os.File, h handover, stdio []*os.File, status *os.File) error {
	var body bytes.Buffer
	if err := gob.NewEncoder(&body).Encode(h); err != nil { // not JSON, which changes what is no UTF-8
		return err
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(body.Len()))
	var fds []int
	for _, f := range append(append([]*os.File{}, stdio...), status) {
		fds = append(fds, int(f.Fd())) // which makes it blocking, as programs want it
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) {
		err = unix.Sendmsg(int(fd), head, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL)
	}); cerr != nil || err != nil {
		return errors.Join(cerr, os.NewSyscallError("sendmsg", err))
	}
	// Where systemd fails to start it nobody reads.
	if err := conn.SetWriteDeadline(time.Now().Add(startTimeout)); err != nil {
		return err
	}
	_, err = conn.Write(body.Bytes())
	return err
}

// Child becomes the process that the server asked for. It returns an exit
// status only where it fails.
func Child() int {
	status, err := become()
	if status != nil {
		fmt.Fprint(status, err)
	} else {
		fmt.Fprintln(os.Stderr, "scotch:", err)
	}
	return 127
}

func become() (status *os.File, err error) {
	head := make([]byte, 4)
	oob := make([]byte, unix.CmsgSpace(4*4))
	n, oobn, _, _, err := unix.Recvmsg(0, head, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_WAITALL)
	if err != nil || n != len(head) {
		return nil, errors.Join(err, errors.New("this is for systemd alone: nobody says what to run"))
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return nil, errors.Join(err, errors.New("no files came with what is to run"))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 4 {
		return nil, errors.Join(err, errors.New("the files that came with what is to run are not four"))
	}
	status = os.NewFile(uintptr(fds[3]), "status")
	body := make([]byte, binary.BigEndian.Uint32(head))
	if _, err := io.ReadFull(os.NewFile(0, "socket"), body); err != nil {
		return status, err
	}
	var h handover
	if err := gob.NewDecoder(bytes.NewReader(body)).Decode(&h); err != nil {
		return status, err
	}
	for i, fd := range fds[:3] {
		if err := unix.Dup3(fd, i, 0); err != nil {
			return status, os.NewSyscallError("dup3", err)
		}
	}
	// A terminal becomes the controlling one, so that Ctrl-C reaches the program.
	// It is none mostly, and that is no failure.
	unix.IoctlSetInt(0, unix.TIOCSCTTY, 0)
	if _, err := status.Write([]byte{arrived}); err != nil {
		return nil, err // the server has gone
	}
	err = syscall.Exec(h.Path, h.Args, h.Env)
	return status, &os.PathError{Op: "exec", Path: h.Path, Err: err}
}

// pipes are the ends of a hand-over: ours, and those of the process.
type pipes struct {
	conn, childConn     *os.File
	status, childStatus *os.File
}

func newPipes() (*pipes, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	// Non-blocking is for our end alone: the flag belongs to each end.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, err
	}
	p := &pipes{conn: os.NewFile(uintptr(fds[0]), "handover"), childConn: os.NewFile(uintptr(fds[1]), "handover")}
	if p.status, p.childStatus, err = os.Pipe(); err != nil {
		p.conn.Close()
		p.childConn.Close()
		return nil, err
	}
	return p, nil
}

func (p *pipes) close() {
	for _, f := range []*os.File{p.conn, p.childConn, p.status, p.childStatus} {
		f.Close()
	}
}

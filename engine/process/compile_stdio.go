package process

import (
	"encoding/binary"
	"fmt"

	"github.com/gantry-project/gantry/internal/errdefs"
	"golang.org/x/sys/unix"
)

// placeFiles takes along the open files of the Spec.
func (c *compiler) placeFiles() {
	c.birthplace = c.spec.CgroupDir
	for _, f := range c.spec.CgroupFiles {
		c.cgroups = append(c.cgroups, c.placeFile("control group", f))
	}
	for i, f := range c.spec.Stdio {
		if f != nil {
			c.stdioFD[i] = c.placeFile("stdio", f)
		}
	}
	for _, f := range c.spec.Preserve {
		c.preserve = append(c.preserve, c.placeFile("file to preserve", f))
	}
	if c.spec.Gate != nil {
		c.gate = c.placeFile("gate", c.spec.Gate)
		// Whoever opens the gate runs these, in the same control groups.
		if len(c.spec.Hooks.StartContainer) > 0 {
			c.kept = c.cgroups
		}
	}
	if c.labelled() {
		c.hostProcFD = c.place("host's /proc", "/proc", unix.O_PATH|unix.O_DIRECTORY)
	}
}

// rightsMessage is a struct msghdr {name, namelen, iov, iovlen, control,
// controllen, flags} of one iov and one struct cmsghdr {len, level, type} with
// room for count descriptors, which begin at offset fds of the data.
func (c *compiler) rightsMessage(text string, body value, size, count int) (hdr value, fds int) {
	le := binary.LittleEndian
	iov := c.alloc(make([]byte, 16))
	c.relocs = append(c.relocs, reloc{iov, body.off})
	le.PutUint64(c.data[iov+8:], uint64(size))
	hdr = c.buf(make([]byte, 56), text)
	c.relocs = append(c.relocs, reloc{hdr.off + 16, iov})
	le.PutUint64(c.data[hdr.off+24:], 1)
	if count == 0 {
		return hdr, 0
	}
	cmsg := le.AppendUint64(nil, uint64(16+4*count))
	cmsg = le.AppendUint32(cmsg, unix.SOL_SOCKET)
	cmsg = le.AppendUint32(cmsg, unix.SCM_RIGHTS)
	control := c.alloc(append(cmsg, make([]byte, 4*count+4)...))
	c.relocs = append(c.relocs, reloc{hdr.off + 32, control})
	le.PutUint64(c.data[hdr.off+40:], uint64(16+(4*count+7)&^7))
	return hdr, control + 16
}

// openTerminal opens a new terminal of the devpts whose ptmx is dir/path,
// before anything of the image can get in between, and sends its master to the
// runner. The path may be hostile: whatever is not a master refuses the calls
// that follow.
func (c *compiler) openTerminal(dir value, path string, resolve uint64) {
	rec, _ := c.record(recordConsole, "console record")
	hdr, fds := c.rightsMessage("{console record, master}", rec, recordSize, 1)
	master := c.slotAt(fds, "master")
	c.slave = c.slot("slave")
	const flags = unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC
	s, _ := c.openTo("open console", master, dir, path, flags|unix.O_NONBLOCK, resolve)
	s.faults(terminalFault)
	c.call("unlock console", unix.SYS_IOCTL, master, num(unix.TIOCSPTLCK), c.buf(make([]byte, 8), "{0}")).faults(terminalFault)
	c.call("open console slave", unix.SYS_IOCTL, master, num(unix.TIOCGPTPEER), num(flags)).to(c.slave).faults(terminalFault)
	c.call("set console size", unix.SYS_IOCTL, c.slave, num(unix.TIOCSWINSZ), c.windowSize())
	c.call("own console", unix.SYS_FCHOWN, c.slave, num(c.spec.UID), num(^uint32(0))).faults(idFault)
	c.call("send console", unix.SYS_SENDMSG, c.status(), hdr, num(0))
	c.close("close console", master)
}

// windowSize is a struct winsize: the Spec's, or what programs expect of a
// console.
func (c *compiler) windowSize() value {
	rows, columns := c.spec.ConsoleRows, c.spec.ConsoleColumns
	if rows == 0 {
		rows = 24
	}
	if columns == 0 {
		columns = 80
	}
	b := binary.LittleEndian.AppendUint16(nil, rows)
	b = binary.LittleEndian.AppendUint16(b, columns)
	return c.buf(append(b, 0, 0, 0, 0), fmt.Sprintf("{%d %d}", rows, columns))
}

// openTo is open with a slot of the caller's.
func (c *compiler) openTo(name string, slot, dir value, path string, flags, resolve uint64) (*step, value) {
	return c.call(name, unix.SYS_OPENAT2, dir, c.str(path), c.how(flags, resolve), num(sizeofHow)).to(slot), slot
}

// terminalFault: the container has no devpts where it belongs.
func terminalFault(errno unix.Errno) error {
	switch errno {
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.ENOTTY, unix.EXDEV, unix.ENXIO, unix.ENODEV, unix.EINVAL, unix.EISDIR, unix.EACCES, unix.EPERM:
		return errdefs.WithPublic(wrapErrno(errno, errdefs.ErrInvalid), "the instance has no terminals in /dev/pts")
	case unix.ENOSPC: // max of devpts
		return wrapErrno(errno, errdefs.ErrExhausted)
	}
	return nil
}

// console opens the first terminal of the instance's own devpts and shows it
// as /dev/console, where /dev is a file system of our own.
func (c *compiler) console() {
	if !c.spec.Terminal {
		return
	}
	pts, ok := c.fresh["dev/pts"]
	if !ok || pts.kind != "devpts" {
		c.openTerminal(c.root, "dev/pts/ptmx", noLinks)
		return
	}
	c.openTerminal(pts.root, "ptmx", inMount)
	if dev, ok := c.fresh["dev"]; ok && dev.kind == "tmpfs" {
		c.fileMount("mount console", pts.root, "0", "console")
	}
}

// status is the socket to the runner, and later to who opens the gate.
func (c *compiler) status() value { return num(statusFD + c.moved) }

// stdio connects descriptors 0 to 2, puts Spec.Preserve behind them, and
// closes everything else but the status socket and what the gate needs.
func (c *compiler) stdio() {
	for fd := range 3 {
		switch {
		case c.spec.Terminal && fd == 0:
			c.call("take terminal", unix.SYS_IOCTL, c.slave, num(unix.TIOCSCTTY), num(0))
			c.call("connect terminal", unix.SYS_DUP3, c.slave, num(fd), num(0))
		case c.spec.Terminal:
			c.call("connect terminal", unix.SYS_DUP3, c.slave, num(fd), num(0))
		case c.spec.Stdio[fd] != nil:
			c.call("connect stdio", unix.SYS_DUP3, c.stdioFD[fd], num(fd), num(0))
		}
	}
	stay := []value{c.status()}
	if c.spec.Gate != nil {
		stay = append(append(stay, c.gate), c.kept...)
	}
	first := c.arrange(stay)
	if c.spec.Gate != nil {
		c.gate = num(first + 1)
		for i := range c.kept {
			c.kept[i] = num(first + 2 + i)
		}
	}
	c.call("close files", unix.SYS_CLOSE_RANGE, num(first+len(stay)), num(uint64(^uint32(0))), num(0))
}

// arrange moves Spec.Preserve to 3 and up and stay to the numbers behind it,
// the first of which it returns.
func (c *compiler) arrange(stay []value) int {
	first := 3 + len(c.preserve)
	if len(c.preserve) == 0 && len(stay) == 1 {
		return first // the status socket is there
	}
	// Out of the way of each other first. A failure is reported on wherever the
	// status socket is at that moment.
	above, report := num(first+len(stay)), c.slotAt(c.report, "status")
	move := func(fds []value) []value {
		slots := make([]value, len(fds))
		for i, fd := range fds {
			if slots[i] = c.slot("kept file"); fd == c.status() {
				slots[i] = report
			}
			c.call("move file", unix.SYS_FCNTL, fd, num(unix.F_DUPFD_CLOEXEC), above).to(slots[i])
		}
		return slots
	}
	preserve, others := move(c.preserve), move(stay)
	for i, fd := range preserve {
		c.call("preserve file", unix.SYS_DUP3, fd, num(3+i), num(0))
	}
	for i, fd := range others {
		s := c.call("move file", unix.SYS_DUP3, fd, num(first+i), num(unix.O_CLOEXEC))
		if fd == report {
			s.to(report)
		}
	}
	c.moved = first - statusFD
	return first
}

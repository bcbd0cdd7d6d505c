package jail

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// The places of a belt.
const (
	places   = 8
	placeLen = 256 << 10
)

// belt carries a stream to the child through memory that both have mapped: what
// the parent has read into a place, and hashed there, the child reads there. A
// pipe would copy it twice more. The child can neither write the memory nor make
// it shorter.
//
// On the socket a message of four bytes, little endian, says how much is in the
// next place, 0 at the end of the stream; one of a single byte comes back when
// the child is done with a place.
type belt struct {
	memory       *os.File
	mapped       []byte
	ours, theirs *os.File
}

// errGone says that the child takes nothing more.
var errGone = fmt.Errorf("unpack layer: the process that unpacks did not read to the end: %w", errdefs.ErrCorrupt)

// newBelt makes a belt, which the caller closes.
func newBelt() (_ *belt, err error) {
	b := &belt{}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if b.memory, err = linux.Memfd("layer"); err != nil {
		return nil, err
	}
	if err = b.memory.Truncate(places * placeLen); err != nil {
		return nil, err
	}
	fd := b.memory.Fd()
	if b.mapped, err = unix.Mmap(int(fd), 0, places*placeLen, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_FUTURE_WRITE
	if _, err = unix.FcntlInt(fd, unix.F_ADD_SEALS, seals); err != nil {
		return nil, os.NewSyscallError("fcntl F_ADD_SEALS", err)
	}
	b.ours, b.theirs, err = linux.SeqpacketPair()
	return b, err
}

// handed lets go of what the child has.
func (b *belt) handed() error {
	return errors.Join(b.memory.Close(), b.theirs.Close())
}

// close lets go of all of it; what is closed already is no harm.
func (b *belt) close() error {
	for _, f := range []*os.File{b.memory, b.ours, b.theirs} {
		_ = f.Close()
	}
	if b.mapped == nil {
		return nil
	}
	return os.NewSyscallError("munmap", unix.Munmap(b.mapped))
}

// place is where the nth piece of the stream lies.
func place(memory []byte, n int) []byte {
	at := n % places * placeLen
	return memory[at : at+placeLen : at+placeLen]
}

// feed carries all of r, and waits until the child has taken it. Errors of r are
// passed on; errGone if the child has gone before.
func (b *belt) feed(r io.Reader) error {
	sent, taken := 0, 0
	for ended := false; !ended; {
		if sent-taken == places {
			if err := b.await(); err != nil {
				return err
			}
			taken++
		}
		n, err := fill(place(b.mapped, sent), r)
		if ended = err == io.EOF; err != nil && !ended {
			return err
		}
		if n == 0 {
			continue
		}
		if err := b.say(n); err != nil {
			return err
		}
		sent++
	}
	if err := b.say(0); err != nil {
		return err
	}
	for ; taken < sent; taken++ {
		if err := b.await(); err != nil {
			return err
		}
	}
	return nil
}

// fill reads until p is full or r has an error, its end too.
func fill(p []byte, r io.Reader) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = r.Read(p[n:])
		n += k
	}
	return n, err
}

// say tells how much there is in the next place.
func (b *belt) say(n int) error {
	if _, err := b.ours.Write(binary.LittleEndian.AppendUint32(nil, uint32(n))); err != nil {
		return errGone
	}
	return nil
}

// await waits for a place.
func (b *belt) await() error {
	if n, err := b.ours.Read(make([]byte, 1)); err != nil || n == 0 {
		return errGone
	}
	return nil
}

// taker is the child's end of a belt.
type taker struct {
	memory []byte
	socket io.ReadWriter
	n      int    // places taken
	left   []byte // of the place
	err    error
}

// newTaker maps the memory of a belt.
func newTaker(memory *os.File, socket io.ReadWriter) (*taker, error) {
	mapped, err := unix.Mmap(int(memory.Fd()), 0, places*placeLen, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	return &taker{memory: mapped, socket: socket}, nil
}

// Read implements io.Reader.
func (t *taker) Read(p []byte) (int, error) {
	if len(t.left) == 0 && t.err == nil {
		t.err = t.next()
	}
	if len(t.left) == 0 {
		return 0, t.err
	}
	n := copy(p, t.left)
	t.left = t.left[n:]
	return n, nil
}

// next gives a place back, if there is one, and takes the next.
func (t *taker) next() error {
	if t.n > 0 {
		if _, err := t.socket.Write([]byte{0}); err != nil {
			return err
		}
	}
	var size [4]byte
	if _, err := t.socket.Read(size[:]); err != nil {
		return fmt.Errorf("the stream has no end: %w", err)
	}
	k := binary.LittleEndian.Uint32(size[:])
	if k == 0 {
		return io.EOF
	}
	t.left = place(t.memory, t.n)[:min(k, placeLen)]
	t.n++
	return nil
}

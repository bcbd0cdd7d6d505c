package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"golang.org/x/sys/unix"
)

// A queue parks records with descriptors where they outlive the process: in
// the receive queue of a socket of which both ends are held elsewhere too.
// Nobody reads it but the process that parks, and that never takes a record
// out before a newer one of the same id, or a copy, is in.
//
// Of records with one id the one with the highest number counts. Superseded
// ones are dropped, from the front, when there are too many (compact).
type queue struct {
	mu      sync.Mutex
	in, out int    // descriptors, not blocking
	count   int    // guarded by mu: messages in the queue
	seq     uint64 // guarded by mu: number of the last record
}

// parkVersion is the version of records. A reader ignores fields that it does
// not know and takes absent ones as zero; a change that this does not cover
// makes a new version.
const parkVersion = 1

// A parked record. Up to two descriptors travel with it: pidfd and, if Console
// is set, the console's master; none with an Exit or when it is Forgotten.
type parked struct {
	Version int    `json:"version"`
	Seq     uint64 `json:"seq"`
	// End marks the end of a round (drain); the rest is empty then.
	End     bool    `json:"end,omitempty"`
	ID      string  `json:"id,omitempty"`
	Process Process `json:"process"`
	// Forgotten says that the id is free again.
	Forgotten bool   `json:"forgotten,omitempty"`
	Birth     uint64 `json:"birth,omitempty"` // Seq of the first record of this process
	Slot      int    `json:"slot"`
	Console   bool   `json:"console,omitempty"`
	Log       string `json:"log,omitempty"`
	Limit     int64  `json:"limit,omitempty"`
	// ExitsFrom is where in the guard's records this one's exit may be.
	ExitsFrom int64 `json:"exits_from,omitempty"`
	Exit      *Exit `json:"exit,omitempty"`
	// Foreign says that another runtime has made it.
	Foreign bool `json:"foreign,omitempty"`
}

const (
	maxParked     = 32 << 10
	maxParkedFile = 2
	// queueMemory bounds the kernel's memory for the queue; a record takes about
	// 1.3 KiB.
	queueMemory = 256 << 20
)

func newQueue(in, out int) *queue {
	// Without CAP_NET_ADMIN the bound of the host holds.
	if unix.SetsockoptInt(in, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, queueMemory) != nil {
		_ = unix.SetsockoptInt(in, unix.SOL_SOCKET, unix.SO_SNDBUF, queueMemory)
	}
	return &queue{in: in, out: out}
}

// put parks r and gives it its number.
func (q *queue) put(r *parked, fds ...int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.seq++
	r.Version, r.Seq = parkVersion, q.seq
	if r.Birth == 0 {
		r.Birth = q.seq
	}
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("park: %w", err)
	}
	return q.send(body, fds)
}

// send needs mu.
func (q *queue) send(body []byte, fds []int) error {
	if len(body) > maxParked {
		return fmt.Errorf("park: record of %d bytes: %w", len(body), errdefs.ErrInvalid)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_, err := linux.RetryEINTR(func() (int, error) {
		return 0, unix.Sendmsg(q.in, body, rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	})
	if err != nil {
		return fmt.Errorf("park: %w: %w", os.NewSyscallError("sendmsg", err), errdefs.ErrExhausted)
	}
	q.count++
	return nil
}

// pop drops the first message. It needs mu.
func (q *queue) pop() error {
	_, err := linux.RetryEINTR(func() (int, error) {
		n, _, _, _, err := unix.Recvmsg(q.out, make([]byte, 1), nil, unix.MSG_DONTWAIT)
		return n, err
	})
	if err != nil {
		return os.NewSyscallError("recvmsg", err)
	}
	q.count = max(0, q.count-1)
	return nil
}

// peek returns a copy of the first message and of its descriptors.
func (q *queue) peek(buf []byte) (n int, fds []int, err error) {
	oob := make([]byte, unix.CmsgSpace(4*maxParkedFile))
	oobn := 0
	_, err = linux.RetryEINTR(func() (int, error) {
		var err error
		n, oobn, _, _, err = unix.Recvmsg(q.out, buf, oob, unix.MSG_PEEK|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		return 0, err
	})
	if err != nil {
		return 0, nil, os.NewSyscallError("recvmsg", err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return 0, nil, os.NewSyscallError("recvmsg control", err)
	}
	for i := range msgs {
		if list, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			fds = append(fds, list...)
		}
	}
	return n, fds, nil
}

func closeFds(fds ...int) {
	for _, fd := range fds {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// A found record with its descriptors, which its taker closes.
type found struct {
	parked
	fds []int
}

// drain returns what is parked, the newest record of each id, and leaves all
// of it in the queue: each message is copied to the end before it is taken from
// the front, until the mark that drain itself has put there comes by. Messages
// that cannot be read are reported to damaged and dropped.
func (q *queue) drain(damaged func(error)) (map[string]*found, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	mark, err := json.Marshal(parked{Version: parkVersion, End: true, Seq: uint64(os.Getpid())})
	if err != nil {
		return nil, err
	}
	if err := q.send(mark, nil); err != nil {
		return nil, err
	}
	all := map[string]*found{}
	buf := make([]byte, maxParked)
	for count := 0; ; count++ {
		n, fds, err := q.peek(buf)
		if err != nil {
			q.count = count
			return all, fmt.Errorf("read what is parked: %w", err)
		}
		if string(buf[:n]) == string(mark) {
			q.count = count + 1
			return all, q.pop()
		}
		keep, err := q.read(all, buf[:n], fds)
		if err != nil {
			damaged(err)
		}
		if !keep {
			count--
		} else if err := q.send(buf[:n], fds); err != nil {
			return all, err
		}
		if err := q.pop(); err != nil {
			return all, err
		}
	}
}

// read takes one message into all, and says whether it is to be kept. It needs
// mu.
func (q *queue) read(all map[string]*found, body []byte, fds []int) (bool, error) {
	f := &found{fds: fds}
	err := json.Unmarshal(body, &f.parked)
	switch {
	case err != nil:
		err = fmt.Errorf("parked record of %d bytes: %w: %w", len(body), err, errdefs.ErrCorrupt)
	case f.End: // of a drain that was cut off
		closeFds(fds...)
		return false, nil
	case f.Version != parkVersion:
		err = fmt.Errorf("parked record of version %d: %w", f.Version, errdefs.ErrUnsupported)
	case f.ID == "":
		err = fmt.Errorf("parked record without an id: %w", errdefs.ErrCorrupt)
	}
	if err != nil {
		closeFds(fds...)
		return false, err
	}
	q.seq = max(q.seq, f.Seq)
	if old := all[f.ID]; old != nil {
		if old.Seq >= f.Seq {
			closeFds(fds...)
			return false, nil // the other one is behind the mark already
		}
		closeFds(old.fds...)
	}
	all[f.ID] = f
	return true, nil
}

// crowded reports whether most messages are superseded, live of them being
// not.
func (q *queue) crowded(live int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.count > 2*live+64
}

// compact calls again, which parks anew all that counts, and then drops what
// was in front of that.
func (q *queue) compact(again func() error) error {
	q.mu.Lock()
	old := q.count
	q.mu.Unlock()
	if err := again(); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for range old {
		if err := q.pop(); err != nil && !errors.Is(err, unix.EAGAIN) {
			return err
		}
	}
	return nil
}

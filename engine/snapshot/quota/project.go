package quota

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Ids of projects that are ours: 0x67000000 ("g") and the next 2^24. Nothing
// else marks them; an id is taken only when the file system has no file and no
// limit under it.
const (
	firstProject = 0x67000000
	projectMask  = 0xff000000
)

func ownProject(id uint32) bool { return id&projectMask == firstProject }

// Commands and structures of linux/quota.h, linux/dqblk_xfs.h, linux/fs.h.
const (
	projectQuota  = 2 // PRJQUOTA
	getQuota      = 0x800007
	setQuota      = 0x800008
	getNextQuota  = 0x800009
	getQuotaState = 'X'<<8 + 5 // Q_XGETQSTAT
	// of struct fs_quota_stat.qs_flags
	projectEnforced = 1 << 5 // FS_QUOTA_PDQ_ENFD
	limitsValid     = 1 | 4  // QIF_BLIMITS, QIF_ILIMITS

	getAttributes = 0x801c581f // FS_IOC_FSGETXATTR
	setAttributes = 0x401c5820 // FS_IOC_FSSETXATTR
	inheritFlag   = 0x200      // FS_XFLAG_PROJINHERIT
)

// quotaBlock is struct if_nextdqblk, which begins as struct if_dqblk does.
// Limits of space are in units of 1 KiB, what is in use is in bytes.
type quotaBlock struct {
	bhard, bsoft, space  uint64
	ihard, isoft, inodes uint64
	btime, itime         uint64
	valid, id            uint32
	_                    [8]byte
}

// fileAttributes is struct fsxattr.
type fileAttributes struct {
	flags, extsize, nextents, project, cowextsize uint32
	_                                             [8]byte
}

// project bounds directories by project quotas.
type project struct {
	root string
	mu   sync.Mutex // one id is chosen at a time
}

func (p *project) quotactl(cmd int, id uint32, arg unsafe.Pointer) error {
	fd, err := unix.Open(p.root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: p.root, Err: err}
	}
	defer unix.Close(fd)
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, uintptr(fd), uintptr(cmd<<8|projectQuota), uintptr(id), uintptr(arg), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// probe finds out whether project quotas are enforced below root.
func (p *project) probe(ctx context.Context) error {
	var state [128]byte // struct fs_quota_stat
	if err := p.quotactl(getQuotaState, 0, unsafe.Pointer(&state)); err != nil {
		return fmt.Errorf("the file system has no project quota: %w: %w", errdefs.ErrUnsupported, err)
	}
	if flags := binary.NativeEndian.Uint16(state[2:]); flags&projectEnforced == 0 {
		return fmt.Errorf("the file system is not mounted with prjquota: %w", errdefs.ErrUnsupported)
	}
	dir, err := os.MkdirTemp(p.root, ".new-probe-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	trial := filepath.Join(dir, "trial")
	err = p.make(ctx, trial, snapshot.Limit{Bytes: 1 << 20, Inodes: 10})
	return errors.Join(err, p.remove(trial))
}

func attributes(dir string, change func(*fileAttributes)) (fileAttributes, error) {
	var a fileAttributes
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return a, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	call := func(request uintptr) error {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&a)))
		if errno != 0 {
			return &os.PathError{Op: "ioctl fsxattr", Path: dir, Err: errno}
		}
		return nil
	}
	if err := call(getAttributes); err != nil || change == nil {
		return a, err
	}
	change(&a)
	return a, call(setAttributes)
}

// projectOf is the project of dir if what is made in it inherits it, else 0.
func projectOf(dir string) (uint32, error) {
	a, err := attributes(dir, nil)
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) {
		return 0, nil
	}
	if err != nil || a.flags&inheritFlag == 0 {
		return 0, err
	}
	return a.project, nil
}

// take finds an id that the file system does not know and gives it the limit.
func (p *project) take(limit snapshot.Limit) (uint32, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	const tries = 1000
	for range tries {
		var r [4]byte
		_, _ = rand.Read(r[:]) // never fails
		id := firstProject | binary.NativeEndian.Uint32(r[:])&^projectMask
		var q quotaBlock
		err := p.quotactl(getQuota, id, unsafe.Pointer(&q))
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return 0, os.NewSyscallError("quotactl get", err)
		}
		if q.inodes == 0 && q.space == 0 && q.bhard == 0 && q.ihard == 0 {
			return id, p.limit(id, limit)
		}
	}
	return 0, fmt.Errorf("no free project id: %w", errdefs.ErrExhausted)
}

func (p *project) limit(id uint32, limit snapshot.Limit) error {
	q := quotaBlock{valid: limitsValid, bhard: uint64(limit.Bytes+1023) / 1024, ihard: uint64(limit.Inodes)}
	return os.NewSyscallError("quotactl set", p.quotactl(setQuota, id, unsafe.Pointer(&q)))
}

func (p *project) make(_ context.Context, dir string, limit snapshot.Limit) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	id, err := p.take(limit)
	if err != nil {
		return err
	}
	_, err = attributes(dir, func(a *fileAttributes) { a.flags |= inheritFlag; a.project = id })
	if err != nil {
		return errors.Join(err, p.limit(id, snapshot.Limit{}))
	}
	return nil
}

func (p *project) open(context.Context, string) error { return nil }

func (p *project) set(_ context.Context, dir string, limit snapshot.Limit) error {
	id, err := projectOf(dir)
	if err != nil {
		return err
	}
	return p.limit(id, limit)
}

func (p *project) usage(_ context.Context, dir string) (snapshot.Usage, error) {
	id, err := projectOf(dir)
	if err != nil {
		return snapshot.Usage{}, err
	}
	var q quotaBlock
	if err := p.quotactl(getQuota, id, unsafe.Pointer(&q)); err != nil {
		return snapshot.Usage{}, os.NewSyscallError("quotactl get", err)
	}
	return snapshot.Usage{Bytes: int64(q.space), Inodes: int64(q.inodes)}, nil
}

// remove drops the limit last: one without a file is found by Orphans.
func (p *project) remove(dir string) error {
	id, err := projectOf(dir)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return p.limit(id, snapshot.Limit{})
}

// Orphans finds limits of projects of ours that have no file at all, calls
// report for each and passes what removes it.
func (m *Manager) Orphans(ctx context.Context, report func(what string, mend func() error)) error {
	if m.kind != snapshot.LimitProject {
		return nil
	}
	for next := uint32(firstProject); ; next++ {
		var q quotaBlock
		err := m.project.quotactl(getNextQuota, next, unsafe.Pointer(&q))
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
			return nil
		}
		if err != nil {
			return os.NewSyscallError("quotactl next", err)
		}
		if !ownProject(q.id) {
			return nil
		}
		if next = q.id; q.inodes == 0 && q.space == 0 && (q.bhard != 0 || q.ihard != 0) {
			report(fmt.Sprintf("project %d", q.id), func() error { return m.project.limit(q.id, snapshot.Limit{}) })
		}
		if err := ctx.Err(); err != nil || next == firstProject|^uint32(projectMask) {
			return err
		}
	}
}

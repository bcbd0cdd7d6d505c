package filesystemtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// populate fills dir with one of each thing that a file system can hold. What
// this file system cannot hold is left out. large adds what takes room.
func populate(t testing.TB, dir string, large bool) {
	t.Helper()
	if err := os.Chmod(dir, 0o751); err != nil {
		t.Fatal(err)
	}
	p := &populator{t: t, random: newRandom(1)}
	parts := map[string]func(dir string){
		"files": p.files, "links": p.links, "special": p.special, "modes": p.modes, "times": p.times, "xattrs": p.xattrs,
		"names": p.names, "holes": p.holes,
	}
	if large {
		parts["many"], parts["large"], parts["pieces"], parts["linked"] = p.many, p.large, p.pieces, p.linked
	}
	for name, make := range parts {
		sub := filepath.Join(dir, name)
		p.must(os.Mkdir(sub, 0o755))
		make(sub)
	}
}

type populator struct {
	t      testing.TB
	random *rand.ChaCha8
}

func (p *populator) must(errs ...error) {
	p.t.Helper()
	if err := errors.Join(errs...); err != nil {
		p.t.Fatal(err)
	}
}

// may accepts that a file system has no room for something, or none of it.
func (p *populator) may(err error) {
	p.t.Helper()
	for _, e := range []unix.Errno{
		unix.ENAMETOOLONG, unix.EOPNOTSUPP, unix.ENOSPC, unix.E2BIG, unix.ERANGE, unix.EFBIG, unix.EMLINK, unix.EOVERFLOW, unix.EINVAL, unix.ENODATA,
	} {
		if errors.Is(err, e) {
			return
		}
	}
	p.must(err)
}

func (p *populator) bytes(n int) []byte {
	b := make([]byte, n)
	_, _ = p.random.Read(b)
	return b
}

func (p *populator) file(path string, size int) {
	p.t.Helper()
	p.must(os.WriteFile(path, p.bytes(size), 0o644))
}

func (p *populator) files(dir string) {
	for _, size := range []int{
		0, 1, 59, 60, 61, 100, 150, 157, 200, 300, 511, 512, 1000, 2000, 2048, 3000, 4095, 4096, 4097, 12288, 65536, 70001, 1<<20 + 3,
	} {
		p.file(filepath.Join(dir, fmt.Sprint(size)), size)
	}
	p.must(os.WriteFile(filepath.Join(dir, "zeros"), make([]byte, 20000), 0o600))
	p.must(os.WriteFile(filepath.Join(dir, "text"), []byte(strings.Repeat("the same again ", 40000)), 0o600))
	short := filepath.Join(dir, "shortened")
	p.file(short, 300000)
	p.must(os.Truncate(short, 5000), os.Truncate(short, 100000))
	was := filepath.Join(dir, "was small")
	p.file(was, 20)
	f, err := os.OpenFile(was, os.O_WRONLY|os.O_APPEND, 0)
	p.must(err)
	_, err = f.Write(p.bytes(9000))
	p.must(err, f.Close())
}

func (p *populator) links(dir string) {
	for _, n := range []int{1, 30, 58, 59, 60, 61, 100, 150, 255, 256, 500, 1023, 1024, 2000, 4000, 4095} {
		target := strings.Repeat("d/", n/2) + strings.Repeat("x", n%2)
		p.may(os.Symlink(target, filepath.Join(dir, fmt.Sprint("l", n))))
	}
	p.must(os.Symlink("/\xff\n../ ", filepath.Join(dir, "odd")))
	p.must(os.Mkdir(filepath.Join(dir, "d"), 0o755))
	p.file(filepath.Join(dir, "a"), 10)
	p.must(os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "d", "b")), os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "c")),
		os.Link(filepath.Join(dir, "l30"), filepath.Join(dir, "l30 again")))
}

func (p *populator) special(dir string) {
	for name, dev := range map[string]uint64{
		"null": unix.Mkdev(1, 3), "large": unix.Mkdev(300, 70000), "most": unix.Mkdev(4095, 1<<20-1), "none": unix.Mkdev(0, 1), "old": unix.Mkdev(255, 255),
	} {
		p.may(unix.Mknod(filepath.Join(dir, "c "+name), unix.S_IFCHR|0o620, int(dev)))
		p.may(unix.Mknod(filepath.Join(dir, "b "+name), unix.S_IFBLK|0o660, int(dev)))
	}
	p.must(unix.Mknod(filepath.Join(dir, "pipe"), unix.S_IFIFO|0o644, 0), unix.Mknod(filepath.Join(dir, "socket"), unix.S_IFSOCK|0o755, 0),
		os.Link(filepath.Join(dir, "c null"), filepath.Join(dir, "c null again")))
}

func (p *populator) modes(dir string) {
	for i, mode := range []uint32{0, 0o7777, 0o4755, 0o2755, 0o1644, 0o400, 0o111} {
		name := filepath.Join(dir, fmt.Sprintf("f%04o", mode))
		p.file(name, i)
		p.must(os.Lchown(name, i, 1000*i), unix.Chmod(name, mode))
		sub := filepath.Join(dir, fmt.Sprintf("d%04o", mode))
		p.must(os.Mkdir(sub, 0o755), unix.Chmod(sub, mode))
	}
	for i, id := range [][2]int{{65534, 65535}, {65536, 70000}, {1<<31 + 5, 1<<32 - 2}} {
		name := filepath.Join(dir, fmt.Sprint("owner", i))
		p.must(os.Symlink("x", name), unix.Lchown(name, id[0], id[1]))
	}
}

func (p *populator) times(dir string) {
	for i, at := range [][2]int64{
		{0, 0},
		{-1, 999999999},
		{-1 << 31, 0},
		{1<<31 - 1, 1},
		{1 << 31, 123456789},
		{1 << 32, 5},
		{4102444800, 999999999},
		{7258118400, 1},
		{15032385535, 7},
		{1_700_000_000, 0},
		{1_700_000_000, 1},
	} {
		name := filepath.Join(dir, fmt.Sprint("t", i))
		p.file(name, 1)
		ts := []unix.Timespec{{Sec: at[0], Nsec: at[1]}, {Sec: at[0] + 1, Nsec: at[1]}}
		p.must(unix.UtimesNanoAt(unix.AT_FDCWD, name, ts, unix.AT_SYMLINK_NOFOLLOW))
	}
	p.must(os.Symlink("x", filepath.Join(dir, "link")), os.Mkdir(filepath.Join(dir, "d"), 0o755))
	for _, name := range []string{"link", "d"} {
		ts := unix.NsecToTimespec(time.Unix(1_234_567_890, 987654321).UnixNano())
		p.must(unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, name), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// Values of attributes that the kernel parses.
const (
	capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	acl        = "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\xe8\x03\x00\x00\x02\x00\x07\x00\x70\x11\x01\x00\x04\x00\x04\x00\xff\xff\xff\xff" +
		"\x08\x00\x05\x00\x20\x4e\x00\x00\x10\x00\x07\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff"
)

func (p *populator) xattrs(dir string) {
	set := func(path, name, value string) { p.may(unix.Lsetxattr(path, name, []byte(value), 0)) }
	files := []string{"ping", "acl", "few", "block", "many", "big", "huge", "longest name", "gone", "equal 1", "equal 2"}
	for _, name := range files {
		p.file(filepath.Join(dir, name), len(name))
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	set(at("ping"), "security.capability", capability)
	set(at("acl"), "system.posix_acl_access", acl)
	set(at("few"), "user.a", "1")
	set(at("few"), "user.empty", "")
	set(at("few"), "trusted.b", "\x00\xff")
	set(at("block"), "user.block", string(p.bytes(700)))
	set(at("block"), "user.second", "x")
	for i := range 20 {
		set(at("many"), fmt.Sprintf("user.number %02d", i), strings.Repeat("v", i))
	}
	set(at("big"), "user.big", string(p.bytes(3000)))
	for i := range 3 {
		set(at("huge"), fmt.Sprint("user.huge", i), string(p.bytes(20000*(i+1))))
	}
	set(at("longest name"), "user."+strings.Repeat("n", 250), "x")
	set(at("gone"), "user.gone", string(p.bytes(1000)))
	set(at("gone"), "user.stays", "y")
	p.may(unix.Lremovexattr(at("gone"), "user.gone"))
	for i := 1; i < 3; i++ {
		set(at(fmt.Sprint("equal ", i)), "user.equal", strings.Repeat("equal", 100))
	}
	p.must(os.Mkdir(at("dir"), 0o755), os.Symlink("x", at("link")), unix.Mkfifo(at("pipe"), 0o600))
	set(at("dir"), "system.posix_acl_default", acl)
	set(at("dir"), "user.dir", "d")
	set(at("link"), "trusted.link", "l")
	set(at("pipe"), "trusted.pipe", "p")
	p.file(filepath.Join(dir, "dir", "inherits"), 3)
	p.must(os.Mkdir(filepath.Join(dir, "dir", "d"), 0o755))
}

func (p *populator) names(dir string) {
	long := strings.Repeat("n", 255)
	for _, name := range []string{long, long[1:], strings.Repeat("ü", 127), "\xff\xfe", " ", "a\nb", "...", ".wh.x", "\\", "A", "a", "lost+found"} {
		p.file(filepath.Join(dir, name), 1)
	}
	deep := dir
	for i := range 40 {
		deep = filepath.Join(deep, fmt.Sprint("deep", i))
		p.must(os.Mkdir(deep, 0o755))
	}
	p.file(filepath.Join(deep, "f"), 5)
	sub := filepath.Join(dir, "thinned")
	p.must(os.Mkdir(sub, 0o755))
	for i := range 300 {
		p.file(filepath.Join(sub, fmt.Sprintf("a file with a long name, number %04d", i)), 0)
	}
	for i := range 300 {
		if i%7 != 0 {
			p.must(os.Remove(filepath.Join(sub, fmt.Sprintf("a file with a long name, number %04d", i))))
		}
	}
	p.must(os.Rename(filepath.Join(sub, fmt.Sprintf("a file with a long name, number %04d", 7)), filepath.Join(sub, "x")))
}

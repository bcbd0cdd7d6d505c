package ext

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Output is where a file system is written: zeros, as far as nothing was written.
type Output interface {
	io.ReaderAt
	io.WriterAt
}

// Written is what Write has put into a file system.
type Written struct {
	// Entries are the inodes, Blocks those that files and directories take.
	Entries, Blocks int64
}

// Write makes a file system of the shape at the beginning of to, with the files
// of a tar stream: regular files, directories, links, fifos and devices, with
// owners, modes, times of modification and the extended attributes of
// SCHILY.xattr records. Blocks of zeros become holes, and the first 1,024 bytes
// are not written. Directories come before what is in them, and the stream's
// first name of a file before the others.
//
// errdefs.ErrExhausted: the files do not fit. errdefs.ErrInvalid: the stream is
// no such tree, or has what ext4 cannot hold. errdefs.ErrAborted when ctx ends.
// Errors of tree and of to are wrapped. After an error what was written is of
// no use.
func Write(ctx context.Context, s Shape, tree io.Reader, to Output) (Written, error) {
	p, err := s.plan()
	if err != nil {
		return Written{}, err
	}
	w := &writer{
		plan: p, ctx: ctx, to: to, now: time.Now(), next: p.firstBlock, nextInode: p.firstInode,
		dirs: map[string]*directory{}, dirsIn: make([]uint32, p.groups), buf: make([]byte, 256<<10),
	}
	p.fresh(w.now)
	steps := []func() error{
		func() error { return w.entries(tar.NewReader(tree)) }, w.lostFound, w.directories, w.writeJournal, w.writeResize, w.finish,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return Written{}, fmt.Errorf("write ext4: %w", err)
		}
	}
	return Written{Entries: int64(w.nextInode - p.firstInode), Blocks: w.blocks}, nil
}

// writer holds one run of Write.
type writer struct {
	*plan
	ctx       context.Context //nolint:containedctx // one run
	to        Output
	now       time.Time
	next      uint64 // blocks before it are used
	nextInode uint32
	dirs      map[string]*directory // by path, without slashes at the ends
	order     []*directory
	dirsIn    []uint32 // directories by group
	blocks    int64
	buf       []byte
}

// directory is one whose entries are not complete.
type directory struct {
	node
	parent  uint32
	entries []byte // inode (4), type (1), length (1), name
	subs    int
}

// paxXattr begins the names of records with extended attributes.
const paxXattr = "SCHILY.xattr."

func (w *writer) entries(tr *tar.Reader) error {
	for {
		if err := w.ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", errdefs.ErrAborted, err)
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read tree: %w", err)
		}
		if err := w.entry(h, tr); err != nil {
			return fmt.Errorf("entry %.200q: %w", h.Name, err)
		}
	}
	if w.dirs[""] == nil {
		return invalid("the tree has no root")
	}
	return nil
}

// entry writes one entry of the stream.
func (w *writer) entry(h *tar.Header, content io.Reader) error {
	path := strings.Trim(strings.TrimPrefix(h.Name, "./"), "/")
	n, err := w.nodeOf(h)
	if err != nil {
		return err
	}
	if path == "" || path == "." {
		if h.Typeflag != tar.TypeDir || w.dirs[""] != nil {
			return invalid("the root is no directory, or there twice")
		}
		n.number = rootInode
		w.addDir("", &directory{node: n, parent: rootInode})
		return nil
	}
	dir, base := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, base = path[:i], path[i+1:]
	}
	in := w.dirs[dir]
	if in == nil || len(base) > 255 || base == "." || base == ".." || strings.ContainsRune(base, 0) {
		return invalid("its directory was not there before, or its name cannot be")
	}
	if h.Typeflag == tar.TypeLink {
		return w.link(in, base, strings.Trim(strings.TrimPrefix(h.Linkname, "./"), "/"))
	}
	if n.number, err = w.allocInode(); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeDir {
		if w.dirs[path] != nil {
			return invalid("it is there twice")
		}
		w.addDir(path, &directory{node: n, parent: in.number})
		in.subs++
		in.add(n.number, 2, base)
		return nil
	}
	in.add(n.number, n.dirType(), base)
	if err := w.fill(&n, h, content); err != nil {
		return err
	}
	return w.putNode(&n)
}

func (w *writer) addDir(path string, d *directory) {
	w.dirs[path] = d
	w.order = append(w.order, d)
	w.dirsIn[(d.number-1)/w.inodesPerGroup]++
}

func (d *directory) add(number uint32, kind byte, name string) {
	d.entries = binary.LittleEndian.AppendUint32(d.entries, number)
	d.entries = append(d.entries, kind, byte(len(name)))
	d.entries = append(d.entries, name...)
}

// find looks for an entry.
func (d *directory) find(name string) (number uint32, kind byte) {
	for b := d.entries; len(b) > 0; b = b[6+int(b[5]):] {
		if string(b[6:6+int(b[5])]) == name {
			return le32(b, 0), b[4]
		}
	}
	return 0, 0
}

// link gives a file another name.
func (w *writer) link(in *directory, base, target string) error {
	dir, name := "", target
	if i := strings.LastIndexByte(target, '/'); i >= 0 {
		dir, name = target[:i], target[i+1:]
	}
	from := w.dirs[dir]
	if from == nil {
		return invalid("a link to %.200q, which was not there before", target)
	}
	number, kind := from.find(name)
	if number == 0 || kind == 2 {
		return invalid("a link to %.200q, which was not there before", target)
	}
	in.add(number, kind, base)
	return w.addLink(number)
}

// nodeOf is the inode of an entry without its content.
func (w *writer) nodeOf(h *tar.Header) (node, error) {
	n := node{mode: uint16(h.Mode & 0o7777), uid: uint32(h.Uid), gid: uint32(h.Gid), mtime: h.ModTime, links: 1}
	kinds := map[byte]uint16{
		tar.TypeReg: unix.S_IFREG, tar.TypeDir: unix.S_IFDIR, tar.TypeSymlink: unix.S_IFLNK, tar.TypeFifo: unix.S_IFIFO,
		tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeLink: unix.S_IFREG,
	}
	kind, ok := kinds[h.Typeflag]
	if !ok || h.Uid < 0 || h.Gid < 0 || h.Uid > math.MaxUint32 || h.Gid > math.MaxUint32 {
		return n, invalid("type %q, owner %d:%d", h.Typeflag, h.Uid, h.Gid)
	}
	n.mode |= kind
	for name, value := range h.PAXRecords {
		if attr, ok := strings.CutPrefix(name, paxXattr); ok {
			x, err := diskAttr(attr, value)
			if err != nil {
				return n, err
			}
			n.attrs = append(n.attrs, x)
		}
	}
	return n, nil
}

// fill writes what an inode that is no directory holds.
func (w *writer) fill(n *node, h *tar.Header, content io.Reader) error {
	switch n.mode & unix.S_IFMT {
	case unix.S_IFREG:
		n.size = h.Size
		if n.size > math.MaxInt32 {
			w.roCompat |= roCompatLargeFile
		}
		runs, err := w.content(content, h.Size)
		if err != nil {
			return err
		}
		return w.mapBlocks(n, runs)
	case unix.S_IFLNK:
		n.size = int64(len(h.Linkname))
		if n.size == 0 || n.size >= int64(w.blockSize) {
			return invalid("a symbolic link of %d bytes", n.size)
		}
		if n.size < blockAreaLen {
			copy(n.area[:], h.Linkname)
			return nil
		}
		runs, err := w.content(strings.NewReader(h.Linkname), n.size)
		if err != nil {
			return err
		}
		return w.mapBlocks(n, runs)
	case unix.S_IFCHR, unix.S_IFBLK:
		// as the kernel's new_encode_dev
		major, minor := uint32(h.Devmajor), uint32(h.Devminor)
		binary.LittleEndian.PutUint32(n.area[4:], minor&0xff|major<<8|minor&^0xff<<12)
	}
	return nil
}

// stretch is blocks of a file that lie in a row.
type stretch struct {
	logical uint32
	at      uint64
	n       uint32
}

const longestRun = 32768 // of an extent that holds data

// content writes size bytes, and leaves out the blocks of zeros.
func (w *writer) content(r io.Reader, size int64) (runs []stretch, err error) {
	if uint64(size)/uint64(w.blockSize) >= 1<<32-1 {
		return nil, invalid("a file of %d bytes", size)
	}
	for off := int64(0); off < size; off += int64(len(w.buf)) {
		if err := w.ctx.Err(); err != nil {
			return nil, fmt.Errorf("%w: %w", errdefs.ErrAborted, err)
		}
		n := int(min(size-off, int64(len(w.buf))))
		if _, err := io.ReadFull(r, w.buf[:n]); err != nil {
			return nil, fmt.Errorf("read tree: %w", err)
		}
		whole := (n + w.blockSize - 1) / w.blockSize * w.blockSize
		clear(w.buf[n:whole])
		if runs, err = w.chunk(runs, uint32(off/int64(w.blockSize)), w.buf[:whole]); err != nil {
			return nil, err
		}
	}
	return runs, nil
}

// chunk writes whole blocks of a file, from a logical one on.
func (w *writer) chunk(runs []stretch, logical uint32, b []byte) ([]stretch, error) {
	bs := w.blockSize
	for i := 0; i < len(b); {
		if allZero(b[i : i+bs]) {
			i += bs
			continue
		}
		end := i + bs
		for end < len(b) && !allZero(b[end:end+bs]) {
			end += bs
		}
		for i < end {
			at, n, err := w.alloc(uint64((end - i) / bs))
			if err != nil {
				return nil, err
			}
			if err := w.put(b[i:i+int(n)*bs], at); err != nil {
				return nil, err
			}
			runs = join(runs, stretch{logical + uint32(i/bs), at, uint32(n)})
			i += int(n) * bs
		}
	}
	return runs, nil
}

// join adds blocks to a list.
func join(runs []stretch, r stretch) []stretch {
	if len(runs) > 0 {
		last := &runs[len(runs)-1]
		if last.logical+last.n == r.logical && last.at+uint64(last.n) == r.at && last.n+r.n <= longestRun {
			last.n += r.n
			return runs
		}
	}
	return append(runs, r)
}

// allZero compares each byte with the next one, which is memcmp and no loop.
func allZero(b []byte) bool {
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

// put writes whole blocks.
func (w *writer) put(b []byte, at uint64) error {
	_, err := w.to.WriteAt(b, int64(at)*int64(w.blockSize))
	return err
}

// alloc takes at most n free blocks that lie in a row.
func (w *writer) alloc(n uint64) (at, got uint64, err error) {
	for w.next < w.plan.blocks && w.used.has(w.next-w.firstBlock) {
		w.next++
	}
	at = w.next
	for n = min(n, longestRun); w.next < w.plan.blocks && got < n && !w.used.has(w.next-w.firstBlock); got++ {
		w.used.set(w.next - w.firstBlock)
		w.next++
	}
	if got == 0 {
		return 0, 0, fmt.Errorf("the file system is full: %w", errdefs.ErrExhausted)
	}
	w.left -= got
	w.blocks += int64(got)
	return at, got, nil
}

func (w *writer) allocInode() (uint32, error) {
	if w.nextInode > w.inodes {
		return 0, fmt.Errorf("the file system has no more than %d inodes: %w", w.inodes, errdefs.ErrExhausted)
	}
	w.nextInode++
	return w.nextInode - 1, nil
}

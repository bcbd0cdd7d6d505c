package filesystem

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Types of entries.
const (
	typeFile    = '0'
	typeLink    = '1'
	typeSymlink = '2'
	typeDir     = '5'
	typeFifo    = '6'
	typePAX     = 'x'
)

const (
	blockLen = 512
	// mostRecords is the longest list of pax records of one entry that Go's
	// reader takes.
	mostRecords = 1 << 20
)

// header is what a header says.
type header struct {
	path   string
	kind   byte
	target string
	attr   *Attr
	xattrs map[string]string
	// parts of a regular file that follow; the others are holes.
	parts  []segment
	sparse bool
}

// tarWriter writes a stream. Go's own writer knows no sparse files.
type tarWriter struct {
	w   *bufio.Writer
	pos int64
	buf []byte
}

func newTarWriter(w io.Writer) tarWriter { return tarWriter{w: bufio.NewWriterSize(w, 256<<10)} }

func (t *tarWriter) write(b []byte) error {
	n, err := t.w.Write(b)
	t.pos += int64(n)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

var padding [blockLen]byte

// pad fills the last block.
func (t *tarWriter) pad() error { return t.write(padding[:-t.pos&(blockLen-1)]) }

// end writes the mark of the end and what is left in memory.
func (t *tarWriter) end() error {
	for range 2 {
		if err := t.write(padding[:]); err != nil {
			return err
		}
	}
	if err := t.w.Flush(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// header writes all that stands before the content of an entry, and counts it
// in res.
func (t *tarWriter) header(h *header, res *TarResult) error {
	res.Entries++
	size, sparseMap := int64(0), []byte(nil)
	if h.kind == typeFile {
		for _, p := range h.parts {
			size += p.end - p.offset
		}
	}
	name := h.path
	var rec records
	if h.sparse {
		sparseMap = h.sparseMap()
		size += int64(len(sparseMap))
		rec.add("GNU.sparse.major", "1")
		rec.add("GNU.sparse.minor", "0")
		rec.add("GNU.sparse.name", h.path)
		rec.add("GNU.sparse.realsize", strconv.FormatInt(h.attr.Size, 10))
		name = sparseName(h.path)
	}
	res.Skipped += h.records(&rec, name, size)
	if len(rec.buf) > mostRecords {
		return invalid("its extended attributes are longer than %d bytes", mostRecords)
	}
	t.buf = t.buf[:0]
	if len(rec.buf) > 0 {
		t.buf = ustar(t.buf, &block{name: "PaxHeaders/" + name, kind: typePAX, mode: 0o644, size: int64(len(rec.buf))})
		t.buf = append(t.buf, rec.buf...)
		t.buf = append(t.buf, padding[:-len(t.buf)&(blockLen-1)]...)
	}
	a := h.attr
	t.buf = ustar(t.buf, &block{
		name: name, target: h.target, kind: h.kind, mode: a.Mode & 0o7777, uid: a.UID, gid: a.GID, size: size, mtime: a.Mtime.Unix(),
	})
	return t.write(append(t.buf, sparseMap...))
}

// sparseName is the name that a reader sees that knows nothing of sparse
// files, as GNU tar makes it.
func sparseName(path string) string {
	i := strings.LastIndexByte(path, '/') + 1
	return path[:i] + "GNUSparseFile.0/" + path[i:]
}

// sparseMap is the list of segments before the content: decimal numbers, each
// with a line feed, filled to whole blocks. An empty one at the end says how
// far a last hole goes.
func (h *header) sparseMap() []byte {
	list := h.parts
	if len(list) == 0 || list[len(list)-1].end < h.attr.Size {
		list = append(slices.Clip(list), segment{h.attr.Size, h.attr.Size})
	}
	b := append(strconv.AppendInt(nil, int64(len(list)), 10), '\n')
	for _, p := range list {
		b = append(strconv.AppendInt(b, p.offset, 10), '\n')
		b = append(strconv.AppendInt(b, p.end-p.offset, 10), '\n')
	}
	return append(b, padding[:-len(b)&(blockLen-1)]...)
}

// records adds those that the header block has no room for, and returns the
// number of attributes that are left out.
func (h *header) records(rec *records, name string, size int64) (skipped int64) {
	if len(name) > nameLen && !h.sparse {
		rec.add("path", name)
	}
	if len(h.target) > nameLen {
		rec.add("linkpath", h.target)
	}
	if size > maxOctal {
		rec.add("size", strconv.FormatInt(size, 10))
	}
	if h.attr.UID > maxOctalID {
		rec.add("uid", strconv.FormatUint(uint64(h.attr.UID), 10))
	}
	if h.attr.GID > maxOctalID {
		rec.add("gid", strconv.FormatUint(uint64(h.attr.GID), 10))
	}
	if t := h.attr.Mtime; t.Nanosecond() != 0 || t.Unix() < 0 || t.Unix() > maxOctal {
		rec.add("mtime", formatTime(t))
	}
	for _, name := range slices.Sorted(maps.Keys(h.xattrs)) {
		if !portable(name) {
			skipped++
			continue
		}
		rec.add("SCHILY.xattr."+name, h.xattrs[name])
	}
	return skipped
}

// portable is false of attributes that have a meaning for the host's overlayfs
// or for gantry, which layer.Apply refuses, and of names that a pax record
// cannot have.
func portable(name string) bool {
	for _, prefix := range []string{"trusted.", "user.overlay.", "user.gantry."} {
		if strings.HasPrefix(name, prefix) {
			return false
		}
	}
	return !strings.ContainsAny(name, "=\x00")
}

// formatTime writes seconds as a decimal fraction without zeros at its end.
func formatTime(t time.Time) string {
	sec, nsec, sign := t.Unix(), int64(t.Nanosecond()), ""
	if sec < 0 && nsec > 0 {
		sec, nsec = sec+1, 1e9-nsec
	}
	if sec < 0 || t.Unix() < 0 {
		sec, sign = -sec, "-"
	}
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%s%d.%09d", sign, sec, nsec), "0"), ".")
}

// records of a pax header: the length of all of it, a space, KEY=VALUE and a
// line feed.
type records struct{ buf []byte }

func (r *records) add(key, value string) {
	rest := len(key) + len(value) + 3
	length := rest + len(strconv.Itoa(rest))
	if n := rest + len(strconv.Itoa(length)); n > length {
		length = n
	}
	r.buf = append(strconv.AppendInt(r.buf, int64(length), 10), ' ')
	r.buf = append(append(r.buf, key...), '=')
	r.buf = append(append(r.buf, value...), '\n')
}

const (
	nameLen    = 100
	maxOctal   = 1<<33 - 1 // 11 digits
	maxOctalID = 1<<21 - 1 // 7 digits
)

// block is what a header block says. What does not fit is cut off or 0: a
// record says it as well.
type block struct {
	name, target string
	kind         byte
	mode         uint32
	uid, gid     uint32
	size, mtime  int64
}

// ustar adds a header block.
func ustar(buf []byte, h *block) []byte {
	at := len(buf)
	buf = append(buf, padding[:]...)
	b := buf[at:]
	copy(b[:nameLen], h.name)
	octal(b[100:108], int64(h.mode))
	octal(b[108:116], int64(h.uid))
	octal(b[116:124], int64(h.gid))
	octal(b[124:136], h.size)
	octal(b[136:148], h.mtime)
	b[156] = h.kind
	copy(b[157:157+nameLen], h.target)
	copy(b[257:], "ustar\x0000")
	octal(b[329:337], 0)
	octal(b[337:345], 0)
	copy(b[148:], "        ")
	sum := int64(0)
	for _, c := range b {
		sum += int64(c)
	}
	octal(b[148:155], sum)
	return buf
}

// octal fills b with digits and a NUL.
func octal(b []byte, v int64) {
	digits := len(b) - 1
	if v < 0 || v >= 1<<(3*digits) {
		v = 0
	}
	for i := digits - 1; i >= 0; i-- {
		b[i] = '0' + byte(v&7)
		v >>= 3
	}
}

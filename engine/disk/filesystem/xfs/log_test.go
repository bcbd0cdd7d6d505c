package xfs

import (
	"errors"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// walkLog calls visit for each operation between the tail and the head of an
// image's log, with its place in the image.
func walkLog(t *testing.T, f *forged, visit func(r *record, at int64, header, b []byte)) {
	t.Helper()
	j := f.fs.journal()
	last, end, ok, err := j.last()
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	for at := last.tail & 0xffffffff; at != end; {
		r, ok, err := j.record(at)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		content, _, err := j.content(&r)
		if err != nil {
			t.Fatal(err)
		}
		base := j.offset + int64((r.at+r.headers)*sector)
		for off := 0; off+opHeader <= len(content); {
			size := int(be.Uint32(content[off+4:]))
			visit(&r, base+int64(off), content[off:off+opHeader], content[off+opHeader:off+opHeader+size])
			off += opHeader + size
		}
		at = (at + r.sectors()) % j.size
	}
}

// item returns the place of the first item of a kind whose first bytes are not
// at the start of a sector, where the log keeps something else.
func (f *forged) item(kind uint16, size int) (at int64) {
	f.t.Helper()
	walkLog(f.t, f, func(_ *record, off int64, _, b []byte) {
		if off += opHeader; at == 0 && len(b) >= size && len(b) < 128 && le.Uint16(b) == kind && off%sector > 4 && off%sector < sector-64 {
			at = off
		}
	})
	if at == 0 {
		f.t.Fatalf("no item %#x", kind)
	}
	return at
}

// header returns the place of the header of the last record.
func (f *forged) header() int64 {
	j := f.fs.journal()
	r, _, _, err := j.last()
	if err != nil {
		f.t.Fatal(err)
	}
	return j.offset + int64(r.at*sector)
}

// TestLogLies has logs that contradict the format.
func TestLogLies(t *testing.T) {
	for _, c := range []struct {
		name  string
		forge func(f *forged)
		class error
		want  string
	}{
		{"length of a record", func(f *forged) { f.set32(f.header()+12, 1<<31) }, errdefs.ErrCorrupt, "2147483648 bytes"},
		{"tail beyond the log", func(f *forged) { f.set32(f.header()+28, 1<<31) }, errdefs.ErrCorrupt, "begins at sector"},
		{"tail within a record", func(f *forged) { f.set32(f.header()+28, 3) }, errdefs.ErrCorrupt, "without a record at sector 3"},
		{"byte order", func(f *forged) { f.set32(f.header()+300, 2) }, errdefs.ErrUnsupported, "unmount"},
		{"features", func(f *forged) { f.set32(220, 6) }, errdefs.ErrUnsupported, "features 0x6"},
		{"length of an operation", func(f *forged) { f.set32(f.item(itemInode, inodeFormat)-opHeader+4, 1<<31) }, errdefs.ErrCorrupt, "cut off"},
		{"flags of an operation", func(f *forged) { f.set(f.item(itemInode, inodeFormat)-opHeader+9, 0x50) }, errdefs.ErrCorrupt, "flags 0x40"},
		{"regions of an item", func(f *forged) { f.set(f.item(itemInode, inodeFormat)+2, 0, 0) }, errdefs.ErrCorrupt, "item of"},
		{"more regions than there are", func(f *forged) { f.set(f.item(itemInode, inodeFormat)+2, 0xff, 3) }, errdefs.ErrCorrupt, "of 1023 regions"},
		{"place of an inode", func(f *forged) { f.set(f.item(itemInode, inodeFormat)+44, 0xff, 0xff, 0xff, 0x7f) }, errdefs.ErrCorrupt, "item of inode"},
		{"place of a buffer", func(f *forged) { f.set(f.item(itemBuffer, 24)+12, 0xff, 0xff, 0xff, 0x7f) }, errdefs.ErrCorrupt, "buffer of"},
		{"size of a buffer", func(f *forged) { f.set(f.item(itemBuffer, 24)+6, 0, 0) }, errdefs.ErrCorrupt, "buffer of 0 sectors"},
		{"bitmap of a buffer", func(f *forged) { f.set(f.item(itemBuffer, 24)+16, 0xff, 0xff, 0xff) }, errdefs.ErrCorrupt, "buffer item of"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newForged(t, "v5-dirty")
			c.forge(f)
			if _, err := open(f, f.Size(), false); !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestTornLog has a last record that did not reach the disk as a whole.
func TestTornLog(t *testing.T) {
	for name, forge := range map[string]func(f *forged, j *journal, r record){
		"checksum": func(f *forged, j *journal, r record) { f.set(j.offset+int64((r.at+r.headers)*sector)+9, 0xa5) },
		"gap":      func(f *forged, j *journal, r record) { f.set32(j.offset+int64((r.at+r.headers)*sector), 0) },
		"header":   func(f *forged, j *journal, r record) { f.set64(j.offset+int64(r.at*sector), 0) },
	} {
		f := newForged(t, "v5-dirty")
		before, err := Open(f, f.Size())
		if err != nil {
			t.Fatal(err)
		}
		j := before.(*FS).journal()
		last, _, _, err := j.last()
		if err != nil {
			t.Fatal(err)
		}
		forge(f, j, last)
		after, err := Open(f, f.Size())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		now, _, _, err := after.(*FS).journal().last()
		if err != nil || now.at >= last.at {
			t.Errorf("%s: the last record is at %d, was at %d, %v", name, now.at, last.at, err)
		}
		if a, b := len(after.(*FS).dev.replayed), len(before.(*FS).dev.replayed); a >= b {
			t.Errorf("%s: %d sectors replayed, %d before", name, a, b)
		}
	}
}

// TestLogTooLarge is about a log with more changes than memory is for.
func TestLogTooLarge(t *testing.T) {
	p := &replay{}
	if err := p.keep(nil, replayBudget); err != nil {
		t.Error(err)
	}
	if err := p.keep(nil, 1); !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), "unmount the file system, or freeze it") {
		t.Error(err)
	}
}

// TestIntents: changes that were announced and not done make the view one that
// recovery would have gone on with.
func TestIntents(t *testing.T) {
	item := func(kind uint16, id uint64) *logItem {
		b := le.AppendUint16(nil, kind)
		b = le.AppendUint64(append(b, 1, 0, 0, 0, 0, 0), id)
		return &logItem{total: 1, regions: [][]byte{b}}
	}
	p := &replay{first: true, intents: map[uint64]bool{}}
	for _, i := range []*logItem{
		item(itemMapIntent, 1), item(itemAttrIntent, 2), item(itemExchangeIntent, 3), item(0x1236, 4), // EFI
		item(itemMapDone, 1), item(itemExchangeDone, 3),
	} {
		if err := p.intent(i); err != nil {
			t.Fatal(err)
		}
	}
	if len(p.intents) != 1 || !p.intents[2] {
		t.Errorf("%v", p.intents)
	}
	if err := p.intent(&logItem{regions: [][]byte{{0x44, 0x12, 1, 0}}}); !errors.Is(err, errdefs.ErrCorrupt) {
		t.Error(err)
	}
}

package fuse

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// fake is a directory with one file.
type fake struct{ text []byte }

func (f fake) Lookup(dir uint64, name string) (Entry, error) {
	if dir != 1 || name != "file" {
		return Entry{}, unix.ENOENT
	}
	return Entry{Node: 2, Name: name}, nil
}

func (f fake) Stat(node uint64) (Entry, error) {
	if node != 1 && node != 2 {
		return Entry{}, unix.ENOENT
	}
	return Entry{Node: node, Dir: node == 1}, nil
}

func (f fake) List(uint64) ([]Entry, error) { return []Entry{{Node: 2, Name: "file"}}, nil }

func (f fake) Read(int, uint64) ([]byte, error) { return f.text, nil }

// message is a request as the kernel writes it.
func message(op uint32, node uint64, data []byte) []byte {
	le := binary.NativeEndian
	b := le.AppendUint32(nil, uint32(inHeader+len(data)))
	b = le.AppendUint32(b, op)
	b = le.AppendUint64(b, 77)
	b = le.AppendUint64(b, node)
	b = append(b, make([]byte, 8)...)
	b = le.AppendUint32(b, 4711)
	b = append(b, make([]byte, 4)...)
	return append(b, data...)
}

func readAt(handle, offset uint64, size uint32) []byte {
	le := binary.NativeEndian
	b := le.AppendUint64(le.AppendUint64(nil, handle), offset)
	return append(le.AppendUint32(b, size), make([]byte, 20)...)
}

// FuzzRequest: whatever is read from the device, or was left in memory by another
// program, is answered in the form that the kernel demands, or not at all.
func FuzzRequest(f *testing.F) {
	for op := range uint32(54) {
		f.Add(message(op, 1, append([]byte("file\x00"), make([]byte, 60)...)))
	}
	f.Add(message(opRead, 2, readAt(5, 3, 4)))
	f.Add(message(opReaddir, 1, readAt(0, 1<<63, 1<<31)))
	f.Add([]byte{1, 2, 3})
	c, err := New(Options{Memory: make([]byte, MemorySize), Tree: fake{[]byte("some text")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRequest(b)
		if err != nil {
			return
		}
		out, wanted := c.answer(nil, r)
		if !wanted {
			return
		}
		le := binary.NativeEndian
		number := int32(le.Uint32(out[4:]))
		if int(le.Uint32(out)) != len(out) || le.Uint64(out[8:]) != r.unique || number > 0 || number < 0 && len(out) != outHeader || len(out) > maxAnswer+outHeader {
			t.Errorf("request %x is answered %x", b, out)
		}
	})
}

// The layout is that of the kernel's structures.
func TestSizes(t *testing.T) {
	for name, c := range map[string]struct{ got, want int }{
		"entry":                              {len(appendEntry(nil, Entry{})), 128},
		"attr":                               {len(appendAttrOut(nil, Entry{}, 0)), 104},
		"open":                               {len(appendOpen(nil, 1, 0)), 16},
		"init":                               {len(appendInit(nil)), 64},
		"entries, of which one does not fit": {len(appendDir(nil, []Entry{{Name: "a"}, {Name: "123456789"}, {Name: "b"}}, 0, 72)), 32 + 40},
		"entries from the third on":          {len(appendDir(nil, []Entry{{Name: "a"}, {Name: "c"}, {Name: "b"}}, 2, 72)), 32},
	} {
		if c.got != c.want {
			t.Errorf("%s has %d bytes, want %d", name, c.got, c.want)
		}
	}
}

// What handles were told is bounded, in bytes and in number.
func TestTexts(t *testing.T) {
	var x texts
	for i := range uint64(3 * maxHandles) {
		x.put(i, make([]byte, 10))
	}
	if len(x.m) > maxHandles || x.bytes != 10*len(x.m) {
		t.Errorf("%d handles with %d bytes", len(x.m), x.bytes)
	}
	for i := range uint64(8) {
		x.put(i, make([]byte, maxTexts/4))
	}
	if x.bytes > maxTexts {
		t.Errorf("%d bytes", x.bytes)
	}
	if _, ok := x.get(0); ok {
		t.Error("the oldest is kept")
	}
	for i := range uint64(3 * maxHandles) {
		x.drop(i)
	}
	if x.bytes != 0 || len(x.m) != 0 {
		t.Errorf("%d bytes of %d handles are left", x.bytes, len(x.m))
	}
}

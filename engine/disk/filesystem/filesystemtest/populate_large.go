package filesystemtest

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// written is a part of a sparse file.
type written struct{ offset, length int64 }

// sparse makes a file with data at some places only.
func (p *populator) sparse(path string, size int64, parts ...written) {
	p.t.Helper()
	f, err := os.Create(path)
	p.must(err)
	p.may(f.Truncate(size))
	for _, w := range parts {
		_, err := f.WriteAt(p.bytes(int(w.length)), w.offset)
		p.may(err)
	}
	p.must(f.Close())
}

// holes makes sparse files, and such with room that nothing was written to.
func (p *populator) holes(dir string) {
	at := func(name string) string { return filepath.Join(dir, name) }
	p.sparse(at("all"), 1<<30)
	p.sparse(at("first"), 200000, written{131072, 5000})
	p.sparse(at("last"), 500000, written{0, 5000})
	p.sparse(at("over 4 GiB"), 5<<30+12345, written{0, 10}, written{4<<30 - 3000, 9000}, written{5 << 30, 12345})
	var pieces []written
	for i := range int64(200) {
		pieces = append(pieces, written{i * 131072, 1 + i*i})
	}
	p.sparse(at("pieces"), 200*131072+77, pieces...)
	for name, mode := range map[string]uint32{"reserved": 0, "reserved behind": unix.FALLOC_FL_KEEP_SIZE} {
		f, err := os.Create(at(name))
		p.must(err)
		p.may(unix.Fallocate(int(f.Fd()), mode, 0, 1<<20))
		_, err = f.WriteAt(p.bytes(5000), 65536)
		p.must(err, f.Close())
	}
	f, err := os.Create(at("punched"))
	p.must(err)
	_, err = f.Write(p.bytes(1 << 20))
	p.must(err, f.Sync())
	p.may(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 200000, 500000))
	p.must(f.Close())
}

// many makes a directory of 20,000 names, and one that was.
func (p *populator) many(dir string) {
	for _, sub := range []string{"names", "removed"} {
		p.must(os.Mkdir(filepath.Join(dir, sub), 0o755))
	}
	p.file(filepath.Join(dir, "removed", "first"), 1)
	for i := range 20000 {
		name := filepath.Join(dir, "names", fmt.Sprintf("one of very many names %d", i))
		f, err := os.Create(name)
		p.must(err, f.Close())
		if i%20 == 0 {
			p.must(os.Link(name, filepath.Join(dir, "removed", fmt.Sprint("a name that goes away again ", i))))
		}
	}
	for i := 0; i < 20000; i += 20 {
		p.must(os.Remove(filepath.Join(dir, "removed", fmt.Sprint("a name that goes away again ", i))))
	}
}

// large makes a file without holes that needs more than one of everything.
func (p *populator) large(dir string) {
	p.file(filepath.Join(dir, "24 MiB"), 24<<20)
	p.sparse(filepath.Join(dir, "far"), 15<<30, written{14 << 30, 70000})
}

// pieces makes two files that lie between each other on the disk.
func (p *populator) pieces(dir string) {
	var files []*os.File
	for _, name := range []string{"a", "b"} {
		f, err := os.Create(filepath.Join(dir, name))
		p.must(err)
		files = append(files, f)
	}
	const n = 500
	for i := range n {
		for _, f := range files {
			// from the end, and written at once: no two pieces are neighbours
			_, err := f.WriteAt(p.bytes(4096), int64(n-1-i)*4096)
			p.must(err)
			p.may(unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER))
		}
	}
	for _, f := range files {
		p.must(f.Close())
	}
}

// linked makes a file with 1,000 names.
func (p *populator) linked(dir string) {
	p.file(filepath.Join(dir, "0"), 7)
	for i := range 1000 {
		p.may(os.Link(filepath.Join(dir, "0"), filepath.Join(dir, fmt.Sprint("another name of it ", i))))
	}
}

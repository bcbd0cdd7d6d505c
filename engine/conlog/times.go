package conlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A file of times begins with timesMagic and the inode number of its segment.
// Entries follow, in the order of both numbers: an offset in the segment and
// the time (nanoseconds since 1970) before which nothing at or behind that
// offset was written. All numbers are 64 bits, little endian. An incomplete
// entry at the end is ignored.
const (
	timesMagic = "gantryT1"
	entrySize  = 16

	// stampInterval is the least time between two entries.
	stampInterval = 50 * time.Millisecond
	// minStamps is how many entries even the smallest log may have.
	minStamps = 16
)

func timesOf(segment string) string { return segment + ".times" }

// maxStamps lets the times take a quarter of what the segment takes.
func maxStamps(half int64) int64 { return max(half/(4*entrySize), minStamps) }

type stamp struct {
	offset int64
	time   time.Time
}

// stamps writes the times of one segment. What fails is left out: times are a
// help, and the next entry may succeed.
type stamps struct {
	path    string
	segment uint64
	limit   int64
	last    time.Time
}

// add notes that what is at offset was written at now.
func (s *stamps) add(offset int64, now time.Time) {
	if now.Sub(s.last) < stampInterval {
		return
	}
	s.last = now
	if offset == 0 {
		return // readers begin there without being told
	}
	f, err := openSegment(s.path, os.O_RDWR|os.O_CREATE|os.O_APPEND)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	size, err := s.begin(f)
	if err != nil {
		return
	}
	if size/entrySize > s.limit {
		s.thin(f)
	}
	_, _ = f.Write(encodeStamp(offset, now))
}

// begin makes sure that f is the file of this segment, and returns its size.
func (s *stamps) begin(f *os.File) (int64, error) {
	head := binary.LittleEndian.AppendUint64([]byte(timesMagic), s.segment)
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, errors.New("not a regular file")
	}
	size := info.Size() - info.Size()%entrySize
	got := make([]byte, len(head))
	if _, err := f.ReadAt(got, 0); err == nil && bytes.Equal(got, head) {
		if size == info.Size() {
			return size, nil
		}
		return size, f.Truncate(size)
	}
	if err := f.Truncate(0); err != nil {
		return 0, err
	}
	_, err = f.Write(head)
	return int64(len(head)), err
}

// thin drops every second entry, in place: a reader meanwhile sees fewer
// entries, of the same meaning.
func (s *stamps) thin(f *os.File) {
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 2*entrySize*(s.limit+minStamps)))
	if err != nil {
		return
	}
	kept := append([]byte{}, data[:entrySize]...)
	for i := entrySize; i+entrySize <= len(data); i += 2 * entrySize {
		kept = append(kept, data[i:i+entrySize]...)
	}
	tmp, err := os.OpenFile(s.path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return
	}
	_, err = tmp.Write(kept)
	if err := errors.Join(err, tmp.Close()); err != nil || os.Rename(s.path+".new", s.path) != nil {
		_ = os.Remove(s.path + ".new")
	}
}

func encodeStamp(offset int64, t time.Time) []byte {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, entrySize), uint64(offset))
	return binary.LittleEndian.AppendUint64(b, uint64(t.UnixNano()))
}

// decodeStamps reads a file of times, which need not be whole or ours. Entries
// that cannot be are left out; nil when it is not that of the segment.
func decodeStamps(data []byte, segment uint64) []stamp {
	le := binary.LittleEndian
	if len(data) < entrySize || string(data[:8]) != timesMagic || le.Uint64(data[8:]) != segment {
		return nil
	}
	var out []stamp
	before := int64(0)
	for data = data[entrySize:]; len(data) >= entrySize; data = data[entrySize:] {
		offset := int64(le.Uint64(data))
		if offset < before {
			continue
		}
		before = offset
		out = append(out, stamp{offset: offset, time: time.Unix(0, int64(le.Uint64(data[8:])))})
	}
	return out
}

// coarse is by how much a file's time of change may be behind the clock.
const coarse = 20 * time.Millisecond

// offsetSince returns where in a segment the output from t on begins, or a
// little before; its end when all of it is older.
func offsetSince(path string, f *os.File, t time.Time) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if info.ModTime().Add(coarse).Before(t) {
		return info.Size(), nil
	}
	var list []stamp
	for _, name := range []string{timesOf(path), timesOf(older(path))} {
		if list = readStamps(name, inode(info)); list != nil {
			break
		}
	}
	start := int64(0)
	for _, s := range list {
		if s.time.After(t) {
			break
		}
		start = s.offset
	}
	return min(start, info.Size()), nil
}

// maxTimes bounds what is read of a file of times.
const maxTimes = 64 << 20

func readStamps(path string, segment uint64) []stamp {
	f, err := openIfThere(path)
	if err != nil || f == nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxTimes))
	if err != nil {
		return nil
	}
	return decodeStamps(data, segment)
}

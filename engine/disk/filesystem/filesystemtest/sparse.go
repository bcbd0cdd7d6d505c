package filesystemtest

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
)

const pageSize = 4096

// Image is the content of an image in memory, as the pages that are not all
// zeros. It is an io.ReaderAt.
type Image struct {
	size  int64
	pages map[int64][]byte
	order []int64 // the keys of pages, ascending
	// meta holds those that look like metadata: some zeros, as no random
	// content of files has.
	meta []int64
}

// Size in bytes.
func (s *Image) Size() int64 { return s.size }

// ReadAt implements io.ReaderAt.
func (s *Image) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) && off < s.size {
		k := int(min(pageSize-off%pageSize, int64(len(p)-n), s.size-off))
		if page, ok := s.pages[off/pageSize]; ok {
			copy(p[n:n+k], page[off%pageSize:])
		} else {
			clear(p[n : n+k])
		}
		n, off = n+k, off+int64(k)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// patched is a copy with other bytes at some places; what was not changed is
// shared.
func (s *Image) patched() *Image {
	c := &Image{size: s.size, order: s.order, meta: s.meta, pages: make(map[int64][]byte, len(s.pages))}
	for k, v := range s.pages {
		c.pages[k] = v
	}
	return c
}

// set changes bytes of a page that is not all zeros.
func (s *Image) set(page int64, at int, data []byte) {
	p := slices.Clone(s.pages[page])
	copy(p[at:], data)
	s.pages[page] = p
}

// load reads an image file.
func load(t testing.TB, path string) *Image {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	s := &Image{size: st.Size(), pages: map[int64][]byte{}}
	for at := int64(0); ; {
		at, err = f.Seek(at, 3) // SEEK_DATA
		if err != nil {
			break
		}
		at -= at % pageSize
		end, err := f.Seek(at, 4) // SEEK_HOLE
		if err != nil {
			t.Fatal(err)
		}
		for ; at < end; at += pageSize {
			page := make([]byte, pageSize)
			if _, err := f.ReadAt(page, at); err != nil && err != io.EOF {
				t.Fatal(err)
			}
			s.add(at/pageSize, page)
		}
	}
	return s
}

func (s *Image) add(n int64, page []byte) {
	zeros := bytes.Count(page, []byte{0})
	if zeros == len(page) {
		return
	}
	s.pages[n] = page
	s.order = append(s.order, n)
	if zeros >= len(page)/16 {
		s.meta = append(s.meta, n)
	}
}

// Pack writes the image file at path as a small file for ReadPacked: the pages
// that are not all zeros, compressed.
func Pack(t testing.TB, path, packed string) {
	t.Helper()
	s := load(t, path)
	var buf bytes.Buffer
	w, _ := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	_ = binary.Write(w, binary.LittleEndian, s.size)
	for _, n := range s.order {
		_ = binary.Write(w, binary.LittleEndian, n)
		_, _ = w.Write(s.pages[n])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(packed, buf.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// ReadPacked reads what Pack wrote.
func ReadPacked(packed string) (*Image, error) {
	data, err := os.ReadFile(packed)
	if err != nil {
		return nil, err
	}
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", packed, err)
	}
	s := &Image{pages: map[int64][]byte{}}
	if err := binary.Read(r, binary.LittleEndian, &s.size); err != nil {
		return nil, fmt.Errorf("%s: %w", packed, err)
	}
	for {
		var n int64
		if err := binary.Read(r, binary.LittleEndian, &n); err == io.EOF {
			return s, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", packed, err)
		}
		page := make([]byte, pageSize)
		if _, err := io.ReadFull(r, page); err != nil {
			return nil, fmt.Errorf("%s: %w", packed, err)
		}
		s.add(n, page)
	}
}

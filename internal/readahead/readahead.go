// Package readahead lets the making of a stream run beside its use:
// decompressing beside hashing, both beside writing files.
//
// It imports the standard library only; any package may import it.
package readahead

import (
	"io"
	"sync"
)

const (
	buffers    = 4
	bufferSize = 256 << 10
)

// Reader reads ahead of its consumer in a goroutine of its own, at most 1 MiB.
// Read and Close are for one goroutine at a time.
type Reader struct {
	full  chan chunk
	empty chan []byte
	done  chan struct{} // closed by Close
	ended chan struct{} // closed when the goroutine is gone
	close sync.Once

	cur  []byte
	last chunk
}

type chunk struct {
	data []byte
	buf  []byte
	err  error
}

// New starts to read r. The caller must call Close.
func New(r io.Reader) *Reader {
	p := &Reader{
		full:  make(chan chunk, buffers),
		empty: make(chan []byte, buffers),
		done:  make(chan struct{}),
		ended: make(chan struct{}),
	}
	for range buffers {
		p.empty <- nil
	}
	go p.run(r)
	return p
}

func (p *Reader) run(r io.Reader) {
	defer close(p.ended)
	for {
		var buf []byte
		select {
		case buf = <-p.empty:
		case <-p.done:
			return
		}
		if buf == nil {
			buf = make([]byte, bufferSize)
		}
		n, err := readSome(r, buf)
		p.full <- chunk{data: buf[:n], buf: buf, err: err} // never blocks: as many places as buffers
		if err != nil {
			return
		}
	}
}

// readSome fills buf as far as r gives data.
func readSome(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var k int
		k, err = r.Read(buf[n:])
		n += k
	}
	return n, err
}

// Read implements io.Reader. It gives all that was read before an error of the
// source, and then this error, each time. It must not be called after Close.
func (p *Reader) Read(b []byte) (int, error) {
	for len(p.cur) == 0 {
		if p.last.err != nil {
			return 0, p.last.err
		}
		if p.last.buf != nil {
			p.empty <- p.last.buf
		}
		p.last = <-p.full
		p.cur = p.last.data
	}
	n := copy(b, p.cur)
	p.cur = p.cur[n:]
	return n, nil
}

// Close ends the goroutine and waits for it: afterwards the source is not used
// any more, and it is the caller's to close. A read of the source that is under
// way is waited for. Further calls do nothing; the error is nil.
func (p *Reader) Close() error {
	p.close.Do(func() { close(p.done) })
	<-p.ended
	return nil
}

package layer

import (
	"hash"
	"io"
)

// pump reads ahead of its consumer in a goroutine of its own, so that
// decompressing and hashing run beside writing files.
type pump struct {
	full  chan chunk
	empty chan []byte
	done  chan struct{} // closed by stop
	ended chan struct{} // closed when the goroutine is gone

	cur  []byte
	last chunk
}

type chunk struct {
	data []byte
	buf  []byte
	err  error
}

const (
	pumpBuffers = 4
	pumpSize    = 256 << 10
)

// newPump starts reading r; h, if not nil, sees every byte. The caller must
// call stop, after which neither r nor h is used any more.
func newPump(r io.Reader, h hash.Hash) *pump {
	p := &pump{
		full:  make(chan chunk, pumpBuffers),
		empty: make(chan []byte, pumpBuffers),
		done:  make(chan struct{}),
		ended: make(chan struct{}),
	}
	for range pumpBuffers {
		p.empty <- nil
	}
	go p.run(r, h)
	return p
}

func (p *pump) run(r io.Reader, h hash.Hash) {
	defer close(p.ended)
	for {
		var buf []byte
		select {
		case buf = <-p.empty:
		case <-p.done:
			return
		}
		if buf == nil {
			buf = make([]byte, pumpSize)
		}
		n, err := readSome(r, buf)
		if h != nil {
			h.Write(buf[:n])
		}
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

// Read implements io.Reader.
func (p *pump) Read(b []byte) (int, error) {
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

// stop ends the goroutine and waits for it.
func (p *pump) stop() {
	close(p.done)
	<-p.ended
}

package btrfs

// lzo1x expands one block of LZO1X into out and returns how many bytes it
// filled. A block that is cut off, refers to what is before its beginning, or
// has more than out can hold is an error.
//
// Source of the format: Documentation/staging/lzo.rst of the kernel, bitstream
// version 0.
func lzo1x(out, in []byte) (int, error) {
	d := lzoReader{in: in, out: out}
	// The first byte may be a run of literals in a form of its own.
	if len(in) > 0 && in[0] > 17 {
		d.byte()
		d.literals(int(in[0]) - 17)
		d.state = min(int(in[0])-17, 4)
	}
	for !d.bad && !d.done {
		d.instruction(int(d.byte()))
	}
	if d.bad {
		return 0, errLZO
	}
	return d.n, nil
}

// lzoReader is the state of lzo1x.
type lzoReader struct {
	in, out []byte
	n       int // bytes of out that are filled
	// state is the number of literals that the last instruction copied: 0 to 3
	// as a part of a match, 4 for a run of literals.
	state     int
	bad, done bool
}

// byte returns the next one; 0 at the end, which is then bad.
func (d *lzoReader) byte() byte {
	if len(d.in) == 0 {
		d.bad = true
		return 0
	}
	b := d.in[0]
	d.in = d.in[1:]
	return b
}

// length returns the length of a run: n, or if this is 0 base and what the
// next bytes add.
func (d *lzoReader) length(n, base int) int {
	if n > 0 {
		return n
	}
	for n = base; !d.bad; n += 255 {
		if b := d.byte(); b != 0 {
			return n + int(b)
		}
	}
	return 0
}

func (d *lzoReader) instruction(b int) {
	var distance, length, tail int
	switch {
	case b >= 64:
		distance, length, tail = b>>2&7+int(d.byte())<<3+1, b>>5+1, b&3
	case b >= 32:
		length = d.length(b&31, 31) + 2
		low := d.pair()
		distance, tail = low>>2+1, low&3
	case b >= 16:
		length = d.length(b&7, 7) + 2
		low := d.pair()
		distance, tail = b&8<<11+low>>2, low&3
		if distance == 0 {
			d.done = !d.bad
			return
		}
		distance += 1 << 14
	case d.state == 0:
		d.literals(d.length(b, 15) + 3)
		d.state = 4
		return
	case d.state == 4:
		distance, length, tail = b>>2+int(d.byte())<<2+1+1<<11, 3, b&3
	default:
		distance, length, tail = b>>2+int(d.byte())<<2+1, 2, b&3
	}
	d.match(distance, length)
	d.literals(tail)
	d.state = tail
}

// pair returns a number of two bytes.
func (d *lzoReader) pair() int {
	low := int(d.byte())
	return low | int(d.byte())<<8
}

// literals copies the next n bytes.
func (d *lzoReader) literals(n int) {
	if d.bad || n > len(d.in) || n > len(d.out)-d.n {
		d.bad = true
		return
	}
	d.n += copy(d.out[d.n:], d.in[:n])
	d.in = d.in[n:]
}

// match copies n bytes that begin the distance back; they may overlap with
// what they make.
func (d *lzoReader) match(distance, n int) {
	if d.bad || distance > d.n || n > len(d.out)-d.n {
		d.bad = true
		return
	}
	if distance >= n {
		copy(d.out[d.n:d.n+n], d.out[d.n-distance:])
	} else {
		for i := range n {
			d.out[d.n+i] = d.out[d.n+i-distance]
		}
	}
	d.n += n
}

package rfb

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"image"
	"slices"
)

// Encodings (RFC 6143, section 7.7, and rfbproto.rst).
const (
	encodingRaw          = 0
	encodingTight        = 7
	encodingZRLE         = 16
	encodingDesktopSize  = -223
	encodingExtendedSize = -308
)

// encoder turns pixels into the client's encoding. Its compressed streams go on
// from one rectangle to the next.
type encoder struct {
	format   pixelFormat
	encoding int32
	streams  [3]stream // of Tight: copied pixels, two colours, palettes
	zrle     stream
	pixels   []uint32 // scratch
}

// stream is a compressed stream that is flushed after each rectangle.
type stream struct {
	buf bytes.Buffer
	z   *zlib.Writer
}

func (s *stream) compress(data []byte) []byte {
	if s.z == nil {
		s.z = zlib.NewWriter(&s.buf)
	}
	s.buf.Reset()
	_, _ = s.z.Write(data) // into memory
	_ = s.z.Flush()
	return s.buf.Bytes()
}

// maxWidth and maxPixels are the bounds of a rectangle in Tight, kept for all.
const (
	maxWidth  = 2048
	maxPixels = 1 << 18
)

// pieces cuts rectangles that are too large.
func pieces(in []image.Rectangle) []image.Rectangle {
	var out []image.Rectangle
	for _, r := range in {
		for x := r.Min.X; x < r.Max.X; x += maxWidth {
			right := min(x+maxWidth, r.Max.X)
			rows := maxPixels / (right - x)
			for y := r.Min.Y; y < r.Max.Y; y += rows {
				out = append(out, image.Rect(x, y, right, min(y+rows, r.Max.Y)))
			}
		}
	}
	return out
}

// rectangle appends a rectangle of a screen, header and all.
func (e *encoder) rectangle(out []byte, s Screen, r image.Rectangle) []byte {
	e.pixels = slices.Grow(e.pixels[:0], r.Dx()*r.Dy())[:r.Dx()*r.Dy()]
	s.Draw(r, e.pixels)
	out = header(out, r, e.encoding)
	switch e.encoding {
	case encodingTight:
		return e.tight(out, r.Dx())
	case encodingZRLE:
		return e.zrleTiles(out, r.Dx(), r.Dy())
	}
	return e.format.append(out, e.pixels)
}

func header(out []byte, r image.Rectangle, encoding int32) []byte {
	for _, v := range []int{r.Min.X, r.Min.Y, r.Dx(), r.Dy()} {
		out = binary.BigEndian.AppendUint16(out, uint16(v))
	}
	return binary.BigEndian.AppendUint32(out, uint32(encoding))
}

// pixel converts from 0xRRGGBB.
func (f pixelFormat) pixel(rgb uint32) uint32 {
	scale := func(v uint32, top uint16) uint32 { return (v*uint32(top) + 127) / 255 }
	return scale(rgb>>16&0xff, f.redMax)<<f.red | scale(rgb>>8&0xff, f.greenMax)<<f.green | scale(rgb&0xff, f.blueMax)<<f.blue
}

func (f pixelFormat) append(out []byte, pixels []uint32) []byte {
	for _, p := range pixels {
		v := f.pixel(p)
		switch {
		case f.bytes == 1:
			out = append(out, byte(v))
		case f.bytes == 2 && f.big:
			out = binary.BigEndian.AppendUint16(out, uint16(v))
		case f.bytes == 2:
			out = binary.LittleEndian.AppendUint16(out, uint16(v))
		case f.big:
			out = binary.BigEndian.AppendUint32(out, v)
		default:
			out = binary.LittleEndian.AppendUint32(out, v)
		}
	}
	return out
}

// eight reports whether each colour has 8 bits of a 32 bit pixel.
func (f pixelFormat) eight() bool {
	return f.bytes == 4 && f.depth == 24 && f.redMax == 255 && f.greenMax == 255 && f.blueMax == 255
}

// tpixels are pixels as Tight has them: red, green, blue where eight.
func (f pixelFormat) tpixels(out []byte, pixels []uint32) []byte {
	if !f.eight() {
		return f.append(out, pixels)
	}
	for _, p := range pixels {
		out = append(out, byte(p>>16), byte(p>>8), byte(p))
	}
	return out
}

// cpixels are pixels as ZRLE has them: without the byte that is not used.
func (f pixelFormat) cpixels(out []byte, pixels []uint32) []byte {
	top := max(f.red, f.green, f.blue)
	low := min(f.red, f.green, f.blue)
	if !f.eight() || top > 16 && low < 8 {
		return f.append(out, pixels)
	}
	skip := 3 // of the four bytes, little endian
	if top > 16 {
		skip = 0
	}
	for _, p := range pixels {
		var b [4]byte
		binary.LittleEndian.PutUint32(b[:], f.pixel(p))
		three := slices.Delete(b[:], skip, skip+1)[:3]
		if f.big {
			slices.Reverse(three)
		}
		out = append(out, three...)
	}
	return out
}

// colours are those of pixels, none if they are more than limit.
func colours(pixels []uint32, limit int) (list []uint32, index map[uint32]byte) {
	index = map[uint32]byte{}
	last := ^uint32(0)
	for _, p := range pixels {
		if p == last {
			continue
		}
		last = p
		if _, ok := index[p]; ok {
			continue
		}
		if len(list) == limit {
			return nil, nil
		}
		index[p] = byte(len(list))
		list = append(list, p)
	}
	return list, index
}

// tight appends the rectangle in e.pixels.
func (e *encoder) tight(out []byte, w int) []byte {
	list, index := colours(e.pixels, 256)
	switch {
	case len(list) == 1:
		return e.format.tpixels(append(out, 0x80), list)
	case len(list) == 2:
		out = e.format.tpixels(append(out, 0x40|1<<4, 1, 1), list)
		return e.compact(out, 1, packed(e.pixels, index, w, 1))
	case len(list) > 0:
		out = e.format.tpixels(append(out, 0x40|2<<4, 1, byte(len(list)-1)), list)
		return e.compact(out, 2, packed(e.pixels, index, w, 8))
	}
	return e.compact(append(out, 0), 0, e.format.tpixels(nil, e.pixels))
}

// compact appends data, compressed unless it is short, with its length in bytes
// of seven bits.
func (e *encoder) compact(out []byte, id int, data []byte) []byte {
	if len(data) < 12 {
		return append(out, data...)
	}
	data = e.streams[id].compress(data)
	n := len(data)
	switch {
	case n < 1<<7:
		out = append(out, byte(n))
	case n < 1<<14:
		out = append(out, byte(n)|0x80, byte(n>>7))
	default:
		out = append(out, byte(n)|0x80, byte(n>>7)|0x80, byte(n>>14))
	}
	return append(out, data...)
}

// packed are indexes of so many bits, rows filled up to bytes.
func packed(pixels []uint32, index map[uint32]byte, w, bits int) []byte {
	var out []byte
	for row := range slices.Chunk(pixels, w) {
		var b, n byte
		last, at := row[0], index[row[0]]
		for _, p := range row {
			if p != last {
				last, at = p, index[p]
			}
			b, n = b<<bits|at, n+byte(bits)
			if n == 8 {
				out, b, n = append(out, b), 0, 0
			}
		}
		if n > 0 {
			out = append(out, b<<(8-n))
		}
	}
	return out
}

// zrleTiles appends the rectangle in e.pixels, in tiles of 64 by 64.
func (e *encoder) zrleTiles(out []byte, w, h int) []byte {
	const side = 64
	var tiles []byte
	for y := 0; y < h; y += side {
		for x := 0; x < w; x += side {
			tw, th := min(side, w-x), min(side, h-y)
			tile := make([]uint32, 0, tw*th)
			for row := range th {
				tile = append(tile, e.pixels[(y+row)*w+x:][:tw]...)
			}
			list, index := colours(tile, 16)
			tiles = append(tiles, byte(len(list))) // 0: raw, 1: solid, else a palette
			switch n := len(list); n {
			case 0:
				tiles = e.format.cpixels(tiles, tile)
			case 1:
				tiles = e.format.cpixels(tiles, list)
			default:
				bits := 4
				if n == 2 {
					bits = 1
				} else if n <= 4 {
					bits = 2
				}
				tiles = e.format.cpixels(tiles, list)
				tiles = append(tiles, packed(tile, index, tw, bits)...)
			}
		}
	}
	data := e.zrle.compress(tiles)
	return append(binary.BigEndian.AppendUint32(out, uint32(len(data))), data...)
}

package terminal

import (
	"unicode"

	"golang.org/x/text/width"
)

// color is 0 for the default one, indexed|0 to 255, or direct|0xRRGGBB.
type color uint32

const (
	indexed color = 1 << 24
	direct  color = 2 << 24
)

// attribute is a set of renditions.
type attribute uint8

const (
	bold attribute = 1 << iota
	faint
	underline
	inverse
	hidden
	strike
)

// pen is how characters are drawn.
type pen struct {
	fg, bg color
	attr   attribute
}

// cell is one place of the screen. A wide character has a cell with r 0 behind
// it; 0 and ' ' are drawn alike.
type cell struct {
	r rune
	pen
}

// columns is how many cells a character takes: 0, 1 or 2.
func columns(r rune) int {
	if r < 0x300 {
		return 1
	}
	if unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// standard are the sixteen first colours, those of the Linux console.
func standard() [16]uint32 {
	return [16]uint32{
		0x000000, 0xaa0000, 0x00aa00, 0xaa5500, 0x0000aa, 0xaa00aa, 0x00aaaa, 0xaaaaaa,
		0x555555, 0xff5555, 0x55ff55, 0xffff55, 0x5555ff, 0xff55ff, 0x55ffff, 0xffffff,
	}
}

// palette are 256 colours as xterm has them: 16, a cube of 6 by 6 by 6, and 24
// shades of grey.
func palette() [256]uint32 {
	var p [256]uint32
	for i, c := range standard() {
		p[i] = c
	}
	level := func(n int) uint32 {
		if n == 0 {
			return 0
		}
		return uint32(55 + 40*n)
	}
	for i := range 216 {
		p[16+i] = level(i/36)<<16 | level(i/6%6)<<8 | level(i%6)
	}
	for i := range 24 {
		g := uint32(8 + 10*i)
		p[232+i] = g<<16 | g<<8 | g
	}
	return p
}

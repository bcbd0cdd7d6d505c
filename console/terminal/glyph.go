package terminal

import (
	"image"
	"sync"

	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/font/gofont/gomono"
	"golang.org/x/image/font/inconsolata"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
)

// Size of a cell in pixels, and where the base line is.
const (
	CellWidth  = 8
	CellHeight = 16
	baseline   = 12
)

// glyph is how much of the foreground each pixel of a cell has, row by row. A
// wide one has two.
type glyph [CellHeight][2 * CellWidth]uint8

// maxGlyphs bounds the cache.
const maxGlyphs = 4096

// font draws characters: Inconsolata (OFL) by its bitmaps, what that has not by
// Go Mono (BSD), which has Greek, Cyrillic and symbols, lines and blocks as
// geometry so that they join, and a box for everything else. It is safe for
// concurrent use.
type fonts struct {
	mu       sync.Mutex
	cache    map[glyphKey]*glyph // guarded by mu
	fallback font.Face           // guarded by mu; nil if it cannot be read
}

type glyphKey struct {
	r    rune
	bold bool
}

// newFonts reads the fonts.
func newFonts() *fonts {
	f := &fonts{cache: map[glyphKey]*glyph{}}
	if parsed, err := opentype.Parse(gomono.TTF); err == nil {
		// 13.33 pixels of height are 8 of width
		f.fallback, _ = opentype.NewFace(parsed, &opentype.FaceOptions{Size: 13.33, DPI: 72, Hinting: font.HintingFull})
	}
	return f
}

func (f *fonts) glyph(r rune, thick bool) *glyph {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := glyphKey{r, thick}
	if g := f.cache[key]; g != nil {
		return g
	}
	if len(f.cache) >= maxGlyphs {
		clear(f.cache)
	}
	g := f.draw(r, thick)
	f.cache[key] = g
	return g
}

// draw needs mu.
func (f *fonts) draw(r rune, thick bool) *glyph {
	g := &glyph{}
	face := inconsolata.Regular8x16
	if thick {
		face = inconsolata.Bold8x16
	}
	switch {
	case r >= 0x2500 && r < 0x2580:
		g.lines(boxes[r-0x2500])
	case r >= 0x2580 && r < 0x25a0:
		g.block(r)
	case has(face, r):
		g.take(face, r)
	case f.covers(r):
		g.take(f.fallback, r)
	default:
		g.box(columns(r) * CellWidth)
	}
	return g
}

func has(face *basicfont.Face, r rune) bool {
	for _, x := range face.Ranges {
		if r >= x.Low && r < x.High {
			return true
		}
	}
	return false
}

func (f *fonts) covers(r rune) bool {
	if f.fallback == nil || columns(r) != 1 {
		return false
	}
	_, ok := f.fallback.GlyphAdvance(r)
	return ok
}

// take copies what a face draws.
func (g *glyph) take(face font.Face, r rune) {
	dr, mask, at, _, ok := face.Glyph(fixed.P(0, baseline), r)
	if !ok {
		return
	}
	in := dr.Intersect(image.Rect(0, 0, 2*CellWidth, CellHeight))
	for y := in.Min.Y; y < in.Max.Y; y++ {
		for x := in.Min.X; x < in.Max.X; x++ {
			_, _, _, a := mask.At(at.X+x-dr.Min.X, at.Y+y-dr.Min.Y).RGBA()
			g[y][x] = uint8(a >> 8)
		}
	}
}

func (g *glyph) fill(x0, y0, x1, y1 int, a uint8) {
	for y := max(y0, 0); y < min(y1, CellHeight); y++ {
		for x := max(x0, 0); x < min(x1, 2*CellWidth); x++ {
			g[y][x] = a
		}
	}
}

// box is for what no font has.
func (g *glyph) box(w int) {
	g.fill(1, 3, w-1, 14, 255)
	g.fill(2, 4, w-2, 13, 0)
}

// boxes are the lines of U+2500 to U+257F: two bits each for up, right, down and
// left, 0 for none, 1 for light, 2 for heavy, 3 for double. From the characters'
// names in the Unicode Character Database; dashes are drawn as lines, arcs as
// corners, diagonals not at all.
const boxes = "\x44\x88\x11\x22\x44\x88\x11\x22\x44\x88\x11\x22\x14\x18\x24\x28\x50\x90\x60\xa0\x05\x09\x06\x0a\x41\x81\x42\x82\x15\x19\x16\x25\x26\x1a\x29\x2a\x51\x91\x52\x61\x62\x92\xa1\xa2\x54\x94\x58\x98\x64\xa4\x68\xa8\x45\x85\x49\x89\x46\x86\x4a\x8a\x55\x95\x59\x99\x56\x65\x66\x96\x5a\xa5\x69\x9a\xa9\xa6\x6a\xaa\x44\x88\x11\x22\xcc\x33\x1c\x34\x3c\xd0\x70\xf0\x0d\x07\x0f\xc1\x43\xc3\x1d\x37\x3f\xd1\x73\xf3\xdc\x74\xfc\xcd\x47\xcf\xdd\x77\xff\x14\x50\x41\x05\x00\x00\x00\x40\x01\x04\x10\x80\x02\x08\x20\x48\x21\x84\x12"

// lines draws arms from the middle of the cell to its edges.
func (g *glyph) lines(arms byte) {
	const cx, cy = CellWidth / 2, CellHeight / 2
	for i := range 4 {
		weight := arms >> (2 * i) & 3
		if weight == 0 {
			continue
		}
		offsets := []int{0}
		switch weight {
		case 2:
			offsets = []int{-1, 0}
		case 3:
			offsets = []int{-2, 1}
		}
		for _, o := range offsets {
			reach := 1 // so that corners are filled
			if weight == 3 {
				reach = 2
			}
			switch i {
			case 0:
				g.fill(cx+o, 0, cx+o+1, cy+reach, 255)
			case 1:
				g.fill(cx+1-reach, cy+o, CellWidth, cy+o+1, 255)
			case 2:
				g.fill(cx+o, cy+1-reach, cx+o+1, CellHeight, 255)
			case 3:
				g.fill(0, cy+o, cx+reach, cy+o+1, 255)
			}
		}
	}
}

// block draws U+2580 to U+259F.
func (g *glyph) block(r rune) {
	const w, h = CellWidth, CellHeight
	n := int(r - 0x2580)
	switch {
	case n == 0:
		g.fill(0, 0, w, h/2, 255)
	case n <= 8: // lower eighths
		g.fill(0, h-h*n/8, w, h, 255)
	case n <= 15: // left eighths, from seven down
		g.fill(0, 0, w*(16-n)/8, h, 255)
	case n == 16:
		g.fill(w/2, 0, w, h, 255)
	case n <= 19:
		g.fill(0, 0, w, h, uint8(64*(n-16)))
	case n == 20:
		g.fill(0, 0, w, h/8, 255)
	case n == 21:
		g.fill(w-w/8, 0, w, h, 255)
	default: // quadrants: upper left 1, upper right 2, lower left 4, lower right 8
		q := [...]int{4, 8, 1, 1 | 4 | 8, 1 | 8, 1 | 2 | 4, 1 | 2 | 8, 2, 2 | 4, 2 | 4 | 8}[n-22]
		for i := range 4 {
			if q>>i&1 != 0 {
				x, y := i%2*w/2, i/2*h/2
				g.fill(x, y, x+w/2, y+h/2, 255)
			}
		}
	}
}

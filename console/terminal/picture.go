package terminal

import "image"

// Picture is a terminal as pixels, for several who look at it, each at a pace of
// its own. It is not safe for concurrent use, nor beside its terminal's.
type Picture struct {
	t       *Terminal
	fonts   *fonts
	colors  [256]uint32
	shown   []drawn
	stamps  []uint64 // when each cell of shown has changed
	version uint64
	cols    int
	rows    int
}

// drawn is what a cell looks like.
type drawn struct {
	r      rune
	second bool // the right half of a wide character
	thick  bool
	lines  attribute // underline and strike
	fg, bg uint32
}

// NewPicture returns the picture of a terminal.
func NewPicture(t *Terminal) *Picture {
	p := &Picture{t: t, fonts: newFonts(), colors: palette(), version: 1}
	p.Update()
	return p
}

// Size is that of the picture, in pixels.
func (p *Picture) Size() image.Point { return image.Pt(p.cols*CellWidth, p.rows*CellHeight) }

// Update looks at the terminal and returns the version of the picture, which
// grows when a pixel has changed. Versions begin above 0.
func (p *Picture) Update() uint64 {
	if cols, rows := p.t.Size(); cols != p.cols || rows != p.rows {
		p.cols, p.rows = cols, rows
		p.shown, p.stamps = make([]drawn, cols*rows), make([]uint64, cols*rows)
		p.version++
		for i := range p.stamps {
			p.stamps[i] = p.version
		}
	}
	next := p.version + 1
	for y, line := range p.t.lines {
		for x, c := range line {
			i := y*p.cols + x
			d := p.look(c)
			if c.r == 0 && x > 0 && columns(line[x-1].r) == 2 {
				d.r, d.second = line[x-1].r, true
			}
			if x == p.t.x && y == p.t.y && !p.t.hide {
				d.fg, d.bg = d.bg, d.fg
				if d.fg == d.bg {
					d.bg = ^d.fg & 0xffffff
				}
			}
			if d != p.shown[i] {
				p.shown[i], p.stamps[i], p.version = d, next, next
			}
		}
	}
	return p.version
}

func (p *Picture) look(c cell) drawn {
	d := drawn{r: c.r, thick: c.attr&bold != 0, lines: c.attr & (underline | strike)}
	if d.r == ' ' {
		d.r = 0
	}
	fg, bg := c.fg, c.bg
	if c.attr&bold != 0 && fg >= indexed && fg < indexed+8 {
		fg += 8
	}
	d.fg, d.bg = p.rgb(fg, 7), p.rgb(bg, 0)
	if c.attr&faint != 0 {
		d.fg = blend(d.fg, d.bg, 150)
	}
	if (c.attr&inverse != 0) != p.t.invert {
		d.fg, d.bg = d.bg, d.fg
	}
	if c.attr&hidden != 0 {
		d.fg = d.bg
	}
	if d.r == 0 && d.lines == 0 {
		d.thick = false
	}
	return d
}

func (p *Picture) rgb(c color, usual int) uint32 {
	switch c >> 24 {
	case 1:
		return p.colors[c&0xff]
	case 2:
		return uint32(c & 0xffffff)
	}
	return p.colors[usual]
}

// Changes are the parts of the picture that are newer than a version, as
// rectangles that do not overlap; for version 0 all of it. They are those of the
// last Update.
func (p *Picture) Changes(since uint64) []image.Rectangle {
	var out []image.Rectangle
	var above []image.Rectangle // rectangles that end at this row
	for y := range p.rows {
		var here []image.Rectangle
		row := p.stamps[y*p.cols:][:p.cols]
		for x := 0; x < p.cols; x++ {
			if row[x] <= since {
				continue
			}
			from := x
			for x++; x < p.cols && p.near(row, x, since); x++ {
			}
			here = append(here, cells(from, y, x, y+1))
		}
		for i, r := range here {
			for _, a := range above {
				if a.Min.X == r.Min.X && a.Max.X == r.Max.X {
					here[i].Min.Y = a.Min.Y
				}
			}
		}
		for _, a := range above {
			if !continued(a, here) {
				out = append(out, a)
			}
		}
		above = here
	}
	return append(out, above...)
}

// near bridges gaps of a few cells: a rectangle more costs more.
func (p *Picture) near(row []uint64, x int, since uint64) bool {
	for i := x; i < min(x+4, len(row)); i++ {
		if row[i] > since {
			return true
		}
	}
	return false
}

func continued(a image.Rectangle, rows []image.Rectangle) bool {
	for _, r := range rows {
		if r.Min == a.Min && r.Max.X == a.Max.X {
			return true
		}
	}
	return false
}

func cells(x0, y0, x1, y1 int) image.Rectangle {
	return image.Rect(x0*CellWidth, y0*CellHeight, x1*CellWidth, y1*CellHeight)
}

// Draw writes a part of the picture, 0xRRGGBB row by row, into dst, which has
// room for it. What lies outside of the picture is black.
func (p *Picture) Draw(part image.Rectangle, dst []uint32) {
	w := part.Dx()
	clear(dst[:w*part.Dy()])
	in := part.Intersect(image.Rectangle{Max: p.Size()})
	for cy := in.Min.Y / CellHeight; cy*CellHeight < in.Max.Y; cy++ {
		for cx := in.Min.X / CellWidth; cx*CellWidth < in.Max.X; cx++ {
			p.cell(p.shown[cy*p.cols+cx], cells(cx, cy, cx+1, cy+1), in, func(x, y int, rgb uint32) {
				dst[(y-part.Min.Y)*w+x-part.Min.X] = rgb
			})
		}
	}
}

// cell draws the part of a cell that lies in another rectangle.
func (p *Picture) cell(d drawn, at, in image.Rectangle, set func(x, y int, rgb uint32)) {
	var g *glyph
	if d.r != 0 {
		g = p.fonts.glyph(d.r, d.thick)
	}
	shift := 0
	if d.second {
		shift = CellWidth
	}
	r := at.Intersect(in)
	for y := r.Min.Y; y < r.Max.Y; y++ {
		line := y - at.Min.Y
		solid := d.lines&underline != 0 && line == baseline+2 || d.lines&strike != 0 && line == CellHeight/2
		for x := r.Min.X; x < r.Max.X; x++ {
			switch {
			case solid:
				set(x, y, d.fg)
			case g == nil:
				set(x, y, d.bg)
			default:
				set(x, y, blend(d.fg, d.bg, g[line][x-at.Min.X+shift]))
			}
		}
	}
}

// blend mixes: 255 is all foreground.
func blend(fg, bg uint32, a uint8) uint32 {
	switch a {
	case 0:
		return bg
	case 255:
		return fg
	}
	mix := func(shift int) uint32 {
		f, b := fg>>shift&0xff, bg>>shift&0xff
		return (f*uint32(a) + b*uint32(255-a)) / 255 << shift
	}
	return mix(16) | mix(8) | mix(0)
}

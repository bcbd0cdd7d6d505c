package terminal

import "slices"

// Bounds of a screen, in cells.
const (
	MinColumns = 20
	MaxColumns = 320
	MinRows    = 5
	MaxRows    = 120
)

// Terminal is the state of a terminal. It is not safe for concurrent use.
type Terminal struct {
	p          parser
	reply      func([]byte)
	cols, rows int
	lines      [][]cell
	other      [][]cell // the main screen while the alternate one is shown
	alternate  bool

	x, y     int
	wrapNext bool // the last column is written: the next character wraps
	pen      pen
	last     rune // the last character, for REP
	saved    [2]saved
	top, end int // of the scrolling region: rows top to end-1
	tabs     []bool

	graphics [2]bool // G0 and G1 are the line drawing set
	shifted  int     // which of both
	cp437    bool    // SGR 11

	insert, newLine, origin, wrap   bool
	cursorKeys, paste, hide, invert bool
}

// saved is what DECSC keeps.
type saved struct {
	x, y     int
	pen      pen
	graphics [2]bool
	shifted  int
	origin   bool
}

// New returns a terminal; sizes beyond the bounds are brought into them. reply
// gets what the terminal answers to questions of the program, which is at most
// some bytes for each byte written; nil drops it.
func New(cols, rows int, reply func([]byte)) *Terminal {
	t := &Terminal{reply: reply}
	t.cols, t.rows = bounded(cols, rows)
	t.reset()
	return t
}

func bounded(cols, rows int) (int, int) {
	return min(max(cols, MinColumns), MaxColumns), min(max(rows, MinRows), MaxRows)
}

// Size is that of the screen, in cells.
func (t *Terminal) Size() (cols, rows int) { return t.cols, t.rows }

// Write implements io.Writer: what the program says. It never fails.
func (t *Terminal) Write(b []byte) (int, error) {
	for _, c := range b {
		t.advance(c)
	}
	return len(b), nil
}

// Resize changes the size, within the bounds. The lines around the cursor stay;
// those that are cut are lost.
func (t *Terminal) Resize(cols, rows int) {
	cols, rows = bounded(cols, rows)
	if cols == t.cols && rows == t.rows {
		return
	}
	drop := max(0, t.y-rows+1)
	t.lines = resized(t.lines, cols, rows, drop)
	if t.other != nil {
		t.other = resized(t.other, cols, rows, 0)
	}
	t.cols, t.rows = cols, rows
	t.top, t.end, t.wrapNext = 0, rows, false
	t.x, t.y = min(t.x, cols-1), min(t.y-drop, rows-1)
	t.defaultTabs()
}

func resized(old [][]cell, cols, rows, drop int) [][]cell {
	out := blank(cols, rows)
	for y := range out {
		if y+drop < len(old) {
			copy(out[y], old[y+drop])
		}
	}
	return out
}

func blank(cols, rows int) [][]cell {
	out := make([][]cell, rows)
	for y := range out {
		out[y] = make([]cell, cols)
	}
	return out
}

// Text is the characters of the screen, without what is blank at the ends of
// lines and below the last one.
func (t *Terminal) Text() string {
	var out []rune
	for _, line := range t.lines {
		for _, c := range line {
			if c.r == 0 {
				c.r = ' '
			}
			out = append(out, c.r)
		}
		for len(out) > 0 && out[len(out)-1] == ' ' {
			out = out[:len(out)-1]
		}
		out = append(out, '\n')
	}
	for len(out) > 0 && out[len(out)-1] == '\n' {
		out = out[:len(out)-1]
	}
	return string(out)
}

func (t *Terminal) reset() {
	t.p = parser{}
	t.lines, t.other, t.alternate = blank(t.cols, t.rows), nil, false
	t.x, t.y, t.wrapNext, t.pen, t.last = 0, 0, false, pen{}, 0
	t.saved = [2]saved{}
	t.top, t.end = 0, t.rows
	t.graphics, t.shifted, t.cp437 = [2]bool{}, 0, false
	t.insert, t.newLine, t.origin, t.wrap = false, false, false, true
	t.cursorKeys, t.paste, t.hide, t.invert = false, false, false, false
	t.defaultTabs()
}

func (t *Terminal) defaultTabs() {
	t.tabs = make([]bool, t.cols)
	for x := 8; x < t.cols; x += 8 {
		t.tabs[x] = true
	}
}

// empty is what erasing leaves.
func (t *Terminal) empty() cell { return cell{pen: pen{bg: t.pen.bg}} }

// put shows a character.
func (t *Terminal) put(r rune) {
	n := columns(r)
	if n == 0 {
		return // marks are not composed
	}
	if t.wrapNext || t.x+n > t.cols {
		if t.wrap {
			t.x = 0
			t.lineFeed()
		}
		t.wrapNext = false
	}
	t.x = min(t.x, t.cols-n)
	line := t.lines[t.y]
	if t.insert {
		copy(line[t.x+n:], line[t.x:])
	}
	line[t.x] = cell{r, t.pen}
	if n == 2 {
		line[t.x+1] = cell{0, t.pen}
	}
	t.last = r
	if t.x+n < t.cols {
		t.x += n
	} else {
		t.x, t.wrapNext = t.cols-1, true
	}
}

// moveTo puts the cursor into the screen.
func (t *Terminal) moveTo(x, y int) {
	t.x, t.y, t.wrapNext = min(max(x, 0), t.cols-1), min(max(y, 0), t.rows-1), false
}

// place is moveTo for addresses that the origin mode counts from the region.
func (t *Terminal) place(x, y int) {
	if t.origin {
		t.moveTo(x, min(max(y, 0)+t.top, t.end-1))
		return
	}
	t.moveTo(x, y)
}

// up and down stop at the region if they begin in it.
func (t *Terminal) vertical(n int) {
	lo, hi := 0, t.rows-1
	if t.y >= t.top {
		lo = t.top
	}
	if t.y < t.end {
		hi = t.end - 1
	}
	t.moveTo(t.x, min(max(t.y+n, lo), hi))
}

func (t *Terminal) tab(n int) {
	for ; n > 0 && t.x < t.cols-1; n-- {
		for t.x++; t.x < t.cols-1 && !t.tabs[t.x]; t.x++ {
		}
	}
	for ; n < 0 && t.x > 0; n++ {
		for t.x--; t.x > 0 && !t.tabs[t.x]; t.x-- {
		}
	}
	t.wrapNext = false
}

func (t *Terminal) lineFeed() {
	t.wrapNext = false
	switch {
	case t.y == t.end-1:
		t.scroll(t.top, 1)
	case t.y < t.rows-1:
		t.y++
	}
}

func (t *Terminal) reverseFeed() {
	t.wrapNext = false
	switch {
	case t.y == t.top:
		t.scroll(t.top, -1)
	case t.y > 0:
		t.y--
	}
}

// scroll moves the lines from row to the end of the region up by n, or down.
func (t *Terminal) scroll(row, n int) {
	if row >= t.end {
		return
	}
	region := t.lines[row:t.end]
	n = min(max(n, -len(region)), len(region))
	fresh := region[:max(n, 0)]
	if n < 0 {
		fresh = region[len(region)+n:]
	}
	for _, line := range fresh {
		fill(line, t.empty())
	}
	// what leaves at one end comes in, blank, at the other
	if n < 0 {
		n += len(region)
	}
	rotated := slices.Concat(region[n:], region[:n])
	copy(region, rotated)
}

func fill(line []cell, c cell) {
	for i := range line {
		line[i] = c
	}
}

func (t *Terminal) fillWith(r rune) {
	for _, line := range t.lines {
		fill(line, cell{r: r})
	}
	t.moveTo(0, 0)
}

// erase blanks the cells of the screen from one place to before another, in
// reading order.
func (t *Terminal) erase(x0, y0, x1, y1 int) {
	for y := y0; y <= min(y1, t.rows-1); y++ {
		from, to := 0, t.cols
		if y == y0 {
			from = x0
		}
		if y == y1 {
			to = x1
		}
		fill(t.lines[y][from:max(from, to)], t.empty())
	}
}

// shift inserts n blanks at the cursor, or deletes -n cells.
func (t *Terminal) shift(n int) {
	rest := t.lines[t.y][t.x:]
	n = min(max(n, -len(rest)), len(rest))
	if n >= 0 {
		copy(rest[n:], rest)
		fill(rest[:n], t.empty())
	} else {
		copy(rest, rest[-n:])
		fill(rest[len(rest)+n:], t.empty())
	}
	t.wrapNext = false
}

func (t *Terminal) slot() *saved {
	if t.alternate {
		return &t.saved[1]
	}
	return &t.saved[0]
}

func (t *Terminal) save() {
	*t.slot() = saved{t.x, t.y, t.pen, t.graphics, t.shifted, t.origin}
}

func (t *Terminal) restore() {
	s := *t.slot()
	t.pen, t.graphics, t.shifted, t.origin = s.pen, s.graphics, s.shifted, s.origin
	t.moveTo(s.x, s.y)
}

// show shows the alternate screen, or the main one again.
func (t *Terminal) show(alternate bool) {
	if alternate == t.alternate {
		return
	}
	t.alternate = alternate
	if alternate {
		t.other, t.lines = t.lines, blank(t.cols, t.rows)
	} else {
		t.lines, t.other = t.other, nil
	}
}

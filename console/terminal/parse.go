package terminal

import "unicode/utf8"

// state is where in a sequence the parser is.
type state uint8

const (
	ground state = iota
	escape
	escapeMore // an intermediate byte has come
	control    // behind CSI
	command    // behind OSC
	paint      // behind the "OSC P" of the Linux console, which nothing ends
	text       // a string that is skipped, up to its terminator
)

const (
	maxParams = 16
	maxParam  = 9999
)

// parser cuts what a program sends.
type parser struct {
	state  state
	prefix byte // '?', '>' or '=' behind CSI, or the intermediate byte
	middle bool // an intermediate byte inside CSI: a sequence that is skipped
	params [maxParams]int
	n      int  // of params that have begun
	left   int  // bytes to come, in paint
	esc    bool // ESC inside a string
	utf    [utf8.UTFMax]byte
	utfN   int
}

// arg is parameter i, or what stands for an absent or zero one.
func (p *parser) arg(i, absent int) int {
	if i >= p.n || p.params[i] == 0 {
		return absent
	}
	return p.params[i]
}

// advance takes one byte.
func (t *Terminal) advance(b byte) {
	p := &t.p
	if p.state == command || p.state == text || p.state == paint {
		t.skip(b)
		return
	}
	if b < 0x20 || b == 0x7f {
		t.incomplete()
		t.control(b)
		return
	}
	switch p.state {
	case escape:
		t.escape(b)
	case escapeMore:
		t.designate(b)
		p.state = ground
	case control:
		t.csi(b)
	default:
		t.char(b)
	}
}

// char collects UTF-8.
func (t *Terminal) char(b byte) {
	p := &t.p
	if t.cp437 && b >= 0x80 {
		t.put([]rune(codePage437)[b-0x80])
		return
	}
	if p.utfN == 0 && b < utf8.RuneSelf {
		t.put(t.translate(rune(b)))
		return
	}
	if p.utfN > 0 && utf8.RuneStart(b) { // the one before was cut off
		t.incomplete()
		t.char(b)
		return
	}
	p.utf[p.utfN] = b
	p.utfN++
	if !utf8.FullRune(p.utf[:p.utfN]) {
		return
	}
	r, size := utf8.DecodeRune(p.utf[:p.utfN])
	p.utfN = 0
	if r < 0xa0 && size > 1 {
		return // a control character of the second set
	}
	t.put(r)
}

// incomplete shows a character that was cut off.
func (t *Terminal) incomplete() {
	if t.p.utfN > 0 {
		t.p.utfN = 0
		t.put(utf8.RuneError)
	}
}

// skip passes over strings. What ends a string is BEL, ST, or CAN and SUB.
func (t *Terminal) skip(b byte) {
	p := &t.p
	if p.state == paint {
		if p.left--; p.left == 0 || b < 0x20 {
			p.state = ground
		}
		return
	}
	if p.esc {
		p.esc = false
		p.state = ground
		if b != '\\' { // another sequence begins
			p.state = escape
			t.advance(b)
		}
		return
	}
	switch {
	case b == 0x07 && p.state == command, b == 0x18, b == 0x1a:
		p.state = ground
	case b == 0x1b:
		p.esc = true
	case p.state == command && p.left == 0 && b == 'R': // the Linux console: end of it
		p.state = ground
	case p.state == command && p.left == 0 && b == 'P':
		p.state, p.left = paint, 7
	default:
		p.left = 1 // no longer the first byte
	}
}

// control does a control character, wherever it comes.
func (t *Terminal) control(b byte) {
	switch b {
	case 0x08:
		t.moveTo(t.x-1, t.y)
	case 0x09:
		t.tab(1)
	case 0x0a, 0x0b, 0x0c:
		t.lineFeed()
		if t.newLine {
			t.x = 0
		}
	case 0x0d:
		t.x, t.wrapNext = 0, false
	case 0x0e:
		t.shifted = 1
	case 0x0f:
		t.shifted = 0
	case 0x18, 0x1a:
		t.p.state = ground
	case 0x1b:
		t.p.state = escape
	}
}

// escape does what follows ESC.
func (t *Terminal) escape(b byte) {
	p := &t.p
	p.state = ground
	switch b {
	case '[':
		p.state, p.prefix, p.middle, p.n = control, 0, false, 0
		p.params = [maxParams]int{}
	case ']':
		p.state, p.left, p.esc = command, 0, false
	case 'P', 'X', '^', '_':
		p.state, p.esc = text, false
	case '(', ')', '#', '%', '*', '+', ' ':
		p.state, p.prefix = escapeMore, b
	case '7':
		t.save()
	case '8':
		t.restore()
	case 'D':
		t.lineFeed()
	case 'E':
		t.lineFeed()
		t.x = 0
	case 'H':
		t.tabs[t.x] = true
	case 'M':
		t.reverseFeed()
	case 'Z':
		t.answer(attributes)
	case 'c':
		t.reset()
	}
}

// designate does the end of a sequence with an intermediate byte.
func (t *Terminal) designate(b byte) {
	switch t.p.prefix {
	case '(':
		t.graphics[0] = b == '0'
	case ')':
		t.graphics[1] = b == '0'
	case '#':
		if b == '8' {
			t.fillWith('E')
		}
	}
}

// csi collects parameters and does the sequence at its last byte.
func (t *Terminal) csi(b byte) {
	p := &t.p
	switch {
	case b >= '0' && b <= '9':
		if p.n == 0 {
			p.n = 1
		}
		v := &p.params[p.n-1]
		*v = min(*v*10+int(b-'0'), maxParam)
	case b == ';' || b == ':':
		p.n = min(max(p.n, 1)+1, maxParams)
	case b >= '<' && b <= '?':
		p.prefix = b
	case b == '[' && p.n == 0: // the Linux console's own keys come back like this
		p.state, p.prefix = escapeMore, b
	case b < '@':
		p.middle = true
	default:
		p.state = ground
		if b < 0x7f && !p.middle {
			t.sequence(b)
		}
	}
}

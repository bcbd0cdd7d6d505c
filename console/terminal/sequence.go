package terminal

import "fmt"

// attributes answers a question for the kind of terminal: a VT102, as the Linux
// console does.
const attributes = "\x1b[?6c"

func (t *Terminal) answer(s string) {
	if t.reply != nil {
		t.reply([]byte(s))
	}
}

// sequence does a CSI sequence.
func (t *Terminal) sequence(final byte) {
	p := &t.p
	n := p.arg(0, 1)
	switch {
	case p.prefix == '?' && (final == 'h' || final == 'l'):
		for i := range p.n {
			t.privateMode(p.params[i], final == 'h')
		}
		return
	case p.prefix != 0:
		return // of terminals that this one is not; "CSI ? c" is the cursor's looks
	}
	switch final {
	case 'A':
		t.vertical(-n)
	case 'B', 'e':
		t.vertical(n)
	case 'C', 'a':
		t.moveTo(t.x+n, t.y)
	case 'D':
		t.moveTo(t.x-n, t.y)
	case 'E':
		t.vertical(n)
		t.x = 0
	case 'F':
		t.vertical(-n)
		t.x = 0
	case 'G', '`':
		t.moveTo(n-1, t.y)
	case 'H', 'f':
		t.place(p.arg(1, 1)-1, n-1)
	case 'd':
		t.place(t.x, n-1)
	case 'I':
		t.tab(n)
	case 'Z':
		t.tab(-n)
	default:
		t.edit(final, n)
	}
}

// edit does the sequences that change what is shown.
func (t *Terminal) edit(final byte, n int) {
	p := &t.p
	switch final {
	case '@':
		t.shift(n)
	case 'P':
		t.shift(-n)
	case 'X':
		t.erase(t.x, t.y, min(t.x+n, t.cols), t.y)
	case 'J':
		t.eraseScreen(p.arg(0, 0))
	case 'K':
		t.eraseLine(p.arg(0, 0))
	case 'L', 'M':
		if t.y < t.top || t.y >= t.end {
			return
		}
		if final == 'L' {
			n = -n
		}
		t.scroll(t.y, n)
		t.x = 0
	case 'S':
		t.scroll(t.top, n)
	case 'T':
		t.scroll(t.top, -n)
	case 'b':
		for range min(n, t.cols) { // bounded: a few bytes must not cost a screen
			if t.last != 0 {
				t.put(t.last)
			}
		}
	default:
		t.set(final)
	}
}

// set does the sequences that change how the terminal goes on, and questions.
func (t *Terminal) set(final byte) {
	p := &t.p
	switch final {
	case 'm':
		t.rendition()
	case 'r':
		top, end := p.arg(0, 1)-1, min(p.arg(1, t.rows), t.rows)
		if top < end-1 {
			t.top, t.end = top, end
			t.place(0, 0)
		}
	case 's':
		t.save()
	case 'u':
		t.restore()
	case 'g':
		switch p.arg(0, 0) {
		case 0:
			t.tabs[t.x] = false
		case 3:
			clear(t.tabs)
		}
	case 'h', 'l':
		for i := range p.n {
			switch p.params[i] {
			case 4:
				t.insert = final == 'h'
			case 20:
				t.newLine = final == 'h'
			}
		}
	case 'c':
		t.answer(attributes)
	case 'n':
		switch p.arg(0, 0) {
		case 5:
			t.answer("\x1b[0n")
		case 6:
			y := t.y
			if t.origin {
				y -= t.top
			}
			t.answer(fmt.Sprintf("\x1b[%d;%dR", y+1, t.x+1))
		}
	case 't':
		if p.arg(0, 0) == 18 {
			t.answer(fmt.Sprintf("\x1b[8;%d;%dt", t.rows, t.cols))
		}
	}
}

func (t *Terminal) eraseScreen(what int) {
	switch what {
	case 0:
		t.erase(t.x, t.y, t.cols, t.rows-1)
	case 1:
		t.erase(0, 0, t.x+1, t.y)
	case 2, 3:
		t.erase(0, 0, t.cols, t.rows-1)
	}
	t.wrapNext = false
}

func (t *Terminal) eraseLine(what int) {
	switch what {
	case 0:
		t.erase(t.x, t.y, t.cols, t.y)
	case 1:
		t.erase(0, t.y, t.x+1, t.y)
	case 2:
		t.erase(0, t.y, t.cols, t.y)
	}
	t.wrapNext = false
}

// privateMode sets a mode of DEC's and xterm's.
func (t *Terminal) privateMode(mode int, on bool) {
	switch mode {
	case 1:
		t.cursorKeys = on
	case 5:
		t.invert = on
	case 6:
		t.origin = on
		t.place(0, 0)
	case 7:
		t.wrap = on
	case 25:
		t.hide = !on
	case 47, 1047:
		t.show(on)
	case 1048:
		if on {
			t.save()
		} else {
			t.restore()
		}
	case 1049:
		if on && !t.alternate {
			t.save()
			t.show(true)
		} else if !on && t.alternate {
			t.show(false)
			t.restore()
		}
	case 2004:
		t.paste = on
	}
}

// rendition does SGR.
func (t *Terminal) rendition() {
	p := &t.p
	n := max(p.n, 1)
	for i := 0; i < n; i++ {
		v := p.params[i]
		switch {
		case v == 38 || v == 48:
			c, used := p.extended(i + 1)
			if used == 0 {
				return
			}
			i += used
			if v == 38 {
				t.pen.fg = c
			} else {
				t.pen.bg = c
			}
		case v >= 30 && v <= 37:
			t.pen.fg = indexed | color(v-30)
		case v >= 40 && v <= 47:
			t.pen.bg = indexed | color(v-40)
		case v >= 90 && v <= 97:
			t.pen.fg = indexed | color(v-90+8)
		case v >= 100 && v <= 107:
			t.pen.bg = indexed | color(v-100+8)
		default:
			t.attribute(v)
		}
	}
}

// extended reads the colour behind 38 or 48 and how many parameters it takes.
func (p *parser) extended(i int) (c color, used int) {
	if i >= p.n {
		return 0, 0
	}
	switch p.params[i] {
	case 5:
		if i+1 < p.n {
			return indexed | color(min(p.params[i+1], 255)), 2
		}
	case 2:
		if i+3 < p.n {
			rgb := func(n int) color { return color(min(p.params[i+n], 255)) }
			return direct | rgb(1)<<16 | rgb(2)<<8 | rgb(3), 4
		}
	}
	return 0, 0
}

func (t *Terminal) attribute(v int) {
	a := &t.pen.attr
	switch v {
	case 0:
		t.pen, t.cp437 = pen{}, false
	case 1:
		*a |= bold
	case 2:
		*a |= faint
	case 4, 21:
		*a |= underline
	case 7:
		*a |= inverse
	case 8:
		*a |= hidden
	case 9:
		*a |= strike
	case 10:
		t.cp437 = false
	case 11, 12:
		t.cp437 = true
	case 22:
		*a &^= bold | faint
	case 24:
		*a &^= underline
	case 27:
		*a &^= inverse
	case 28:
		*a &^= hidden
	case 29:
		*a &^= strike
	case 39:
		t.pen.fg = 0
	case 49:
		t.pen.bg = 0
	}
}

// translate is a character of the set that is shifted in.
func (t *Terminal) translate(r rune) rune {
	if t.graphics[t.shifted] && r >= '`' && r <= '~' {
		return []rune(lineDrawing)[r-'`']
	}
	return r
}

const (
	// lineDrawing is DEC's special graphics, from '`' on.
	lineDrawing = "◆▒␉␌␍␊°±␤␋┘┐┌└┼⎺⎻─⎼⎽├┤┴┬│≤≥π≠£·"
	// codePage437 is the upper half of the PC's set, from 0x80 on.
	codePage437 = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■ "
)

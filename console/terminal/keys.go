package terminal

import (
	"fmt"
	"strings"
)

// Modifiers are keys that are held down.
type Modifiers uint8

// The modifiers that matter to a text terminal.
const (
	Shift Modifiers = 1 << iota
	Alt
	Control
)

// Key is what a pressed key sends, nothing if it sends nothing. sym is a keysym
// of X11 (RFC 6143, section 7.5.4).
func (t *Terminal) Key(sym uint32, mods Modifiers) []byte {
	out := t.plain(sym, mods)
	if out != "" && mods&Alt != 0 {
		out = "\x1b" + out
	}
	return []byte(out)
}

func (t *Terminal) plain(sym uint32, mods Modifiers) string {
	if r := character(sym); r != 0 {
		if mods&Control != 0 {
			return controlled(r)
		}
		return string(r)
	}
	if seq := simple(sym); seq != "" {
		return seq
	}
	sym = unpadded(sym)
	if sym >= 0xff51 && sym <= 0xff54 {
		c := "DACB"[sym-0xff51]
		switch {
		case mods&(Shift|Control) != 0:
			return fmt.Sprintf("\x1b[1;%d%c", code(mods), c)
		case t.cursorKeys:
			return "\x1bO" + string(c)
		}
		return "\x1b[" + string(c)
	}
	n := number(sym)
	switch {
	case n == 0:
		return ""
	case mods&(Shift|Control) != 0:
		return fmt.Sprintf("\x1b[%d;%d~", n, code(mods))
	case n >= 11 && n <= 15: // the Linux console's own
		return "\x1b[[" + string(rune('A'+n-11))
	}
	return fmt.Sprintf("\x1b[%d~", n)
}

// code is xterm's number of modifiers; Alt is sent as ESC.
func code(m Modifiers) int {
	n := 1
	if m&Shift != 0 {
		n++
	}
	if m&Control != 0 {
		n += 4
	}
	return n
}

// character is what a keysym prints, 0 for none.
func character(sym uint32) rune {
	switch {
	case sym >= 0x20 && sym <= 0x7e, sym >= 0xa0 && sym <= 0xff:
		return rune(sym)
	case sym >= 0x01000100 && sym <= 0x0110ffff:
		return rune(sym & 0xffffff)
	case sym == 0x20ac: // the euro is older than the rule
		return '€'
	case sym >= 0xffaa && sym <= 0xffb9: // the key pad
		return rune("*+,-./0123456789"[sym-0xffaa])
	case sym == 0xff80:
		return ' '
	case sym == 0xffbd:
		return '='
	}
	return 0
}

func controlled(r rune) string {
	switch {
	case r >= '@' && r <= '_', r >= 'a' && r <= 'z':
		return string(r & 0x1f)
	case r == ' ' || r == '2':
		return "\x00"
	case r >= '3' && r <= '7':
		return string(r - '3' + 0x1b)
	case r == '8' || r == '?':
		return "\x7f"
	case r == '/':
		return "\x1f"
	}
	return string(r)
}

// simple are keys that send one thing whatever is held.
func simple(sym uint32) string {
	switch sym {
	case 0xff08: // BackSpace
		return "\x7f"
	case 0xff09, 0xff89: // Tab
		return "\t"
	case 0xfe20: // ISO_Left_Tab
		return "\x1b[Z"
	case 0xff0d, 0xff8d: // Return
		return "\r"
	case 0xff0a: // Linefeed
		return "\n"
	case 0xff1b: // Escape
		return "\x1b"
	}
	return ""
}

// unpadded turns the keys of the key pad without NumLock into the others.
func unpadded(sym uint32) uint32 {
	switch {
	case sym >= 0xff95 && sym <= 0xff9b: // Home Left Up Right Down PageUp PageDown
		return sym - 0xff95 + 0xff50
	case sym == 0xff9c: // End
		return 0xff57
	case sym == 0xff9e: // Insert
		return 0xff63
	case sym == 0xff9f: // Delete
		return 0xffff
	}
	return sym
}

// number is that of the sequence "CSI number ~".
func number(sym uint32) int {
	switch {
	case sym == 0xff50: // Home
		return 1
	case sym == 0xff63: // Insert
		return 2
	case sym == 0xffff: // Delete
		return 3
	case sym == 0xff57: // End
		return 4
	case sym == 0xff55 || sym == 0xff56: // PageUp, PageDown
		return int(sym - 0xff55 + 5)
	case sym >= 0xffbe && sym <= 0xffc9: // F1 to F12
		return []int{11, 12, 13, 14, 15, 17, 18, 19, 20, 21, 23, 24}[sym-0xffbe]
	}
	return 0
}

// Paste is what pasted text sends: lines end as with the Return key, and what
// controls a terminal is left out.
func (t *Terminal) Paste(text string) []byte {
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r")
	text = strings.Map(func(r rune) rune {
		if r < 0x20 && r != '\r' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return -1
		}
		return r
	}, text)
	if t.paste {
		text = "\x1b[200~" + text + "\x1b[201~"
	}
	return []byte(text)
}

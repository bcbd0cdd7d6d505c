// Package terminal is a text terminal without a window: bytes of a program in,
// a screen of characters, and of pixels, out; keys in, bytes for the program
// out. It does what the terminal "linux" of terminfo(5) says, which is the TERM
// that instances get, and what programs for xterm usually send; what it does not
// know it skips.
//
// What a program sends is hostile: the cost of a sequence is bounded by the size
// of the screen, nothing that it sends is kept but the screen itself, and no
// sequence makes the terminal type what the program has chosen (there is no
// report of a title).
//
// The package knows neither consoles nor networks. Sources: ECMA-48, console_codes(4),
// xterm's ctlseqs.
package terminal

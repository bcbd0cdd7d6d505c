package terminal_test

import (
	"flag"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/console/terminal"
)

var pictures = flag.String("pictures", "", "directory to write what is drawn to")

func TestScreen(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"text":                   {"hello\r\nworld", "hello\nworld"},
		"wrap":                   {strings.Repeat("x", 25), strings.Repeat("x", 20) + "\nxxxxx"},
		"no wrap":                {"\x1b[?7l" + strings.Repeat("x", 25) + "y", strings.Repeat("x", 19) + "y"},
		"carriage return":        {"abc\rX", "Xbc"},
		"backspace":              {"abc\b\bX", "aXc"},
		"tab":                    {"a\tb", "a       b"},
		"scroll":                 {"1\r\n2\r\n3\r\n4\r\n5\r\n6", "2\n3\n4\n5\n6"},
		"reverse index":          {"1\r\n2\x1b[H\x1bM0", "0\n1\n2"},
		"region":                 {"1\r\n2\r\n3\r\n4\r\n5\x1b[2;3r\x1b[3;1H\nX", "1\n3\nX\n4\n5"},
		"insert lines":           {"1\r\n2\r\n3\x1b[2;1H\x1b[LX", "1\nX\n2\n3"},
		"delete lines":           {"1\r\n2\r\n3\x1b[2;1H\x1b[M", "1\n3"},
		"insert characters":      {"abc\r\x1b[2@X", "X abc"},
		"delete characters":      {"abcdef\r\x1b[3P", "def"},
		"erase characters":       {"abcdef\r\x1b[3X", "   def"},
		"erase to end of line":   {"abcdef\r\x1b[2C\x1b[K", "ab"},
		"erase below":            {"1\r\n2\r\n3\x1b[2;1H\x1b[J", "1"},
		"erase all":              {"1\r\n2\x1b[2J", ""},
		"repeat":                 {"x\x1b[4b", "xxxxx"},
		"repeat of a bomb":       {"x\x1b[9999999999b\r\x1b[2J\x1b[Hok", "ok"},
		"numbers of a bomb":      {"\x1b[99999999999999999999;99999999999999H\x1b[99999999L\x1b[9999999S\x1b[9999999@\x1b[9999999Pz\x1b[Hok", "ok\n\n\n\nz"},
		"many parameters":        {"\x1b[" + strings.Repeat("1;", 1000) + "mok", "ok"},
		"alternate screen":       {"main\x1b[?1049hother\x1b[?1049l!", "main!"},
		"save and restore":       {"ab\x1b7\x1b[5;5Hx\x1b8c", "abc\n\n\n\n    x"},
		"UTF-8":                  {"gr\xc3\xbc\xc3\x9fe", "grüße"},
		"UTF-8 cut off":          {"a\xc3\r\nb\xe2\x94x", "a\ufffd\nb\ufffdx"},
		"no UTF-8":               {"a\xff\xfeb", "a\ufffd\ufffdb"},
		"C1":                     {"a\xc2\x9bb", "ab"},
		"wide":                   {"中文x", "中 文 x"},
		"marks":                  {"e\u0301", "e"},
		"line drawing":           {"\x1b(0lqk\x1b(Bx", "┌─┐x"},
		"code page":              {"\x1b[11m\xda\xc4\xbf\x1b[10mx", "┌─┐x"},
		"title":                  {"\x1b]0;a title\x07ok", "ok"},
		"title by ST":            {"\x1b]0;a title\x1b\\ok", "ok"},
		"palette of the console": {"\x1b]P1ff0000ok", "ok"},
		"palette reset":          {"\x1b]Rok", "ok"},
		"device control":         {"\x1bPq#0;2;0;0;0\x1b\\ok", "ok"},
		"application command":    {"\x1b_hello\x1b\\ok", "ok"},
		"string that never ends": {"\x1b]0;" + strings.Repeat("x", 1<<20) + "\x18ok", "ok"},
		"sequence in a sequence": {"\x1b[3\x1b[1mok", "ok"},
		"control in a sequence":  {"a\x1b[\r1Cb", "ab"},
		"private of others":      {"\x1b[>1;2m\x1b[?1c\x1b[=5h\x1b[!pok", "ok"},
		"alignment":              {"\x1b#8\x1b[2J\x1b[Hok", "ok"},
		"keys that are echoed":   {"\x1b[[Aok", "ok"},
		"reset":                  {"junk\x1b[5;5r\x1bcok", "ok"},
		"origin":                 {"\x1b[2;4r\x1b[?6h\x1b[1;1Hx", "\nx"},
		"insert mode":            {"bc\r\x1b[4ha", "abc"},
	} {
		t.Run(name, func(t *testing.T) {
			x := terminal.New(20, 5, nil)
			_, _ = x.Write([]byte(tc.in))
			if got := x.Text(); got != tc.want {
				t.Errorf("%q shows %q, want %q", tc.in, got, tc.want)
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	for in, want := range map[string]string{
		"\x1b[5n":         "\x1b[0n",
		"ab\r\nc\x1b[6n":  "\x1b[2;2R",
		"\x1b[c":          "\x1b[?6c",
		"\x1bZ":           "\x1b[?6c",
		"\x1b[18t":        "\x1b[8;5;20t",
		"\x1b[21t":        "", // the title: never
		"\x1b]0;x\x07":    "",
		"\x1b]10;?\x07":   "",
		"\x05":            "",
		"\x1b[?1c\x1b[>c": "",
		"\x1bP$qm\x1b\\":  "",
	} {
		var got []byte
		x := terminal.New(20, 5, func(b []byte) { got = append(got, b...) })
		_, _ = x.Write([]byte(in))
		if string(got) != want {
			t.Errorf("%q answers %q, want %q", in, got, want)
		}
	}
}

func TestKeys(t *testing.T) {
	for _, tc := range []struct {
		mode string
		sym  uint32
		mods terminal.Modifiers
		want string
	}{
		{"", 'a', 0, "a"},
		{"", 'c', terminal.Control, "\x03"},
		{"", ' ', terminal.Control, "\x00"},
		{"", '[', terminal.Control, "\x1b"},
		{"", 'x', terminal.Alt, "\x1bx"},
		{"", 0xfc, 0, "ü"},
		{"", 0x010003b1, 0, "α"},
		{"", 0x20ac, 0, "€"},
		{"", 0xff0d, 0, "\r"},
		{"", 0xff8d, 0, "\r"},
		{"", 0xff08, 0, "\x7f"},
		{"", 0xff1b, 0, "\x1b"},
		{"", 0xff52, 0, "\x1b[A"},
		{"\x1b[?1h", 0xff52, 0, "\x1bOA"},
		{"", 0xff53, terminal.Control, "\x1b[1;5C"},
		{"", 0xff97, 0, "\x1b[A"},
		{"", 0xff50, 0, "\x1b[1~"},
		{"", 0xffff, 0, "\x1b[3~"},
		{"", 0xff9f, 0, "\x1b[3~"},
		{"", 0xffbe, 0, "\x1b[[A"},
		{"", 0xffc3, 0, "\x1b[17~"},
		{"", 0xffc9, 0, "\x1b[24~"},
		{"", 0xffb5, 0, "5"},
		{"", 0xffe1, 0, ""},
		{"", 0xffffffff, 0, ""},
	} {
		x := terminal.New(80, 25, nil)
		_, _ = x.Write([]byte(tc.mode))
		if got := string(x.Key(tc.sym, tc.mods)); got != tc.want {
			t.Errorf("key %#x with %d after %q sends %q, want %q", tc.sym, tc.mods, tc.mode, got, tc.want)
		}
	}
}

func TestPaste(t *testing.T) {
	x := terminal.New(80, 25, nil)
	if got := string(x.Paste("a\r\nb\nc\x1b[201~\x03ü")); got != "a\rb\rc[201~ü" {
		t.Errorf("%q", got)
	}
	_, _ = x.Write([]byte("\x1b[?2004h"))
	if got := string(x.Paste("a")); got != "\x1b[200~a\x1b[201~" {
		t.Errorf("%q", got)
	}
}

func TestResize(t *testing.T) {
	x := terminal.New(20, 5, nil)
	_, _ = x.Write([]byte("1\r\n2\r\n3\r\n4\r\n$"))
	x.Resize(30, 6)
	x.Resize(1, 1)
	if cols, rows := x.Size(); cols != terminal.MinColumns || rows != terminal.MinRows {
		t.Errorf("%d by %d", cols, rows)
	}
	_, _ = x.Write([]byte(" prompt"))
	if got := x.Text(); got != "1\n2\n3\n4\n$ prompt" {
		t.Errorf("%q", got)
	}
	x.Resize(1e6, 1e6)
	if cols, rows := x.Size(); cols != terminal.MaxColumns || rows != terminal.MaxRows {
		t.Errorf("%d by %d", cols, rows)
	}
}

// draw is the picture of what a program says, as whole.
func draw(p *terminal.Picture) *image.RGBA {
	size := p.Size()
	px := make([]uint32, size.X*size.Y)
	p.Draw(image.Rectangle{Max: size}, px)
	img := image.NewRGBA(image.Rectangle{Max: size})
	for i, v := range px {
		img.SetRGBA(i%size.X, i/size.X, color.RGBA{uint8(v >> 16), uint8(v >> 8), uint8(v), 255})
	}
	return img
}

func TestPicture(t *testing.T) {
	x := terminal.New(80, 25, nil)
	p := terminal.NewPicture(x)
	first := p.Update()
	if first == 0 || len(p.Changes(first)) != 0 {
		t.Errorf("version %d with changes %v", first, p.Changes(first))
	}
	if all := p.Changes(0); len(all) != 1 || all[0] != (image.Rectangle{Max: p.Size()}) {
		t.Errorf("all is %v", all)
	}
	_, _ = x.Write([]byte("A"))
	second := p.Update()
	if got := p.Changes(first); second <= first || len(got) != 1 || got[0] != image.Rect(0, 0, 16, 16) {
		t.Errorf("a character and the cursor: %v", got)
	}
	if p.Update() != second {
		t.Error("nothing changes the version")
	}
	_, _ = x.Write([]byte(sample))
	p.Update()
	img := draw(p)
	if *pictures != "" {
		f, err := os.Create(filepath.Join(*pictures, "terminal.png"))
		if err != nil {
			t.Fatal(err)
		}
		if err := png.Encode(f, img); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	// what is drawn in parts is what is drawn at once
	part := image.Rect(3, 5, 200, 77)
	px := make([]uint32, part.Dx()*part.Dy())
	p.Draw(part, px)
	for i, v := range px {
		c := img.RGBAAt(part.Min.X+i%part.Dx(), part.Min.Y+i/part.Dx())
		if v != uint32(c.R)<<16|uint32(c.G)<<8|uint32(c.B) {
			t.Fatalf("pixel %d of a part differs", i)
		}
	}
	x.Resize(100, 30)
	if p.Update(); p.Size() != image.Pt(800, 480) || len(p.Changes(second)) == 0 {
		t.Errorf("size %v", p.Size())
	}
}

const sample = "\x1b[2J\x1b[Hroot@first:~# \x1b[1;34mls --color\x1b[0m  grüße Ελλάδα Привет 中文 \u2192 \u20ac \u2603\r\n" +
	"\x1b[31mred \x1b[1mbold red\x1b[0m \x1b[4munderlined\x1b[0m \x1b[7minverse\x1b[0m \x1b[2mfaint\x1b[0m \x1b[9mstruck\x1b[0m\r\n" +
	"┌──────┬──────┐ ╔══════╦══════╗ ┏━━━━━━┳━━━━━━┓ ╭──────╮\r\n" +
	"│ one  │ two  │ ║ one  ║ two  ║ ┃ one  ┃ two  ┃ │ arcs │\r\n" +
	"├──────┼──────┤ ╠══════╬══════╣ ┣━━━━━━╋━━━━━━┫ ╰──────╯\r\n" +
	"└──────┴──────┘ ╚══════╩══════╝ ┗━━━━━━┻━━━━━━┛ ▁▂▃▄▅▆▇█ ▉▊▋▌▍▎▏ ▐░▒▓▔▕ ▖▗▘▙▚▛▜▝▞▟\r\n" +
	"\x1b[38;5;208mindexed \x1b[48;2;0;60;90m\x1b[38;2;255;255;255m true colour \x1b[0m \x1b(0lqqqk\x1b(B\r\n" +
	"0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\r\n" +
	"root@first:~# "

// FuzzTerminal: nothing that a program says breaks the terminal or its picture.
func FuzzTerminal(f *testing.F) {
	f.Add([]byte(sample), uint16(80), uint16(25))
	f.Add([]byte("\x1b[2;3r\x1b[?6h\x1b[9999;9999H\x1b[9999L\x1bM\x1b[?1049h\x1b7\x1b[!p\x1b8\x1b[?1049l"), uint16(1), uint16(500))
	f.Fuzz(func(t *testing.T, said []byte, cols, rows uint16) {
		answered := 0
		x := terminal.New(20, 5, func(b []byte) { answered += len(b) })
		p := terminal.NewPicture(x)
		_, _ = x.Write(said[:len(said)/2])
		p.Update()
		x.Resize(int(cols%60), int(rows%20)) // small, so that much is tried
		_, _ = x.Write(said[len(said)/2:])
		since := p.Update()
		p.Changes(since - 1)
		if draw(p).Bounds().Empty() {
			t.Error("no picture")
		}
		if answered > 8*len(said) {
			t.Errorf("%d bytes answer %d", answered, len(said))
		}
	})
}

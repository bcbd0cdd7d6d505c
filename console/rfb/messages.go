package rfb

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Bounds of what a client may send.
const (
	maxEncodings = 1024    // the rest of a longer list is passed over
	maxCutText   = 1 << 20 // bytes; a longer text is refused
	maxPaste     = 4 << 10 // bytes of a text that are pasted
	maxScreens   = 255     // its field is a byte
)

// The messages of a client. Types of RFC 6143, section 7.5, and of the
// registry of the community (rfbproto.rst).
const (
	typeSetPixelFormat = 0
	typeSetEncodings   = 2
	typeUpdateRequest  = 3
	typeKey            = 4
	typePointer        = 5
	typeCutText        = 6
	typeSetDesktopSize = 251
)

// message is one of those below.
type message any

type (
	setEncodings  []int32
	updateRequest struct {
		incremental bool
		x, y, w, h  uint16
	}
	keyEvent struct {
		down bool
		sym  uint32
	}
	pointerEvent   struct{}
	cutText        string
	setDesktopSize struct{ w, h uint16 }
)

// pixelFormat is how a client wants pixels (RFC 6143, section 7.4).
type pixelFormat struct {
	bytes                     int // of a pixel: 1, 2 or 4
	depth                     uint8
	big                       bool
	redMax, greenMax, blueMax uint16
	red, green, blue          uint8 // shifts
}

// usualFormat is what the server begins with: 0x00RRGGBB, little endian.
func usualFormat() pixelFormat {
	return pixelFormat{bytes: 4, depth: 24, redMax: 255, greenMax: 255, blueMax: 255, red: 16, green: 8}
}

// encode is the format as it stands on the wire.
func (f pixelFormat) encode() []byte {
	out := make([]byte, 16)
	out[0], out[1], out[3] = uint8(f.bytes*8), f.depth, 1
	if f.big {
		out[2] = 1
	}
	binary.BigEndian.PutUint16(out[4:], f.redMax)
	binary.BigEndian.PutUint16(out[6:], f.greenMax)
	binary.BigEndian.PutUint16(out[8:], f.blueMax)
	out[10], out[11], out[12] = f.red, f.green, f.blue
	return out
}

func decodeFormat(b []byte) (pixelFormat, error) {
	f := pixelFormat{
		bytes: int(b[0]) / 8, depth: b[1], big: b[2] != 0,
		redMax: binary.BigEndian.Uint16(b[4:]), greenMax: binary.BigEndian.Uint16(b[6:]), blueMax: binary.BigEndian.Uint16(b[8:]),
		red: b[10], green: b[11], blue: b[12],
	}
	if b[0] != 8 && b[0] != 16 && b[0] != 32 {
		return f, fmt.Errorf("pixels of %d bits: %w", b[0], errdefs.ErrInvalid)
	}
	if b[3] == 0 {
		return f, fmt.Errorf("pixels of a colour map: %w", errdefs.ErrUnsupported)
	}
	if max(f.red, f.green, f.blue) > 31 {
		return f, fmt.Errorf("colours shifted by %d, %d, %d: %w", f.red, f.green, f.blue, errdefs.ErrInvalid)
	}
	return f, nil
}

// readMessage reads one message. Errors are the reader's, or errdefs.ErrInvalid
// and errdefs.ErrUnsupported, after which nothing can be read.
func readMessage(r io.Reader) (message, error) {
	var kind [1]byte
	if _, err := io.ReadFull(r, kind[:]); err != nil {
		return nil, err
	}
	switch kind[0] {
	case typeSetPixelFormat:
		b, err := take(r, 19)
		if err != nil {
			return nil, err
		}
		return decodeFormat(b[3:])
	case typeSetEncodings:
		return readEncodings(r)
	case typeUpdateRequest:
		b, err := take(r, 9)
		if err != nil {
			return nil, err
		}
		u16 := binary.BigEndian.Uint16
		return updateRequest{b[0] != 0, u16(b[1:]), u16(b[3:]), u16(b[5:]), u16(b[7:])}, nil
	case typeKey:
		b, err := take(r, 7)
		if err != nil {
			return nil, err
		}
		return keyEvent{b[0] != 0, binary.BigEndian.Uint32(b[3:])}, nil
	case typePointer:
		_, err := take(r, 5)
		return pointerEvent{}, err
	case typeCutText:
		return readCutText(r)
	case typeSetDesktopSize:
		b, err := take(r, 7)
		if err != nil {
			return nil, err
		}
		_, err = io.CopyN(io.Discard, r, 16*int64(min(b[5], maxScreens)))
		return setDesktopSize{binary.BigEndian.Uint16(b[1:]), binary.BigEndian.Uint16(b[3:])}, err
	}
	return nil, fmt.Errorf("message of type %d: %w", kind[0], errdefs.ErrUnsupported)
}

func take(r io.Reader, n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

func readEncodings(r io.Reader) (message, error) {
	b, err := take(r, 3)
	if err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(b[1:]))
	kept, err := take(r, 4*min(n, maxEncodings))
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, r, int64(4*n-len(kept))); err != nil {
		return nil, err
	}
	out := make(setEncodings, len(kept)/4)
	for i := range out {
		out[i] = int32(binary.BigEndian.Uint32(kept[4*i:]))
	}
	return out, nil
}

func readCutText(r io.Reader) (message, error) {
	b, err := take(r, 7)
	if err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(b[3:]))
	if n > maxCutText {
		return nil, fmt.Errorf("a text of %d bytes: %w", n, errdefs.ErrExhausted)
	}
	kept, err := take(r, int(min(n, maxPaste)))
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, r, n-int64(len(kept))); err != nil {
		return nil, err
	}
	latin1 := make([]rune, len(kept))
	for i, c := range kept {
		latin1[i] = rune(c)
	}
	return cutText(latin1), nil
}

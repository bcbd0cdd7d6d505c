package process

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Filter is a compiled filter of system calls. Its JSON is a string, base64 of
// the array of struct sock_filter (8 bytes each, little endian): a filter is
// most of a Spec, and as an array of objects it took a keeper 0.4 ms of each
// start to read. The array of objects is understood as well.
type Filter []SockFilter

// instructionSize is that of struct sock_filter.
const instructionSize = 8

// bytes is the array as the kernel takes it on little-endian machines.
func (f Filter) bytes() []byte {
	out := make([]byte, 0, len(f)*instructionSize)
	for _, in := range f {
		out = binary.LittleEndian.AppendUint16(out, in.Code)
		out = append(out, in.JT, in.JF)
		out = binary.LittleEndian.AppendUint32(out, in.K)
	}
	return out
}

// MarshalJSON implements json.Marshaler.
func (f Filter) MarshalJSON() ([]byte, error) {
	if f == nil {
		return []byte("null"), nil
	}
	raw := f.bytes()
	out := make([]byte, base64.StdEncoding.EncodedLen(len(raw))+2)
	out[0], out[len(out)-1] = '"', '"'
	base64.StdEncoding.Encode(out[1:], raw)
	return out, nil
}

// UnmarshalJSON implements json.Unmarshaler; errdefs.ErrInvalid.
func (f *Filter) UnmarshalJSON(text []byte) error {
	if len(text) == 0 || text[0] != '"' {
		var list []SockFilter
		if err := json.Unmarshal(text, &list); err != nil {
			return fmt.Errorf("filter: %w: %w", err, errdefs.ErrInvalid)
		}
		*f = list
		return nil
	}
	if len(text) < 2 || text[len(text)-1] != '"' {
		return fmt.Errorf("filter: a string without an end: %w", errdefs.ErrInvalid)
	}
	raw, err := base64.StdEncoding.AppendDecode(nil, text[1:len(text)-1])
	if err != nil || len(raw)%instructionSize != 0 {
		return fmt.Errorf("filter of %d bytes of base64: %w", len(text)-2, errdefs.ErrInvalid)
	}
	*f = make(Filter, len(raw)/instructionSize)
	for i := range *f {
		at := raw[i*instructionSize:]
		(*f)[i] = SockFilter{
			Code: binary.LittleEndian.Uint16(at), JT: at[2], JF: at[3], K: binary.LittleEndian.Uint32(at[4:]),
		}
	}
	return nil
}

package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// maxDepth is how deep arrays and objects may stand in one another.
const maxDepth = 64

// Dict is a JSON object in the order in which it was sent, as Python keeps it.
// Values are nil, bool, string, json.Number, []any and *Dict.
type Dict struct {
	Keys   []string
	Values map[string]any
}

// Decode reads one JSON document. What is none is errdefs.ErrInvalid.
func Decode(data []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	v, err := decode(d, 0)
	if err == nil {
		_, err = d.Token()
		if errors.Is(err, io.EOF) {
			return v, nil
		}
		if err == nil {
			err = errors.New("text after the document")
		}
	}
	return nil, fmt.Errorf("decode body: %w: %w", err, errdefs.ErrInvalid)
}

func decode(d *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errors.New("too deep")
	}
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('['):
		all := []any{}
		for d.More() {
			one, err := decode(d, depth+1)
			if err != nil {
				return nil, err
			}
			all = append(all, one)
		}
		_, err = d.Token()
		return all, err
	case json.Delim('{'):
		o := &Dict{Values: map[string]any{}}
		for d.More() {
			k, err := d.Token()
			if err != nil {
				return nil, err
			}
			name, _ := k.(string) // the decoder accepts nothing else
			one, err := decode(d, depth+1)
			if err != nil {
				return nil, err
			}
			if _, again := o.Values[name]; !again {
				o.Keys = append(o.Keys, name)
			}
			o.Values[name] = one
		}
		_, err = d.Token()
		return o, err
	}
	return t, nil
}

// Has reports whether the key is there, be it with null.
func (d *Dict) Has(name string) bool {
	if d == nil {
		return false
	}
	_, ok := d.Values[name]
	return ok
}

// Get is the value of the key, nil when it is not there.
func (d *Dict) Get(name string) any {
	if d == nil {
		return nil
	}
	return d.Values[name]
}

// String is a text or number as text, "" for all else.
func (d *Dict) String(name string) string {
	switch v := d.Get(name).(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	}
	return ""
}

// Optional is String, nil when the key is not there or null.
func (d *Dict) Optional(name string) *string {
	if d.Get(name) == nil {
		return nil
	}
	s := d.String(name)
	return &s
}

// Int is a number or a text of digits, otherwise when it is neither or too long.
func (d *Dict) Int(name string, otherwise int) int {
	n, err := strconv.Atoi(strings.TrimSpace(d.String(name)))
	if err != nil {
		return otherwise
	}
	return n
}

// Bool is a boolean or a word for one (oslo_utils.strutils.bool_from_string).
func (d *Dict) Bool(name string, otherwise bool) bool {
	switch v := d.Get(name).(type) {
	case bool:
		return v
	case string:
		if b, ok := ParseBool(v); ok {
			return b
		}
	}
	return otherwise
}

// Dict is an object, nil when there is none.
func (d *Dict) Dict(name string) *Dict {
	o, _ := d.Get(name).(*Dict)
	return o
}

// List is an array, nil when there is none.
func (d *Dict) List(name string) []any {
	l, _ := d.Get(name).([]any)
	return l
}

// Strings are the values of an object as texts; numbers as they were written.
func (d *Dict) Strings() map[string]string {
	out := map[string]string{}
	if d == nil {
		return out
	}
	for _, k := range d.Keys {
		out[k] = d.String(k)
	}
	return out
}

// ParseBool reads a word for a boolean.
func ParseBool(s string) (value, ok bool) {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "1", "t", "true", "on", "y", "yes":
		return true, true
	case "0", "f", "false", "off", "n", "no":
		return false, true
	}
	return false, false
}

package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// decodeJSON decodes a document of an image into v. It refuses documents that
// nest deeper than depth, and objects at the top that name one key twice:
// parsers disagree about those, and encoding/json ignores the case of keys.
func decodeJSON(data []byte, depth int, v any) error {
	if err := checkDepth(data, depth); err != nil {
		return err
	}
	if trimmed := bytes.TrimLeft(data, " \t\r\n"); len(trimmed) > 0 && trimmed[0] == '{' {
		if err := checkKeys(trimmed); err != nil {
			return err
		}
	}
	return json.Unmarshal(data, v)
}

// checkDepth counts brackets outside of strings.
func checkDepth(data []byte, most int) error {
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > most {
				return fmt.Errorf("the document nests deeper than %d", most)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

// checkKeys refuses repeated keys of the top object.
func checkKeys(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	if _, err := dec.Token(); err != nil {
		return err
	}
	seen := map[string]bool{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return err
		}
		key, _ := tok.(string)
		if key = strings.ToLower(key); seen[key] {
			return fmt.Errorf("the document names %.40q twice", key)
		}
		seen[key] = true
		var skip json.RawMessage
		if err := dec.Decode(&skip); err != nil {
			return err
		}
	}
	return nil
}

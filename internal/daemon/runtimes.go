package daemon

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// parseRuntimes reads [gantry] runtimes: NAME=/PATH, divided by spaces or
// commas. A name is one of letters, digits, '-', '_' and '.'.
func parseRuntimes(text string) (map[string]string, error) {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
	out := map[string]string{}
	for _, entry := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' }) {
		name, path, _ := strings.Cut(entry, "=")
		_, twice := out[name]
		switch {
		case name == "" || strings.Trim(name, letters) != "":
			return nil, fmt.Errorf("[gantry] runtimes: %q is not NAME=/PATH: %w", entry, errdefs.ErrInvalid)
		case !filepath.IsAbs(path):
			return nil, fmt.Errorf("[gantry] runtimes: path %q of %s is not absolute: %w", path, name, errdefs.ErrInvalid)
		case twice:
			return nil, fmt.Errorf("[gantry] runtimes: %s twice: %w", name, errdefs.ErrInvalid)
		}
		out[name] = path
	}
	return out, nil
}

// foreignDir is where other runtimes keep what they know of an engine's
// containers: short, gone with the boot as the containers are, and within reach
// of their user namespaces, which the engine's root is not.
func foreignDir(root string) string {
	sum := sha256.Sum256([]byte(filepath.Clean(root)))
	return filepath.Join("/run/gantry-runtimes", hex.EncodeToString(sum[:6]))
}

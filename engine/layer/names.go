package layer

import (
	"fmt"
	"path"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
)

const (
	whiteoutPrefix = ".wh."
	// whiteoutMeta begins names that aufs kept for itself; only opaqueMarker
	// of them has a meaning in a layer.
	whiteoutMeta = ".wh..wh."
	opaqueMarker = ".wh..wh..opq"
)

// cleanName returns name as a clean path relative to the root of the layer,
// "." for the root itself. Leading slashes and "." components are dropped as
// tar does; ".." is refused.
func cleanName(name string, lim Limits) (string, error) {
	if name == "" {
		return "", invalid("the name is empty")
	}
	if len(name) > lim.PathLen {
		return "", invalid("the name is longer than %d bytes", lim.PathLen)
	}
	if strings.IndexByte(name, 0) >= 0 {
		return "", invalid("the name holds a NUL byte")
	}
	depth := 0
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part == ".":
			continue
		case part == "..":
			return "", invalid("the name leads outside")
		case len(part) > lim.NameLen:
			return "", invalid("a part of the name is longer than %d bytes", lim.NameLen)
		}
		if depth++; depth > lim.Depth {
			return "", invalid("the name is deeper than %d directories", lim.Depth)
		}
	}
	return strings.TrimPrefix(path.Clean("/"+name), "/") + dotIfEmpty(depth), nil
}

func dotIfEmpty(depth int) string {
	if depth == 0 {
		return "."
	}
	return ""
}

// kind of a name with regard to whiteouts.
type kind int

const (
	kindPlain    kind = iota
	kindWhiteout      // removes a name of the layers below
	kindOpaque        // hides the directory of the layers below
	kindMeta          // aufs's own, without meaning
)

// classifyName says what a clean name means; for a whiteout also the base name
// that it removes.
func classifyName(clean string) (k kind, removed string, err error) {
	dir, base := path.Split(clean)
	if strings.HasPrefix(dir, whiteoutPrefix) || strings.Contains(dir, "/"+whiteoutPrefix) {
		if strings.HasPrefix(dir, whiteoutMeta) || strings.Contains(dir, "/"+whiteoutMeta) {
			return kindMeta, "", nil
		}
		return 0, "", invalid("a whiteout is used as a directory")
	}
	switch {
	case !strings.HasPrefix(base, whiteoutPrefix):
		return kindPlain, "", nil
	case base == opaqueMarker:
		return kindOpaque, "", nil
	case strings.HasPrefix(base, whiteoutMeta):
		return kindMeta, "", nil
	}
	removed = base[len(whiteoutPrefix):]
	if removed == "" || removed == "." || removed == ".." {
		return 0, "", invalid("the whiteout names no entry")
	}
	return kindWhiteout, removed, nil
}

// splitName returns the directory ("." for the root) and the last component.
func splitName(clean string) (dir, base string) {
	i := strings.LastIndexByte(clean, '/')
	if i < 0 {
		return ".", clean
	}
	return clean[:i], clean[i+1:]
}

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalid)...)
}

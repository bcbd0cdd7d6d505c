package schema

import (
	"encoding/base64"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"
)

func itoa(n int) string { return strconv.Itoa(n) }

// format is a keyword for texts of a form that has a name. What is no text is
// refused too where strict is set, as Python's checkers do.
func format(name string, strict bool, good func(s string) bool) Keyword {
	return func(v any) *violation {
		s, ok := v.(string)
		if ok && good(s) || !ok && !strict {
			return nil
		}
		return violated(v, "%s is not a %s", Repr(v), Repr(name))
	}
}

// UUID is oslo_utils.uuidutils.is_uuid_like.
func UUID() Keyword { return format("uuid", true, IsUUID) }

// IsUUID reports whether s is a UUID, with hyphens or without.
func IsUUID(s string) bool {
	_, err := uuid.Parse(s)
	return err == nil && (len(s) == 36 || len(s) == 32)
}

// IPv4 and IPv6 are addresses.
func IPv4() Keyword {
	return format("ipv4", false, func(s string) bool {
		a, err := netip.ParseAddr(s)
		return err == nil && a.Is4()
	})
}

// IPv6 is the counterpart of IPv4.
func IPv6() Keyword {
	return format("ipv6", false, func(s string) bool {
		a, err := netip.ParseAddr(s)
		return err == nil && a.Is6() && a.Zone() == ""
	})
}

// Base64 is standard base64.
func Base64() Keyword {
	return format("base64", true, func(s string) bool {
		_, err := DecodeBase64(s)
		return err == nil
	})
}

// DecodeBase64 reads what Base64 lets pass: as Python does, letters that are not
// of the alphabet do not count.
func DecodeBase64(s string) ([]byte, error) {
	s = strings.Map(func(r rune) rune {
		if strings.ContainsRune(alnum+"+/=", r) {
			return r
		}
		return -1
	}, s)
	return base64.StdEncoding.DecodeString(s)
}

// Time is an ISO 8601 time (oslo_utils.timeutils.parse_isotime).
func Time() Keyword {
	return format("date-time", true, func(s string) bool {
		_, ok := ParseTime(s)
		return ok
	})
}

// ParseTime reads a time, UTC when it names no zone.
func ParseTime(s string) (time.Time, bool) {
	s = strings.Replace(s, " ", "T", 1)
	for _, layout := range []string{
		"2006-01-02T15:04:05.999999999Z07:00", "2006-01-02T15:04:05.999999999Z0700", "2006-01-02T15:04:05.999999999",
		"2006-01-02T15:04Z07:00", "2006-01-02T15:04", "2006-01-02", "2006-01", "20060102T150405Z0700", "20060102",
	} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}

// Regex is a regular expression.
func Regex() Keyword {
	return format("regex", true, func(s string) bool {
		_, err := regexp.Compile(s)
		return s != "" && err == nil
	})
}

// nameRule is a format whose refusal is Nova's InvalidName.
func nameRule(reason string, good func(s string) bool) Keyword {
	return func(v any) *violation {
		if s, ok := v.(string); ok && good(s) {
			return nil
		}
		return &violation{value: v, whole: true, message: "An invalid 'name' value was provided. The name must be: " + reason}
	}
}

// printable reports whether all of s can be shown; blanks can.
func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) && !unicode.Is(unicode.Zs, r) }) < 0
}

func trimmed(s string) bool { return strings.TrimSpace(s) == s }

// Name is what most things are called.
func Name() Schema {
	return Schema{
		Type("string"), MinLen(1), MaxLen(255),
		nameRule("printable characters. Can not start or end with whitespace.", func(s string) bool { return printable(s) && trimmed(s) }),
	}
}

// LooseName is a name that may begin or end with blanks.
func LooseName() Schema {
	return Schema{
		Type("string"), MinLen(1), MaxLen(255),
		nameRule("printable characters with at least one non space character", func(s string) bool { return printable(s) && strings.TrimSpace(s) != "" }),
	}
}

// ZoneName is the name of an availability zone.
func ZoneName() Schema {
	return Schema{
		Type("string"), MinLen(1), MaxLen(255),
		nameRule("printable characters except :.Can not start or end with whitespace.", func(s string) bool {
			return printable(s) && trimmed(s) && !strings.Contains(s, ":")
		}),
	}
}

const alnum = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// KeyName is the name of a key pair, of letters, digits and those others.
func KeyName(others string) Schema {
	safe := others + alnum
	return Name().With(nameRule("Only expected characters: ["+safe+"]", func(s string) bool {
		return strings.IndexFunc(s, func(r rune) bool { return !strings.ContainsRune(safe, r) }) < 0
	}))
}

// Printable is for descriptions.
func Printable() Keyword {
	return func(v any) *violation {
		if s, ok := v.(string); ok && !printable(s) {
			return violated(v, "%s does not match the printable characters", Repr(v))
		}
		return nil
	}
}

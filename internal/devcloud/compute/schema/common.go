package schema

import "github.com/gantry-project/gantry/internal/devcloud/lazyregexp"

var (
	digits     = lazyregexp.New(`^[0-9]*$`)
	someDigits = lazyregexp.New(`^[0-9]+$`)
	signed     = lazyregexp.New(`^-?[0-9]+$`)
	hostLabel  = lazyregexp.New(`^[a-zA-Z0-9]+[a-zA-Z0-9-]*[a-zA-Z0-9]+$`)
	fqdn       = lazyregexp.New(`^[a-zA-Z0-9-._]*$`)
	tag        = lazyregexp.New(`^[^,/]*$`)
	metaKey    = lazyregexp.New(`^[a-zA-Z0-9-_:. ]{1,255}$`)
)

// MaxInt is the greatest integer of Nova's database.
const MaxInt = 0x7FFFFFFF

// Text-like kinds that many requests have (nova/api/validation/parameter_types.py).

// String is any text.
func String() Schema { return Schema{Type("string")} }

// ID is a UUID.
func ID() Schema { return Schema{Type("string"), UUID()} }

// Boolean is a boolean or a word for one.
func Boolean() Schema {
	return Schema{Type("boolean", "string"), Enum(
		true, "True", "TRUE", "true", "1", "ON", "On", "on", "YES", "Yes", "yes",
		false, "False", "FALSE", "false", "0", "OFF", "Off", "off", "NO", "No", "no")}
}

// Positive is a number from 1 up, or its digits.
func Positive() Schema {
	return Schema{Type("integer", "string"), Pattern(digits, "^[0-9]*$"), Min(1), MinLen(1)}
}

// Natural is a number from 0 up, or its digits.
func Natural() Schema {
	return Schema{Type("integer", "string"), Pattern(digits, "^[0-9]*$"), Min(0), MinLen(1)}
}

// Size is a number from least up that the database can hold, or its digits.
func Size(least int64) Schema {
	return Schema{Type("integer", "string"), Pattern(someDigits, "^[0-9]+$"), Min(least), Max(MaxInt)}
}

// Quota is a limit: -1 is none.
func Quota() Schema {
	return Schema{Type("integer", "string"), Pattern(signed, "^-?[0-9]+$"), Min(-1), Max(MaxInt)}
}

// BootIndex is a number, its digits or null.
func BootIndex() Schema {
	return Schema{Type("integer", "string", "null"), Pattern(signed, "^-?[0-9]+$")}
}

// Hostname is one label.
func Hostname() Schema {
	return Schema{Type("string"), MinLen(2), MaxLen(63), Pattern(hostLabel, hostLabel.String())}
}

// FQDN is the name of a host.
func FQDN() Schema {
	return Schema{Type("string"), MinLen(1), MaxLen(255), Pattern(fqdn, fqdn.String())}
}

// Description is text or null, of at most that many characters.
func Description(longest int) Schema {
	return Schema{Type("string", "null"), MinLen(0), MaxLen(longest), Printable()}
}

// Metadata is an object of texts, which may also be of the other types.
func Metadata(types ...string) Schema {
	return Map(metaKey, metaKey.String(), Type(append([]string{"string"}, types...)...), MaxLen(255))
}

// Tag is one word for a server.
func Tag() Schema {
	return Schema{Type("string"), MinLen(1), MaxLen(60), Pattern(tag, tag.String())}
}

// Address is an IP address.
func Address() Schema {
	return Schema{Type("string"), OneOf(Schema{IPv4()}, Schema{IPv6()})}
}

// Null is null.
func Null() Schema { return Schema{Type("null")} }

// Params is a parameter of a query, which may stand there more than once.
func Params(each Schema) Schema { return Schema{Type("array"), Items(each...)} }

// One is a parameter of a query that stands there once.
func One(each Schema) Schema { return Schema{Type("array"), MaxItems(1), Items(each...)} }

// Digits is the pattern of numbers that may have a sign.
func Digits() Keyword { return Pattern(signed, "^-?[0-9]+$") }

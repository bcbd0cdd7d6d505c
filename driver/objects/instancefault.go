package objects

import "unicode/utf8"

// InstanceFault is the reason of an ERROR that the API shows. Follows
// nova/objects/instance_fault.py, InstanceFault 1.2.
type InstanceFault struct{ *Object }

// maxFaultMessage is the length of instance_faults.message.
const maxFaultMessage = 255

// NewInstanceFault returns a fault to create. message is cut to 255 bytes at a
// character's border; details is for administrators and kept whole.
func NewInstanceFault(uuid, host string, code int, message, details string) InstanceFault {
	f := InstanceFault{New("InstanceFault")}
	f.Set("instance_uuid", uuid)
	f.Set("code", code)
	f.Set("message", cut(message, maxFaultMessage))
	f.Set("details", details)
	f.Set("host", host)
	return f
}

// Wire returns the object.
func (f InstanceFault) Wire() *Object { return f.Object }

// UnmarshalJSON reads an InstanceFault primitive.
func (f *InstanceFault) UnmarshalJSON(raw []byte) error { return read(raw, "InstanceFault", &f.Object) }

// Message is what the tenant reads.
func (f InstanceFault) Message() string { return f.String("message") }

// Code is 500 or the HTTP status of the cause.
func (f InstanceFault) Code() int { return int(f.Int("code")) }

func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}

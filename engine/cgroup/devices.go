package cgroup

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// deviceSet is what rules come to in the form of cgroup v1: a default, and
// exceptions from it. Source: Documentation/admin-guide/cgroup-v1/devices.rst
// and security/device_cgroup.c.
type deviceSet struct {
	allow      bool
	exceptions map[deviceNumber]int32 // access bits
}

// deviceNumber is a key of exceptions; -1 is any.
type deviceNumber struct {
	typ          byte // 'b' or 'c'
	major, minor int64
}

func (n deviceNumber) covers(o deviceNumber) bool {
	return n.typ == o.typ && (n.major < 0 || n.major == o.major) && (n.minor < 0 || n.minor == o.minor)
}

func (n deviceNumber) overlaps(o deviceNumber) bool {
	return n.typ == o.typ && (n.major < 0 || o.major < 0 || n.major == o.major) && (n.minor < 0 || o.minor < 0 || n.minor == o.minor)
}

// line is the form of devices.allow, devices.deny and devices.list.
func (n deviceNumber) line(bits int32) string {
	part := func(n int64) string {
		if n < 0 {
			return "*"
		}
		return fmt.Sprint(n)
	}
	access := ""
	for _, a := range accesses() {
		if bits&a.bit != 0 {
			access += string(a.letter)
		}
	}
	return fmt.Sprintf("%c %s:%s %s", n.typ, part(n.major), part(n.minor), access)
}

// numbers of a rule: type 'a' stands for both.
func (r DeviceRule) numbers() []deviceNumber {
	if r.Type == 'a' {
		return []deviceNumber{{'b', r.Major, r.Minor}, {'c', r.Major, r.Minor}}
	}
	return []deviceNumber{{r.Type, r.Major, r.Minor}}
}

// everything tells whether no device and no access escapes the rule.
func (r DeviceRule) everything() bool {
	return r.Type == 'a' && r.Major < 0 && r.Minor < 0 && accessBits(r.Access) == accessAll
}

// evaluate applies rules in their order to a group that forbids all. A rule
// that takes a part out of an earlier one ("all of major 1, but not 1:3")
// cannot be said to v1, which would ignore it: that is errdefs.ErrUnsupported.
func evaluate(rules []DeviceRule) (deviceSet, error) {
	s := deviceSet{exceptions: map[deviceNumber]int32{}}
	for _, r := range rules {
		if r.everything() {
			s = deviceSet{allow: r.Allow, exceptions: map[deviceNumber]int32{}}
			continue
		}
		for _, n := range r.numbers() {
			bits := accessBits(r.Access)
			if r.Allow != s.allow {
				s.exceptions[n] |= bits
				continue
			}
			for old, has := range s.exceptions {
				switch {
				case !n.overlaps(old) || has&bits == 0:
				case !n.covers(old):
					return s, unsupported(LimitDevices, fmt.Sprintf("cgroup v1 cannot take %s out of %s", n.line(bits), old.line(has)))
				case has&^bits == 0:
					delete(s.exceptions, old)
				default:
					s.exceptions[old] = has &^ bits
				}
			}
		}
	}
	return s, nil
}

// lines of the exceptions, sorted.
func (s deviceSet) lines() []string {
	var out []string
	for n, bits := range s.exceptions {
		out = append(out, n.line(bits))
	}
	slices.SortFunc(out, cmp.Compare)
	return out
}

// writes turn a group with the devices.list old ("" is new, with all allowed)
// into the set. What is in both stays all the time: nothing that is allowed
// before and after is refused meanwhile.
func (s deviceSet) writes(old string) []write {
	allow := func(line string) write { return write{File: "devices.allow", Value: line} }
	deny := func(line string) write { return write{File: "devices.deny", Value: line} }
	var out []write
	lines := s.lines()
	if s.allow {
		out = append(out, allow("a"))
		for _, line := range lines {
			out = append(out, deny(line))
		}
		return out
	}
	have := strings.Split(old, "\n")
	if old == "" || slices.ContainsFunc(have, func(line string) bool { return strings.HasPrefix(line, "a ") }) {
		out = append(out, deny("a"))
		have = nil
	}
	for _, line := range lines {
		if !slices.Contains(have, line) {
			out = append(out, allow(line))
		}
	}
	for _, line := range have {
		n, bits, ok := parseDeviceLine(line)
		if gone := bits &^ s.exceptions[n]; ok && gone != 0 {
			out = append(out, deny(n.line(gone)))
		}
	}
	return out
}

// parseDeviceLine reads a line of devices.list.
func parseDeviceLine(line string) (n deviceNumber, bits int32, ok bool) {
	fields := strings.Fields(line)
	if len(fields) != 3 || fields[0] != "b" && fields[0] != "c" {
		return n, 0, false
	}
	major, minor, ok := strings.Cut(fields[1], ":")
	part := func(s string) int64 {
		if s == "*" {
			return -1
		}
		v := number(s)
		ok = ok && v >= 0
		return v
	}
	n = deviceNumber{fields[0][0], part(major), part(minor)}
	return n, accessBits(fields[2]), ok
}

// Bits of bpf_cgroup_dev_ctx.access_type, in the high half (linux/bpf.h
// BPF_DEVCG_*).
const (
	accMknod, accRead, accWrite = 1, 2, 4
	accessAll                   = accMknod | accRead | accWrite
)

type access struct {
	letter byte
	bit    int32
}

// accesses in the order in which the kernel prints them.
func accesses() [3]access { return [3]access{{'r', accRead}, {'w', accWrite}, {'m', accMknod}} }

func accessBits(s string) (bits int32) {
	for _, a := range accesses() {
		if strings.IndexByte(s, a.letter) >= 0 {
			bits |= a.bit
		}
	}
	return bits
}

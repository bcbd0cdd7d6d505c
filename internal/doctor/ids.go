package doctor

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// idsWanted is how many instances a host should have ids for.
const idsWanted = 1000

// IDs checks the user and group ids that instances get: blocks of that size,
// from first up, to the end of all ids.
func IDs(first, block uint32) Check {
	return Check{
		"id-ranges", "an instance's users would be users of the host too, and each could end processes and read files of the other; or there are too few instances",
		"move the ids of the host below " + fmt.Sprint(first) + ": usermod, /etc/subuid, /etc/subgid; a service in a container needs all ids in its user namespace",
		func(_ context.Context, h *Host) (Level, string) { return h.ids(int64(first), int64(block)) },
	}
}

// lastID is the last id that somebody can have: the one after it means nobody.
const lastID = 1<<32 - 2

func (h *Host) ids(first, block int64) (Level, string) {
	room := int64(1 << 32)
	for _, name := range []string{"proc/self/uid_map", "proc/self/gid_map"} {
		text, err := h.read(name)
		if err != nil {
			return Fail, err.Error()
		}
		room = min(room, blocks(text, first, block))
	}
	found := fmt.Sprintf("for %d instances, from %d up", room, first)
	if room == 0 {
		return Fail, found
	}
	if taken := h.takenIDs(first); len(taken) > 0 {
		const shown = 3
		more := ""
		if len(taken) > shown {
			taken, more = taken[:shown], fmt.Sprintf(" and %d more", len(taken)-shown)
		}
		return Warn, "also used by the host: " + strings.Join(taken, ", ") + more
	}
	if room < idsWanted {
		return Warn, found
	}
	return OK, found
}

// blocks counts the blocks in a map of ids (user_namespaces(7)): ID-inside
// ID-outside length.
func blocks(text string, first, block int64) (n int64) {
	for line := range strings.Lines(text) {
		var inside, outside, length int64
		if _, err := fmt.Sscan(line, &inside, &outside, &length); err != nil {
			continue
		}
		// blocks begin at first and follow one another
		from, to := max(inside-first, 0), min(inside+length-1, lastID)-first+1
		n += max(to/block-(from+block-1)/block, 0)
	}
	return n
}

// takenIDs lists what the host's own files say of ids from first up:
// passwd(5), group(5), subuid(5), subgid(5).
func (h *Host) takenIDs(first int64) (taken []string) {
	for _, file := range []struct {
		name          string
		start, length int // fields
	}{{"etc/passwd", 2, 0}, {"etc/group", 2, 0}, {"etc/subuid", 1, 2}, {"etc/subgid", 1, 2}} {
		text, _ := h.read(file.name) // a host may be without
		for line := range strings.Lines(text) {
			fields := strings.Split(strings.TrimSpace(line), ":")
			if len(fields) <= max(file.start, file.length) {
				continue
			}
			last, err := strconv.ParseInt(fields[file.start], 10, 64)
			if err != nil {
				continue
			}
			if file.length > 0 {
				length, err := strconv.ParseInt(fields[file.length], 10, 64)
				if err != nil || length <= 0 {
					continue
				}
				last += length - 1
			}
			if last >= first && last <= lastID {
				taken = append(taken, fmt.Sprintf("%s of /%s (to %d)", fields[0], file.name, last))
			}
		}
	}
	return taken
}

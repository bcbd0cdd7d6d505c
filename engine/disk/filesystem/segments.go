package filesystem

// segment is a part of a file that holds data.
type segment struct{ offset, end int64 }

const (
	// mostSegments of one file are kept apart. A reader of tar streams holds
	// the list in memory, and Go's takes one of at most 1 MiB.
	mostSegments = 16384
	// leastHole is the shortest hole that is worth one more segment.
	leastHole = 4096
)

// collector makes a list of segments that fits into memory. Where there are
// too many, the shorter holes become zeros.
type collector struct {
	size int64
	list []segment
	last int64 // the end of what was added
	hole int64 // the shortest hole to keep; at least leastHole
}

func (c *collector) add(offset, length int64) error {
	end := offset + length
	if offset < c.last || length <= 0 || end > c.size || end < offset {
		return corrupt("a segment of %d bytes at %d of %d", length, offset, c.size)
	}
	c.last = end
	c.hole = max(c.hole, leastHole)
	c.list = appendSegment(c.list, segment{offset, end}, c.hole)
	for len(c.list) > mostSegments {
		c.hole *= 2
		fewer := c.list[:0]
		for _, s := range c.list {
			fewer = appendSegment(fewer, s, c.hole)
		}
		c.list = fewer
	}
	return nil
}

// appendSegment adds s, as a part of the last one if only a short hole is
// between them.
func appendSegment(list []segment, s segment, hole int64) []segment {
	last := int64(0)
	if len(list) > 0 {
		last = list[len(list)-1].end
	}
	switch {
	case s.offset-last >= hole:
		return append(list, s)
	case len(list) == 0:
		return append(list, segment{0, s.end})
	}
	list[len(list)-1].end = s.end
	return list
}

// data is the length of all segments.
func (c *collector) data() (n int64) {
	for _, s := range c.list {
		n += s.end - s.offset
	}
	return n
}

package btrfs

// ParseItems says how many items are in the result of a search.
func ParseItems(buf []byte, count uint32) (int, error) {
	items, err := parseItems(buf, count)
	return len(items), err
}

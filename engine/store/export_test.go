package store

// Decode is decode, for the fuzz target.
func Decode(stored []byte, v any) error { return decode(stored, v) }

package doctor

// SpaceLevel is spaceLevel, for sizes that this machine does not have.
func SpaceLevel(free, total int64) (Level, string) { return spaceLevel(free, total) }

package snapshot

// LimitKind says what keeps a snapshot within its limit.
type LimitKind string

// The kinds of limits.
const (
	// LimitNone: nothing does; Prepare refuses any limit.
	LimitNone LimitKind = "none"
	// LimitProject: a project quota of ext4 or xfs.
	LimitProject LimitKind = "project-quota"
	// LimitQgroup: a quota group of btrfs.
	LimitQgroup LimitKind = "btrfs-qgroup"
	// LimitLoop: a file system of its own in a sparse file.
	LimitLoop LimitKind = "loop-file"
)

// IDMethod says how ids on disk become the container's.
type IDMethod string

// The methods.
const (
	// IDsMapped: by id-mapped mounts; nothing on disk changes.
	IDsMapped IDMethod = "id-mapped"
	// IDsShifted: files are re-owned on disk, so containers share no layers.
	IDsShifted IDMethod = "shifted"
)

// Description of a store, for the log and for doctor.
type Description struct {
	// Name of the back end: overlay, overlay-userns, btrfs or copy.
	Name string
	// Root of the store, and the type of the file system it is on.
	Root, FileSystem string
	IDs              IDMethod
	Limit            LimitKind
	// What Limit can bound.
	LimitBytes, LimitInodes bool
	// LimitGrows and LimitShrinks are what SetLimit can do to a limit of bytes.
	LimitGrows, LimitShrinks bool
	// ChangesCopied is true when Changes makes a copy.
	ChangesCopied bool
	// SharesLayers is true when disks over one chain have its data once.
	SharesLayers bool
	// Notes say why it is like this, and what that costs.
	Notes []string
}

// Offers reports whether the store can enforce the limit.
func (d Description) Offers(l Limit) bool {
	return (l.Bytes <= 0 || d.LimitBytes) && (l.Inodes <= 0 || d.LimitInodes)
}

package oci

import "strings"

// MountOptions are the options of mounts that have a meaning of their own;
// others are handed to the file system. Source: runc(8) and the man pages that
// config.md, Mounts, names.
func MountOptions() []string {
	return strings.Fields(`acl async atime bind defaults dev diratime dirsync exec idmap iversion lazytime loud mand noacl
		noatime nodev nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private
		ratime rbind rdev rdiratime relatime remount rexec ridmap rnoatime rnodev rnodiratime rnoexec rnorelatime
		rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow
		runbindable rw shared silent slave strictatime suid symfollow sync tmpcopyup unbindable`)
}

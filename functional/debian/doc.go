// Package debian tests with the disk images of real Debian suites: what the
// readers show of them is compared entry by entry with what the kernel shows,
// they boot as system instances of the embedded cloud, and a snapshot of such an
// instance boots as a virtual machine, from its own boot loader on. A snapshot
// of an instance in which PostgreSQL writes restores a database that lacks no
// acknowledged row. Debian's docker and podman run containers in an instance.
//
// It needs a mirror of Debian, some minutes for each suite, and QEMU, so it is no
// part of CI: make debian.
package debian

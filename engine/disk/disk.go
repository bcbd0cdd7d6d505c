// Package disk reads the root file system out of a disk image: a raw or qcow2
// file with a GPT, an MBR or no partition table, and an ext, XFS or btrfs file
// system on it.
//
//	qcow2      the image format, as a plain io.ReaderAt
//	partition  GPT and MBR
//	filesystem the contract of file system readers, and their tar stream
//	jail       all of it in a process that can do nothing else
//
// Nothing is mounted and nothing is executed: the bytes of a tenant are parsed
// in Go. The image needs no change; its boot loader, kernel and fstab are files
// like others.
package disk

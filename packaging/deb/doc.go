// Package deb tests the Debian package that build makes: what is in it, and what
// its scripts do. make deb makes it of real programs, and functional/package
// installs those in a machine of its own.
package deb

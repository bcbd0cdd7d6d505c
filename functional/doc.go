// Package functional holds the end-to-end tests: a real OpenStack brought up by
// functional/controlplane, the gantry binary as its compute service, and the
// public interfaces that operators and tenants use. Its tests carry the build
// tag functional and run by "make functional", as root, in network and mount
// namespaces of their own.
package functional

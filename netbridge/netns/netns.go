// Package netns opens network namespaces and runs functions inside them.
//
// Prefer a netlink socket opened inside (netbridge/link) to a thread that is
// inside: Do is for what only the thread's own namespace decides, such as
// opening that socket and /proc/sys/net. Used by netbridge and by tests; it
// makes no decision about who owns a namespace.
package netns

// Package tracker accounts for the resources of this host: it refuses builds
// that do not fit, counts what instances use, and keeps the compute node record
// and the placement provider of the host in agreement with the truth.
//
// Placement decides where an instance goes; the claim here is the host's own
// last word against messages that never went through it. The UUID of the node,
// which is also its provider's, lives in a file (identity.go), so that a lost
// record does not make a second provider.
//
// Pure parts (fit.go, usage.go, node.go, inventory.go, identity.go) decide;
// update.go, claim.go and heal.go act. The package imports contracts only.
//
// Source: nova/compute/resource_tracker.py, nova/compute/claims.py,
// nova/compute/stats.py and nova/virt/node.py.
package tracker

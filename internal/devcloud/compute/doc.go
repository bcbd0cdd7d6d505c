// Package compute is the embedded cloud's Compute API v2.1, microversions 2.1 to
// 2.93 (Zed): what nova-api is to Nova.
//
// It owns what Nova's API database holds (flavors, key pairs, aggregates, server
// groups, quotas); instances, services and what hangs on them are the cell's
// (internal/devcloud/cell). It tells the conductor to build and compute hosts to
// do the rest: by the messages of Nova's compute RPC, and by nothing else.
//
// One noun is one file in the same order: schemas, routes, verbs, view, rows.
// What is asked is checked before anything changes, first by the schema (package
// schema), then by role. Roles are those of Nova's new defaults: a reader looks,
// a member changes what is its project's, an admin does all.
package compute

// Package placement is the Placement API of the embedded cloud: resource
// providers, inventories, traits, aggregates, allocations with generations and
// allocation candidates, microversions 1.0 to 1.39 (placement's
// rest_api_version_history).
//
// All capacity is decided here and in one transaction with the write of the
// allocation. State is one SQLite database. The scheduler uses the Go methods
// Candidates, Allocate and Free, which are what the API does.
package placement

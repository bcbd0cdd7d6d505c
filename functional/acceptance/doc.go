// Package acceptance runs gophercloud's acceptance tests, as they are in its
// module, against a gantry cloud. A test has to pass, or stands with its reason in
// excluded.txt; one that stands there and passes fails the run.
package acceptance

// Command imagebench times imports and commits of images beside docker, podman,
// containerd and plain tar in one run, interleaved, on one machine. It prints a
// table and the bars that are to hold, as ratios. functional/bench-images makes
// the namespaces that it runs in.
package main

// Command enginebench times gantry's engine beside crun, runc, docker and
// podman on one machine in one run, the contenders taking turns, and prints the
// medians, their ratios and the bars that the project has set itself.
//
// It is run by functional/bench-engine, which brings the peers, a private
// mount, network and pid namespace and the bare C program (floor/floor.c) that makes
// the system calls of one container start and nothing else. Root only.
package main

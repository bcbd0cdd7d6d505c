// guestbench times how long a whole system takes from the command that starts
// it to its being up: gantry, podman and LXC boot the same Debian, in turns, in
// one run. functional/bench-guest prepares what it needs.
package main

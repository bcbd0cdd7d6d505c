// Package crash holds the tests that kill: the gantry binary with its engine,
// its keeper and the keeper's guard, SIGKILL to each of them at each step of
// each operation (TestKilledAtEachStep), and once a second while containers come
// and go (TestKillsUnderChurn). What has to hold: no container ends, no byte of a
// console is lost or comes twice, how containers end is known, an interrupted
// operation is whole or undone, and nothing is left in the end: no process,
// mount, pinned namespace, control group, descriptor or file.
//
// The tests carry the build tag functional, need root and GANTRY_BINARY, and no
// OpenStack. "make crash" runs the long form. GANTRY_CRASH_TIME and
// GANTRY_CRASH_CONTAINERS say how long is killed, and among how many.
package crash

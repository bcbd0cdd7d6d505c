// Command cloudbench times gantry cloud, started by itself with states of its
// own, and prints the bars that the project has set for it: from the start of
// the process to ready, from POST /servers to ACTIVE one after the other and a
// hundred at once, memory with a hundred servers, and a list of a thousand.
//
// It is run by functional/bench-cloud, in mount, network and pid namespaces of
// its own: all processes of the binary that it sees are its own. Root only.
package main

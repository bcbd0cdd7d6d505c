// Package daemon is the composition root: the one place that names concrete
// types together. It builds what a verb of the command line needs from the
// configuration, runs it, and takes it down in the reverse order.
//
// adapters.go holds the small types that make one package's concrete type fit
// another's interface. Everything else here is wiring: a decision found here is
// in the wrong place.
package daemon

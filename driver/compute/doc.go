// Package compute is the compute service: the methods that Nova calls on a
// host, and the life of each instance in the control plane's terms.
//
// Manager holds one table of method names and handlers (methods.go) that
// serves RPC 6.x, 5.x and the base API. Each verb has a file: build, terminate,
// power, reboot, pause, snapshot, console, diagnostics, events. States are in
// states.go, the one translation of error classes to Nova's exceptions in
// errors.go, and what the manager needs from others in deps.go.
//
// The package knows nothing of containers: it drives a driver.ComputeDriver.
// It may import the contracts under driver and the clients of the control
// plane, never driver/local, engine or netbridge (which instances are made of).
//
// Lock order: the lock of an instance first, then whatever the driver or the
// tracker takes. The lock of one instance is never taken under that of another.
package compute

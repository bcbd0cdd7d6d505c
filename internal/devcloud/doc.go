// Package devcloud is the embedded cloud: identity, image, compute, network
// and placement APIs in one process, with the state in SQLite below one
// directory.
//
// Each service is a package of its own with an http.Handler that speaks the
// true protocol; rest is what their HTTP has in common and sqldb how they keep
// their state. Between them they are Go values, declared as interfaces by who
// uses them and joined here. To a compute service the cloud is what a real
// OpenStack is: messages of oslo.messaging (driver/messaging, over any
// Transport) and the REST APIs. Nothing here imports driver/compute, the engine
// or a network of the host: what the host must do for a network is behind
// network.Fabric.
//
// internal/daemon composes it with a compute service into `gantry cloud`.
package devcloud

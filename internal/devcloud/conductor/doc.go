// Package conductor is the embedded cloud's nova-conductor: it answers what
// compute hosts ask of the cell over RPC, with Nova's objects and exceptions,
// and does the tasks that are between the API and a compute host, such as a
// build.
//
//   - server.go, dispatch.go: the RPC server of topics conductor and scheduler
//   - instance.go, filters.go and one file for each other kind of object with
//     its remotable methods; methods.go is the table of all
//   - build.go, reschedule.go, delete.go, recover.go: the tasks
//
// Source: nova/conductor/{manager,rpcapi}.py, nova/scheduler/{manager,utils}.py
// and nova/objects/*.py of Zed.
package conductor

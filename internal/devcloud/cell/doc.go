// Package cell is the database of the embedded cloud's one cell, what
// nova_cell1 is to Nova: instances with everything that hangs on them
// (request specs, disks, ports, network info, faults, actions), migrations,
// services, compute nodes and console tokens.
//
// Rows are versioned objects (driver/objects) with all fields of their schema
// set, kept as JSON beside the columns that are searched. Objects that the
// store returns are shared: they are read and never changed; who wants to
// change one clones it. What is changed goes through the store's methods, which
// are atomic, and safe for concurrent use.
//
// It knows no API, no scheduler and no wire. internal/devcloud/conductor serves
// it to compute hosts, internal/devcloud/compute to tenants. Source:
// nova/db/main/{models,api}.py and nova/objects/*.py of Zed.
package cell

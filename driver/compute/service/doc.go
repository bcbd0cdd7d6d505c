// Package service keeps the record by which the control plane knows this
// compute host: it registers the host at start and reports that it lives.
//
// Register waits for a conductor, chooses the service version that the control
// plane accepts and makes the record; Heartbeat counts it up. Neither takes or
// runs messages. Only internal/daemon imports this package.
//
// Source: nova/service.py (Service.start), nova/objects/service.py,
// nova/servicegroup/drivers/db.py (_report_state) and nova/conductor/api.py
// (wait_until_ready).
package service

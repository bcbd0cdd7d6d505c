package messaging

import "time"

// Connected is a transport that has connections. The methods may be called at
// any time from any goroutine and do not wait for the broker.
type Connected interface {
	Connections() []Connection
}

// Connection is how one connection to the broker is doing.
type Connection struct {
	// Purpose is a word for the log.
	Purpose string
	// Up says that there is a connection now.
	Up bool
	// Phase is what is being done about it, since Since. It ends at Until at the
	// latest; zero: when the broker ends it. Longer means that whoever keeps the
	// connection is stuck.
	Phase        string
	Since, Until time.Time
}

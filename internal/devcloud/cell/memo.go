package cell

import (
	"sync"

	"github.com/gantry-project/gantry/driver/objects"
)

const (
	// memoSize bounds how many instances are kept decoded. An instance takes
	// about 15 KiB so.
	memoSize = 2000
	// mostUserData is how much user data, in bytes, an instance has that is
	// kept: with it a tenant could fill the memory.
	mostUserData = 16 << 10
)

// memo remembers decoded rows by id and revision: the database says which
// revision is true, the memo only saves the decoding. Only committed revisions
// get in.
type memo struct {
	mu   *sync.Mutex
	rows map[int64]remembered // +checklocks:mu
}

type remembered struct {
	rev int64
	obj *objects.Object
}

func newMemo() memo { return memo{mu: &sync.Mutex{}, rows: map[int64]remembered{}} }

// get returns the object of that revision, nil if it is not known.
func (m *memo) get(id, rev int64) *objects.Object {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.rows[id]; r.rev == rev {
		return r.obj
	}
	return nil
}

func (m *memo) put(id, rev int64, o *objects.Object) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rows[id].rev > rev {
		return
	}
	if len(o.String("user_data")) > mostUserData {
		delete(m.rows, id)
		return
	}
	if len(m.rows) >= memoSize {
		for other := range m.rows { // any will do
			delete(m.rows, other)
			break
		}
	}
	m.rows[id] = remembered{rev, o}
}

package layer

import (
	"os"
	"runtime"
	"sync"
)

// crew copies files on several processors. Making a file takes long in the
// kernel, and most of that does not wait for the other files of its directory.
type crew struct {
	jobs  chan job
	hands sync.WaitGroup
}

type job struct {
	of *batch
	do func(c *copier) error
}

// newCrew begins one whose copiers copy to the root to.
func newCrew(to *os.File) *crew {
	c := &crew{jobs: make(chan job, 64)}
	for range min(runtime.GOMAXPROCS(0), 4) {
		c.hands.Go(func() {
			mine := newCopier(to, true)
			for j := range c.jobs {
				j.of.ended(j.do(mine))
			}
		})
	}
	return c
}

// close ends the crew, which has nothing to do any more.
func (c *crew) close() {
	close(c.jobs)
	c.hands.Wait()
}

// batch is work of which somebody waits for the end.
type batch struct {
	crew *crew
	left sync.WaitGroup
	mu   sync.Mutex
	err  error // the first
}

func (c *crew) batch() *batch { return &batch{crew: c} }

// do has fn run by one of the crew. It must not wait for others.
func (b *batch) do(fn func(c *copier) error) {
	b.left.Add(1)
	b.crew.jobs <- job{b, fn}
}

func (b *batch) ended(err error) {
	b.mu.Lock()
	if b.err == nil {
		b.err = err
	}
	b.mu.Unlock()
	b.left.Done()
}

// wait waits for all of it and returns the first error.
func (b *batch) wait() error {
	b.left.Wait()
	return b.err
}

//go:build functional

package crash

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gantry-project/gantry/engine/api"
)

// The form that every run has; the environment asks for a longer one.
const (
	churnTime       = 20 * time.Second
	churnContainers = 20
)

func fromEnv(t *testing.T) (length time.Duration, containers int) {
	t.Helper()
	length, containers = churnTime, churnContainers
	var err error
	if text := os.Getenv("GANTRY_CRASH_TIME"); text != "" {
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	if text := os.Getenv("GANTRY_CRASH_CONTAINERS"); text != "" {
		if containers, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	return length, containers
}

// TestKillsUnderChurn kills the service, the keeper or the guard once a second
// while containers are made, entered, ended and deleted.
func TestKillsUnderChurn(t *testing.T) {
	length, containers := fromEnv(t)
	h := newHost(t)
	talkers := make([]*talker, 4)
	for i := range talkers {
		talkers[i] = newTalker(t, h, fmt.Sprint("talker", i))
	}
	c := &churn{t: t, h: h, turns: make(chan struct{}, 4)}
	c.round(containers)
	before := h.weigh(t)

	stop := make(chan struct{})
	var slots sync.WaitGroup
	halt := sync.OnceFunc(func() {
		close(stop)
		slots.Wait()
	})
	defer halt()
	for i := range containers {
		slots.Go(func() {
			for n := 0; !c.failed.Load(); n++ {
				select {
				case <-stop:
					return
				default:
					c.live(fmt.Sprintf("c%d-%d", i, n), n)
				}
			}
		})
	}
	took := c.kill(length, talkers)
	halt()
	if t.Failed() {
		return
	}
	for victim, all := range took {
		t.Logf("%s: %d kills; answered again %s", victim, len(all), spread(all))
	}
	t.Logf("operations: %d creates, %d starts, %d execs, %d ends, %d deletes; %d requests repeated; %d exits of commands went unheard",
		c.creates.Load(), c.starts.Load(), c.execs.Load(), c.ends.Load(), c.deletes.Load(), c.again.Load(), c.unheard.Load())

	c.round(containers)
	if t.Failed() {
		return
	}
	h.settle(t, before)
	for _, k := range talkers {
		t.Logf("%s: %d lines", k.id, k.finish(t))
	}
	h.close(t)
}

// weight is what a settled engine holds.
type weight struct{ service, keeper, guard, things, processes int }

func (h *host) weigh(t *testing.T) weight {
	t.Helper()
	h.api.Close()
	hello := h.hello(t)
	return weight{
		descriptors(t, h.service.Process.Pid), descriptors(t, hello.Pid), descriptors(t, hello.Guard),
		len(h.things(t)), hello.Processes,
	}
}

// settle waits until the engine holds no more than it did: namespaces for the
// next start, which it may not have had then, are gone after a minute.
func (h *host) settle(t *testing.T, before weight) {
	t.Helper()
	var now weight
	until(t, 3*patience, "the engine holds what it did", func() bool {
		now = h.weigh(t)
		t.Log(now)
		return now.service <= before.service && now.keeper <= before.keeper && now.guard <= before.guard &&
			now.things == before.things && now.processes == before.processes
	})
	t.Logf("before %+v, after %+v", before, now)
}

// churn lets containers live.
type churn struct {
	t      *testing.T
	h      *host
	turns  chan struct{} // bounds how many requests are made at a time
	failed atomic.Bool

	creates, starts, execs, ends, deletes, again, unheard atomic.Int64
}

// round is one life of each container, and no kill.
func (c *churn) round(containers int) {
	var all sync.WaitGroup
	for i := range containers {
		all.Go(func() { c.live(fmt.Sprint("r", i), i) })
	}
	all.Wait()
}

// kill kills once a second, and returns how long it took until requests that
// need all parts of the engine were answered again.
func (c *churn) kill(length time.Duration, talkers []*talker) map[string][]time.Duration {
	took := map[string][]time.Duration{}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	seed := uint64(time.Now().UnixNano())
	c.t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	for end := time.Now().Add(length); time.Now().Before(end) && !c.failed.Load(); {
		<-tick.C
		victim := []string{"service", "keeper", "guard"}[dice.IntN(3)]
		began := time.Now()
		c.t.Logf("%s kill %s", began.UTC().Format(time.StampMilli), victim)
		await := func() {}
		switch victim {
		case "service":
			c.h.end(c.t, syscall.SIGKILL)
			c.h.start(c.t, "")
		case "keeper":
			await = c.h.killKeeper(c.t)
		case "guard":
			await = c.h.killGuard(c.t)
		}
		k := talkers[dice.IntN(len(talkers))]
		until(c.t, patience, "the engine answers", func() bool {
			ctx, cancel := within(c.t)
			defer cancel()
			return c.h.api.Resize(ctx, k.id, api.Size{Rows: 24, Columns: 80}) == nil
		})
		took[victim] = append(took[victim], time.Since(began))
		await()
		k.advance(c.t)
	}
	return took
}

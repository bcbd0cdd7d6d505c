package linux

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
)

// monitorSlack is how much later than it asked for the monitor thread may be
// woken, in nanoseconds.
const monitorSlack = "500000"

// CalmMonitor lets the monitor thread of Go's runtime sleep longer. While
// anything happens it wakes every 20 us, to see whether a system call keeps a
// processor that somebody else could use: a tenth of the processor time of a
// program that makes many calls of a few hundred us each. With a timer slack
// (prctl(2), PR_SET_TIMERSLACK) it looks twice a millisecond. Its other duties
// have periods of 10 ms and more.
//
// The thread is the first that the runtime starts; should that change, another
// one is woken from timed sleeps half a millisecond late, no more. It needs
// CAP_SYS_NICE (proc_pid_timerslack_ns(5)).
func CalmMonitor() error {
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	var threads []int
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil {
			return fmt.Errorf("thread %q: %w", e.Name(), err)
		}
		threads = append(threads, id)
	}
	slices.Sort(threads)
	if len(threads) < 2 {
		return errors.New("the runtime has no monitor thread")
	}
	return os.WriteFile(fmt.Sprintf("/proc/%d/timerslack_ns", threads[1]), []byte(monitorSlack), 0)
}

package doctor

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Clock is how the kernel keeps the time.
type Clock struct {
	// Synchronised says that somebody (NTP, PTP) keeps it right.
	Synchronised bool
	// Error is how far it may be off then.
	Error time.Duration
}

// KernelClock asks the kernel (adjtimex(2)) and changes nothing.
func KernelClock() (Clock, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return Clock{}, os.NewSyscallError("adjtimex", err)
	}
	const timeError = 5 // TIME_ERROR of timex.h
	return Clock{
		Synchronised: state != timeError && t.Status&unix.STA_UNSYNC == 0,
		Error:        time.Duration(t.Maxerror) * time.Microsecond,
	}, nil
}

// clockError is more than tokens and reports of being up notice.
const clockError = time.Second

func clockSynchronised(_ context.Context, h *Host) (Level, string) {
	c, err := h.Clock()
	switch {
	case err != nil:
		return Warn, err.Error()
	case !c.Synchronised:
		return Warn, "not synchronised"
	case c.Error > clockError:
		return Warn, fmt.Sprintf("synchronised, but may be off by %s", c.Error.Round(time.Millisecond))
	}
	return OK, "synchronised"
}

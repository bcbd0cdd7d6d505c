package process_test

import "golang.org/x/sys/unix"

// arm64 has no call of its own for it.
const mkdirCall = unix.SYS_MKDIRAT

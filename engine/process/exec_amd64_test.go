package process_test

import "golang.org/x/sys/unix"

const mkdirCall = unix.SYS_MKDIR

package process

import (
	"golang.org/x/sys/unix"
)

// placeCgroups takes the control groups' files along.
func (c *compiler) placeCgroups() {
	for _, f := range c.spec.CgroupFiles {
		c.cgroups = append(c.cgroups, c.placeFile("control group", f))
	}
}

// joinCgroups moves the child, before it forks, with the rights of whoever
// opened the files.
func (c *compiler) joinCgroups() {
	for _, fd := range c.cgroups {
		c.call("join control group", unix.SYS_WRITE, fd, c.str("0"), num(1))
	}
	for _, fd := range c.cgroups {
		c.close("close control group", fd)
	}
}

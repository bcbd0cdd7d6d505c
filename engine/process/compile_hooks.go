package process

import (
	"encoding/binary"
	"encoding/json"
	"os"

	"golang.org/x/sys/unix"
)

// hostHooks holds the child back, mounts made and root not entered, until the
// runner has run the hooks that belong there.
func (c *compiler) hostHooks() {
	h := &c.spec.Hooks
	if len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer) > 0 {
		c.sync("run hooks", recordMounted)
	}
}

// gateNote tells whoever opens a gate what is behind it. It travels from the
// child as a length (32 bits, little endian) and JSON, with the control groups
// for the hooks as descriptors.
type gateNote struct {
	// Command is Args[0], for an error.
	Command string
	// Hooks are those of startContainer, State what they get on their standard
	// input but for status and pid, Rights a Spec of their rights.
	Hooks  []Hook          `json:",omitempty"`
	State  json.RawMessage `json:",omitempty"`
	Rights *Spec           `json:",omitempty"`
}

// maxGateNote bounds what is read: a filter is the largest part of it.
const maxGateNote = 4 << 20

func (c *compiler) gateNote() []byte {
	note := gateNote{Command: c.spec.Args[0]}
	if h := &c.spec.Hooks; len(h.StartContainer) > 0 {
		note.Hooks, note.State, note.Rights = h.StartContainer, h.State("", 0), c.spec.rights()
	}
	text, err := json.Marshal(&note)
	if err != nil { // the state is no JSON; hooks of a gate need it
		note.State = nil
		text, _ = json.Marshal(&note)
	}
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(text))), text...)
}

// rights is the part of s that limits what its processes may do.
func (s *Spec) rights() *Spec {
	return &Spec{
		UID: s.UID, GID: s.GID, Groups: s.Groups, Umask: s.Umask,
		Capabilities: s.Capabilities, Sets: s.Sets, NoNewPrivs: s.NoNewPrivs,
		Seccomp: s.Seccomp, SeccompFlags: s.SeccompFlags &^ unix.SECCOMP_FILTER_FLAG_NEW_LISTENER,
	}
}

// waitAtGate says that the child has come to its gate, and waits for a
// connection that sends one byte; others are told the same and forgotten. From
// then on the connection is the status socket.
func (c *compiler) waitAtGate() {
	msg, _ := c.record(recordGate, "waiting")
	c.call("report gate", unix.SYS_WRITE, c.status(), msg, num(recordSize))

	text := c.gateNote()
	note := c.buf(text, "note")
	hdr, fds := c.rightsMessage("{note}", note, len(text), len(c.kept))
	for i, fd := range c.kept {
		binary.LittleEndian.PutUint32(c.data[fds+4*i:], uint32(fd.num))
	}
	conn := c.slot("connection")
	again := c.here()
	c.call("wait at gate", unix.SYS_ACCEPT4, c.gate, num(0), num(0), num(unix.SOCK_CLOEXEC)).to(conn)
	c.call("wait at gate", unix.SYS_SENDMSG, conn, hdr, num(unix.MSG_NOSIGNAL)).ignore(unix.EPIPE, unix.ECONNRESET)
	gone := c.jumpIgnored()
	c.call("wait at gate", unix.SYS_READ, conn, c.buf(make([]byte, 8), "answer"), num(1)).ignore(unix.ECONNRESET)
	reset, closed := c.jumpIgnored(), c.jumpZero()
	c.call("pass the gate", unix.SYS_DUP3, conn, c.status(), num(unix.O_CLOEXEC))
	c.close("pass the gate", conn)
	open := c.jumpZero()
	for _, j := range []jump{gone, reset, closed} {
		c.land(j)
	}
	c.close("wait at gate", conn)
	c.backZero(again)
	c.land(open)
	c.close("close gate", c.gate)
	for _, fd := range c.kept {
		c.close("close control group", fd)
	}
}

// compileHook makes a program that runs a hook as a process of its own inside
// the container of t: before the root is entered with all rights there (rights
// is nil), afterwards with those of the command.
func compileHook(h *Hook, t *target, cgroups []*os.File, state *os.File, rights *Spec, facts facts) *Program {
	spec := &Spec{Args: hookArgs(h), Env: h.Env, CgroupFiles: cgroups, Stdio: [3]*os.File{state}}
	if rights != nil {
		right := *rights
		right.Args, right.Env, right.CgroupFiles, right.Stdio = spec.Args, spec.Env, spec.CgroupFiles, spec.Stdio
		spec = &right
	}
	c := &compiler{Program: newProgram(), spec: spec, facts: facts, target: t, dirs: map[string]value{}}
	c.joinTarget()
	c.stdio()
	if rights != nil {
		if spec.Umask != nil {
			c.call("set umask", unix.SYS_UMASK, num(*spec.Umask))
		}
		c.credentials()
	}
	c.resetSignals()
	c.execute([]string{h.Path})
	return c.Program
}

func hookArgs(h *Hook) []string {
	if len(h.Args) == 0 {
		return []string{h.Path}
	}
	return h.Args
}

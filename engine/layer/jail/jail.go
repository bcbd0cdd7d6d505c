// Package jail unpacks layers in a child process that can do nothing else
// (engine/jail): six capabilities over ids that nothing on the host belongs to,
// the target directory as its root, and about ninety system calls.
//
// What the child cannot do, the attributes of opaque directories, it names, and
// the parent does it. It imports engine/jail and engine/layer of ours.
// docs/unpacking.md has the reasons and what it costs.
package jail

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/jail"
	"github.com/gantry-project/gantry/engine/layer"
)

// name of the work.
const name = "layer"

// Unpacker unpacks layers. Its methods are safe for concurrent use.
type Unpacker struct{ jail *jail.Jail }

// New returns an Unpacker whose children are of the jail.
func New(j *jail.Jail) *Unpacker { return &Unpacker{j} }

// Work is what the child does.
func Work() jail.Work {
	return jail.Work{
		Name: name,
		Capabilities: 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID | 1<<unix.CAP_SETFCAP |
			1<<unix.CAP_SYS_CHROOT,
		Calls: []uintptr{
			unix.SYS_PWRITE64, unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_MKDIRAT, unix.SYS_MKNODAT, unix.SYS_UNLINKAT, unix.SYS_LINKAT,
			unix.SYS_SYMLINKAT, unix.SYS_READLINKAT, unix.SYS_FCHOWN, unix.SYS_FCHOWNAT, unix.SYS_FCHMOD, unix.SYS_FCHMODAT,
			unix.SYS_FSETXATTR, unix.SYS_FGETXATTR, unix.SYS_FLISTXATTR, unix.SYS_NEWFSTATAT, unix.SYS_STATX, unix.SYS_FSTATFS,
			unix.SYS_FTRUNCATE, unix.SYS_UTIMENSAT, unix.SYS_FCHDIR, unix.SYS_GETCWD, unix.SYS_FREMOVEXATTR, unix.SYS_GETDENTS64,
			unix.SYS_DUP, unix.SYS_DUP3,
		},
		Do: unpack,
	}
}

// result is what the child says.
type result struct {
	Result layer.Result
	// Opaque directories, which the parent has to mark.
	Opaque []string
}

// unpack reads the stream.
func unpack(ctx context.Context, arg json.RawMessage, target *os.File) (any, error) {
	var limits layer.Limits
	if err := json.Unmarshal(arg, &limits); err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}
	stream, err := newTaker(os.Stdin, os.Stdout)
	if err != nil {
		return nil, err
	}
	var rep result
	rep.Result, err = layer.Apply(ctx, target, stream, layer.Options{
		Limits: limits, Verified: "unused", Ahead: true, Opaque: func(path string) { rep.Opaque = append(rep.Opaque, path) },
	})
	return rep, err
}

// Apply is layer.Apply in a child. Its errors are the same, and
// errdefs.ErrUnsupported if the host cannot make such a child or the file
// system has no id-mapped mounts.
func (u *Unpacker) Apply(ctx context.Context, dir *os.File, r io.Reader, opts layer.Options) (layer.Result, error) {
	rep, id, err := u.run(ctx, dir, r, opts)
	if err != nil {
		return layer.Result{}, err
	}
	if err := layer.MarkOpaque(dir, rep.Opaque); err != nil {
		return layer.Result{}, fmt.Errorf("unpack layer: %w", err)
	}
	rep.Result.DiffID = opts.Verified
	if opts.Verified == "" {
		rep.Result.DiffID = id
	}
	return rep.Result, nil
}

// run starts the child, feeds it the stream and takes its reply. An error of
// the stream comes before what the child made of it.
func (u *Unpacker) run(ctx context.Context, dir *os.File, r io.Reader, opts layer.Options) (result, digest.Digest, error) {
	var rep result
	b, err := newBelt()
	if err != nil {
		return rep, "", fmt.Errorf("unpack layer: %w", err)
	}
	defer func() { _ = b.close() }()
	c, err := u.jail.Start(ctx, jail.Run{Work: name, Arg: opts.Limits, Dir: dir, Stdin: b.memory, Stdout: b.theirs, FileBytes: opts.Limits.Bytes})
	if err != nil {
		return rep, "", fmt.Errorf("unpack layer: %w", err)
	}
	if err := b.handed(); err != nil {
		c.Kill()
		return rep, "", errors.Join(fmt.Errorf("unpack layer: %w", err), c.Wait(ctx, &rep))
	}
	fed := make(chan error, 1)
	h := sha256.New()
	go func() {
		if opts.Verified == "" {
			r = io.TeeReader(r, h)
		}
		fed <- errors.Join(b.feed(r), b.ours.Close())
	}()
	err = c.Wait(ctx, &rep)
	ferr := <-fed
	switch {
	case ctx.Err() == nil && ferr != nil && !errors.Is(ferr, errGone):
		return rep, "", fmt.Errorf("unpack layer: %w", ferr)
	case err != nil:
		return rep, "", err
	case ferr != nil:
		return rep, "", ferr
	}
	return rep, digest.NewDigest(digest.SHA256, h), nil
}

package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// Dumps are crash-dumps/UUID.core in the store. They hold the memory of tenants.
const dumpSuffix = ".core"

func (d *Driver) dumps() string { return filepath.Join(d.opts.StorePath, "crash-dumps") }

func (d *Driver) dumpOf(uuid driver.InstanceUUID) string {
	return filepath.Join(d.dumps(), string(uuid)+dumpSuffix)
}

// CrashDump implements driver.CrashDumper.
func (d *Driver) CrashDump(ctx context.Context, uuid driver.InstanceUUID) error {
	if err := d.crashDump(ctx, uuid); err != nil {
		return fmt.Errorf("crash dump of %s: %w", uuid, err)
	}
	return nil
}

func (d *Driver) crashDump(ctx context.Context, uuid driver.InstanceUUID) (err error) {
	if d.opts.CrashDumpBytes <= 0 {
		return errdefs.WithPublic(fmt.Errorf("crash_dump_bytes is 0: %w", errdefs.ErrUnsupported), "This host keeps no crash dumps.")
	}
	if err := os.MkdirAll(d.dumps(), 0o700); err != nil {
		return err
	}
	var free unix.Statfs_t
	if err := unix.Statfs(d.dumps(), &free); err != nil {
		return fmt.Errorf("room for it: %w", err)
	}
	// half of what is free stays so
	limit := min(d.opts.CrashDumpBytes, int64(free.Bavail)*free.Bsize/2)
	to, err := os.CreateTemp(d.dumps(), string(uuid)+".*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(to.Name()))
		}
	}()
	core, err := d.opts.Engine.CoreDump(ctx, container(uuid), to, limit)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		err = fmt.Errorf("%w: %w", errdefs.ErrExhausted, err)
	}
	if err = errors.Join(err, to.Close()); err != nil {
		return err
	}
	if err := os.Rename(to.Name(), d.dumpOf(uuid)); err != nil {
		return err
	}
	d.opts.Log.Warn().Str(logging.Instance, string(uuid)).Str("file", d.dumpOf(uuid)).Int64("bytes", core.Bytes).Int64("missing", core.Missing).
		Msg("crash dump kept")
	return d.pruneDumps()
}

// pruneDumps removes the oldest dumps until the rest takes no more than it may.
func (d *Driver) pruneDumps() error {
	type dump struct {
		name    string
		at, use int64
	}
	entries, err := os.ReadDir(d.dumps())
	if err != nil {
		return err
	}
	var all []dump
	var sum int64
	for _, e := range entries {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(d.dumps(), e.Name()), &st); err == nil && strings.HasSuffix(e.Name(), dumpSuffix) {
			all = append(all, dump{e.Name(), st.Mtim.Nano(), st.Blocks * 512})
			sum += st.Blocks * 512
		}
	}
	slices.SortFunc(all, func(a, b dump) int { return cmp.Compare(a.at, b.at) })
	for _, x := range all[:max(len(all)-1, 0)] { // the last one is bounded by itself
		if sum <= d.opts.CrashDumpBytes {
			break
		}
		if err := os.Remove(filepath.Join(d.dumps(), x.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove an older crash dump: %w", err)
		}
		sum -= x.use
		d.opts.Log.Warn().Str("file", x.name).Msg("an older crash dump has gone: crash_dump_bytes")
	}
	return nil
}

func (d *Driver) dropDump(uuid driver.InstanceUUID) error {
	if err := os.Remove(d.dumpOf(uuid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove crash dump: %w", err)
	}
	return nil
}

// sweepDumps removes those of instances that are not here, and half ones.
func (d *Driver) sweepDumps(known map[string]bool) error {
	entries, err := os.ReadDir(d.dumps())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list crash dumps: %w", err)
	}
	for _, e := range entries {
		if id, whole := strings.CutSuffix(e.Name(), dumpSuffix); whole && known[id] {
			continue
		}
		if err := os.Remove(filepath.Join(d.dumps(), e.Name())); err != nil {
			return fmt.Errorf("remove crash dump: %w", err)
		}
	}
	return nil
}

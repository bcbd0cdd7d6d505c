package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/config"
	"github.com/gantry-project/gantry/engine/view/server"
	"github.com/gantry-project/gantry/internal/devcloud"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge/fabric"
)

// PurgeCloud ends the instances of the embedded cloud with that state and removes
// everything of it from the host: networks, control groups and the directory. A
// directory that is not one of a cloud is errdefs.ErrInvalid, a cloud that runs
// errdefs.ErrConflict. After an error it may be called again.
func PurgeCloud(ctx context.Context, state string, log zerolog.Logger) error {
	state, err := filepath.Abs(state)
	if err != nil {
		return err
	}
	if !devcloud.Owns(state) {
		return fmt.Errorf("purge %s: this is not the state of a cloud: %w", state, errdefs.ErrInvalid)
	}
	adoptStandardLog(log)
	unlock, err := lockState(state)
	if err != nil {
		return err
	}
	defer unlock()
	e := &embedded{o: CloudOptions{State: state}, host: "purge", url: "http://127.0.0.1", log: log}
	cfg, err := config.Load(config.Sources{Overrides: e.overrides("none")})
	if err != nil {
		return err
	}
	if err := purgeInstances(ctx, cfg, log); err != nil {
		return fmt.Errorf("purge %s: %w", state, err)
	}
	if err := cloudFabric(state, fabric.Options{}).Sync(ctx, fabric.World{}); err != nil {
		return fmt.Errorf("purge %s: %w", state, err)
	}
	errs := []error{
		endKeeper(cfg.Gantry.StorePath), removeGroups(cfg.Gantry.CgroupName),
		server.Remove(filepath.Join(cfg.Gantry.StorePath, viewDir)),
	}
	for _, dir := range []string{filepath.Join(runDir, cloudName(state)), state} {
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// purgeInstances ends and removes all of them.
func purgeInstances(ctx context.Context, cfg *config.Config, log zerolog.Logger) error {
	if _, err := os.Stat(cfg.Gantry.StorePath); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	h, err := openHost(ctx, cfg, nil, "", newMeters(""), log)
	if err != nil {
		return err
	}
	defer h.close()
	all, err := h.driver.Instances(ctx)
	errs := []error{err}
	for _, id := range all {
		errs = append(errs, h.driver.Destroy(ctx, id))
	}
	return errors.Join(errs...)
}

// removeGroups removes the empty control group of that name from each hierarchy.
func removeGroups(name string) error {
	var errs []error
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		found, err := filepath.Glob(filepath.Join(pattern, name))
		errs = append(errs, err)
		for _, dir := range found {
			if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, syscall.ENOENT) {
				errs = append(errs, fmt.Errorf("remove control group %s: %w", dir, err))
			}
		}
	}
	return errors.Join(errs...)
}

// endKeeper asks the keeper of an engine without containers to end now instead
// of soon.
func endKeeper(root string) error {
	text, err := os.ReadFile(filepath.Join(root, keeperPid))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	pid, convErr := strconv.Atoi(strings.TrimSpace(string(text)))
	if err := errors.Join(err, convErr); err != nil {
		return fmt.Errorf("end keeper: %w", err)
	}
	// the pid counts only while it is still that program on that socket
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !bytes.Contains(line, []byte(filepath.Join(root, keeperSocket))) {
		return nil //nolint:nilerr // it has ended
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("end keeper: %w", err)
	}
	return nil
}

package main

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gantry-project/gantry/engine/api"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// limitFlags are the limits of a container.
type limitFlags struct {
	memory, swap, cpuset, disk string
	cpus                       float64
	shares, pids               int64
}

func (l *limitFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&l.memory, "memory", "m", "", "memory, with K, M, G or T (of 1024)")
	f.StringVar(&l.swap, "swap", "", "swap on top of memory; 0 forbids it")
	f.Float64Var(&l.cpus, "cpus", 0, "processors' worth of time; 0 takes the limit away")
	f.Int64Var(&l.shares, "cpu-shares", 0, "weight against others; 1024 is usual")
	f.Int64Var(&l.pids, "pids", 0, "number of processes and threads")
	f.StringVar(&l.disk, "disk", "", "what may be written over the image, with K, M, G or T (of 1024)")
	f.StringVar(&l.cpuset, "cpuset", "", "processors to use (0-3,5)")
}

const cpuPeriod = 100_000 // microseconds

// limits are those that the command line names.
func (l *limitFlags) limits(cmd *cobra.Command) (out api.Limits, err error) {
	given := cmd.Flags().Changed
	if given("memory") {
		n, err := parseSize(l.memory)
		if err != nil {
			return out, fmt.Errorf("--memory: %w", err)
		}
		out.MemoryBytes = &n
	}
	if given("swap") {
		n, err := parseSize(l.swap)
		if err != nil {
			return out, fmt.Errorf("--swap: %w", err)
		}
		if n == 0 {
			n = -1
		}
		out.SwapBytes = &n
	}
	if given("cpus") {
		if math.IsNaN(l.cpus) || l.cpus < 0 || l.cpus > 1e6 {
			return out, fmt.Errorf("--cpus %g: %w", l.cpus, errdefs.ErrInvalid)
		}
		quota, period := int64(l.cpus*cpuPeriod), int64(cpuPeriod)
		out.CPUQuota, out.CPUPeriod = &quota, &period
	}
	if given("cpu-shares") {
		out.CPUShares = &l.shares
	}
	if given("disk") {
		n, err := parseSize(l.disk)
		if err != nil {
			return out, fmt.Errorf("--disk: %w", err)
		}
		out.DiskBytes = &n
	}
	if given("pids") {
		out.Pids = &l.pids
	}
	if given("cpuset") {
		out.CPUSet = &l.cpuset
	}
	return out, nil
}

// parseSize reads 512, 64K, 1.5G and so on.
func parseSize(text string) (int64, error) {
	number, unit := strings.TrimSuffix(strings.TrimSuffix(text, "B"), "i"), 1.0
	if number != "" {
		if i := strings.IndexByte("KMGT", number[len(number)-1]&^0x20); i >= 0 {
			number, unit = number[:len(number)-1], math.Pow(1024, float64(i+1))
		}
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(v) || v < 0 || v*unit > math.MaxInt64/2 {
		return 0, fmt.Errorf("%q is no size: %w", text, errdefs.ErrInvalid)
	}
	return int64(v * unit), nil
}

func updateCommand() *cobra.Command {
	var l limitFlags
	cmd := changing("update [flags] CONTAINER", "change the limits of a container", cobra.ExactArgs(1), func(ctx context.Context, c *api.Client, t *target, cmd *cobra.Command, args []string) error {
		limits, err := l.limits(cmd)
		if err != nil {
			return err
		}
		if limits == (api.Limits{}) {
			return fmt.Errorf("update container %s: no limit is named: %w", args[0], errdefs.ErrInvalid)
		}
		now, err := c.Update(ctx, args[0], limits, t.change())
		if err != nil {
			return err
		}
		return jsonTo(cmd.OutOrStdout(), now)
	})
	l.flags(cmd)
	return cmd
}

package runtimecmd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"

	"github.com/gantry-project/gantry/engine/oci"
	"github.com/gantry-project/gantry/engine/runtime"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func runtimePause(f *runtimeFlags) *cobra.Command {
	return &cobra.Command{
		Use: "pause ID", Short: "freeze all processes of a container", Args: cobra.ExactArgs(1),
		RunE: f.do(func(ctx context.Context, r *runtime.Runtime, args []string) error { return r.Pause(ctx, args[0]) }),
	}
}

func runtimeResume(f *runtimeFlags) *cobra.Command {
	return &cobra.Command{
		Use: "resume ID", Short: "let the processes of a paused container go on", Args: cobra.ExactArgs(1),
		RunE: f.do(func(ctx context.Context, r *runtime.Runtime, args []string) error { return r.Resume(ctx, args[0]) }),
	}
}

// runtimeUpdate has a flag for each limit that runc has one for.
func runtimeUpdate(f *runtimeFlags) *cobra.Command {
	var file, cpus, mems string
	signed := map[string]*int64{}
	unsigned := map[string]*uint64{}
	var weight uint16
	cmd := &cobra.Command{Use: "update ID", Short: "change the limits of a container", Args: cobra.ExactArgs(1)}
	fl := cmd.Flags()
	fl.StringVarP(&file, "resources", "r", "", `file with a resources object, "-" for standard input; it replaces the other flags`)
	for _, n := range []string{"memory", "memory-reservation", "memory-swap", "cpu-quota", "cpu-rt-runtime", "cpu-idle", "pids-limit"} {
		signed[n] = fl.Int64(n, 0, "as linux.resources has it; -1 lifts a limit")
	}
	for _, n := range []string{"cpu-period", "cpu-burst", "cpu-share", "cpu-rt-period"} {
		unsigned[n] = fl.Uint64(n, 0, "as linux.resources has it")
	}
	fl.StringVar(&cpus, "cpuset-cpus", "", "list of processors")
	fl.StringVar(&mems, "cpuset-mems", "", "list of memory nodes")
	fl.Uint16Var(&weight, "blkio-weight", 0, "weight of disk use, 10 to 1000")
	cmd.RunE = f.do(func(ctx context.Context, r *runtime.Runtime, args []string) error {
		if file != "" {
			res, err := resourcesFile(file)
			if err != nil {
				return err
			}
			return r.Update(ctx, args[0], res)
		}
		i := func(n string) *int64 { return ifSet(cmd, n, signed[n]) }
		u := func(n string) *uint64 { return ifSet(cmd, n, unsigned[n]) }
		res := &specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: i("memory"), Reservation: i("memory-reservation"), Swap: i("memory-swap")},
			CPU: &specs.LinuxCPU{
				Quota: i("cpu-quota"), Period: u("cpu-period"), Burst: u("cpu-burst"), Shares: u("cpu-share"), Idle: i("cpu-idle"),
				RealtimeRuntime: i("cpu-rt-runtime"), RealtimePeriod: u("cpu-rt-period"), Cpus: cpus, Mems: mems,
			},
			Pids: &specs.LinuxPids{Limit: i("pids-limit")},
		}
		if w := ifSet(cmd, "blkio-weight", &weight); w != nil {
			res.BlockIO = &specs.LinuxBlockIO{Weight: w}
		}
		return r.Update(ctx, args[0], res)
	})
	return cmd
}

// ifSet is v if the flag was given.
func ifSet[T any](cmd *cobra.Command, name string, v *T) *T {
	if cmd.Flags().Changed(name) {
		return v
	}
	return nil
}

func resourcesFile(name string) (*specs.LinuxResources, error) {
	var in io.Reader = os.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("--resources: %w: %w", err, errdefs.ErrInvalid)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	return oci.ParseResources(in)
}

func runtimeEvents(f *runtimeFlags) *cobra.Command {
	var stats bool
	interval := 5 * time.Second
	cmd := &cobra.Command{
		Use: "events ID", Short: "print counters and deaths for memory, a JSON object each", Args: cobra.ExactArgs(1),
		RunE: f.do(func(ctx context.Context, r *runtime.Runtime, args []string) error {
			out := json.NewEncoder(os.Stdout)
			if stats {
				s, err := r.Stats(ctx, args[0])
				if err != nil {
					return err
				}
				return out.Encode(runtime.StatsEvent(args[0], s))
			}
			if interval <= 0 {
				return fmt.Errorf("--interval %s: %w", interval, errdefs.ErrInvalid)
			}
			return r.Watch(ctx, args[0], interval, func(e runtime.Event) error { return out.Encode(e) })
		}),
	}
	cmd.Flags().BoolVar(&stats, "stats", false, "print the counters once")
	cmd.Flags().DurationVar(&interval, "interval", interval, "time between counters")
	return cmd
}

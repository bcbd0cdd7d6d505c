package process

import (
	"context"
	"errors"
	"testing"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// What a runner cannot restore is refused, and the id stays free.
func TestRestoreIsRefused(t *testing.T) {
	failed := errors.New("no such image")
	t.Cleanup(func() { // what a runner that restores becomes
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0); err != nil {
			t.Error(err)
		}
	})
	for name, tt := range map[string]struct {
		restore Restorer
		spec    Spec
		want    error
	}{
		"no restorer":   {nil, Spec{Rootfs: "/", Restore: &Restore{Program: "/criu", Images: "/images"}}, errdefs.ErrUnsupported},
		"relative":      {nil, Spec{Rootfs: "/", Restore: &Restore{Program: "criu", Images: "/images"}}, errdefs.ErrInvalid},
		"no images":     {nil, Spec{Rootfs: "/", Restore: &Restore{Program: "/criu"}}, errdefs.ErrInvalid},
		"with a target": {nil, Spec{Join: "x", Restore: &Restore{Program: "/criu", Images: "/images"}}, errdefs.ErrInvalid},
		"it fails": {
			func(context.Context, *Spec) (ForeignProcess, error) { return ForeignProcess{}, failed },
			Spec{Rootfs: "/", Restore: &Restore{Program: "/criu", Images: "/images"}},
			failed,
		},
	} {
		l, err := New(Options{Log: zerolog.Nop(), Restore: tt.restore})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := l.Start(t.Context(), "c", tt.spec); !errors.Is(err, tt.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if list, err := l.List(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("%s: %v, %v", name, list, err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

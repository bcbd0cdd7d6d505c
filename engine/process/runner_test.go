package process_test

import (
	"testing"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/process/processtest"
	"github.com/rs/zerolog"
)

func newLocal(t testing.TB) *process.Local {
	t.Helper()
	l, err := process.New(process.Options{Log: zerolog.New(zerolog.NewTestWriter(t))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func local(t *testing.T) processtest.Harness {
	f := processtest.NewFixture(t)
	return processtest.Harness{
		Runner: newLocal(t),
		Spec:   func(t *testing.T, args ...string) process.Spec { return f.Spec(t, args...) },
	}
}

func TestLocal(t *testing.T) { processtest.Suite(t, local) }

func TestFake(t *testing.T) {
	processtest.Suite(t, func(*testing.T) processtest.Harness {
		return processtest.Harness{
			Runner: &processtest.Fake{},
			Spec: func(t *testing.T, args ...string) process.Spec {
				return processtest.Fixture{Rootfs: "/fake", UserNS: "/fake/user", NetNS: "/fake/net"}.Spec(t, args...)
			},
		}
	})
}

func TestLocalIsolation(t *testing.T) {
	processtest.Isolation(t, func(t *testing.T) process.Runner { return newLocal(t) })
}

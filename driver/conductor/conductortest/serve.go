package conductortest

import (
	"context"
	"testing"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/messaging"
)

// Serve answers on topics "conductor" and "scheduler" of the transport until
// the test ends, from before it returns.
func (c *Conductor) Serve(tb testing.TB, transport messaging.Transport) {
	tb.Helper()
	for topic, endpoints := range map[string][]messaging.Endpoint{
		"conductor": c.Endpoints(), "scheduler": c.SchedulerEndpoints(),
	} {
		s, err := messaging.NewServer(transport, messaging.ServerOptions{
			Topics: []string{topic}, Host: "control", Endpoints: endpoints, Log: zerolog.Nop(),
		})
		if err != nil {
			tb.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx) }()
		tb.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				tb.Errorf("serve %s: %v", topic, err)
			}
		})
		select {
		case <-s.Ready():
		case err := <-done:
			done <- nil
			tb.Fatalf("serve %s: %v", topic, err)
		}
	}
}

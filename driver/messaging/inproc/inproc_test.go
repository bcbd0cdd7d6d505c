package inproc_test

import (
	"testing"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/messaging/inproc"
	"github.com/gantry-project/gantry/driver/messaging/transporttest"
)

func TestTransport(t *testing.T) {
	transporttest.Run(t, func(*testing.T) transporttest.Bus {
		b := inproc.NewBroker()
		return transporttest.Bus{
			Open:      func(*testing.T) messaging.Transport { return inproc.New(b) },
			Interrupt: func(*testing.T) { b.Interrupt() },
		}
	})
}

package amqp

import (
	"testing"
	"testing/synctest"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestALinkTellsWhatItDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBroker{script: []error{errRefused}}
		l, stop := startLink(t, b, "a")
		defer stop()
		synctest.Wait()
		if c := l.connection(); c.Up || c.Phase != "waiting after a failure" || c.Since.IsZero() || c.Until.Before(c.Since) {
			t.Errorf("refused: %+v", c)
		}
		if _, err := l.session(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if c := l.connection(); !c.Up || c.Phase != "connected to a:5672" || !c.Until.IsZero() {
			t.Errorf("connected: %+v", c)
		}
		b.conns[0].closes <- &amqp.Error{Code: amqp.ConnectionForced}
		synctest.Wait()
		if c := l.connection(); c.Up || c.Phase != "waiting after a loss" || c.Until.Sub(c.Since) != time.Second {
			t.Errorf("lost: %+v", c)
		}
	})
}

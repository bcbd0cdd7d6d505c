package amqp

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Probed is what Probe has found of one broker.
type Probed struct {
	Host Host
	// Err is nil when the login was accepted and the vhost can be used. It says
	// which step failed, and never holds the password.
	Err error
}

// Probe logs in to each broker of o.URL as a Transport does, opens a channel in
// the vhost, and leaves; brokers are asked at a time, and ctx bounds all. The
// order is the URL's. The error is of the options, as New's.
func Probe(ctx context.Context, o Options) ([]Probed, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	d, err := newDialer(o)
	if err != nil {
		return nil, fmt.Errorf("oslo_messaging_rabbit: %w", err)
	}
	out := make([]Probed, len(o.URL.Hosts))
	var all sync.WaitGroup
	for i, h := range o.URL.Hosts {
		all.Go(func() { out[i] = Probed{Host: h, Err: d.probe(ctx, h)} })
	}
	all.Wait()
	return out, nil
}

func (d *dialer) probe(ctx context.Context, h Host) error {
	conn, err := d.dial(ctx, h)
	if err != nil {
		return err
	}
	// a broker that falls silent now ends the waits below
	stop := context.AfterFunc(ctx, func() { _ = conn.CloseDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err = conn.Channel()
	if err != nil {
		err = fmt.Errorf("open a channel at broker %s: %w", h, err)
	}
	_ = conn.CloseDeadline(time.Now().Add(tidyTime)) // it has said what we wanted to know
	return err
}

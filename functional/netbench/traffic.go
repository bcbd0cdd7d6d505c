package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/gantry-project/gantry/netbridge/netns"
)

// port is where programs listen.
const port = 5001

// pair is a connection between two namespaces.
type pair struct{ from, to net.Conn }

func (p *pair) close() { _ = errors.Join(p.from.Close(), p.to.Close()) }

// join connects from to an address of to.
func join(ctx context.Context, from, to *os.File, address netip.Addr) (*pair, error) {
	at := net.JoinHostPort(address.String(), strconv.Itoa(port))
	var l net.Listener
	err := netns.Do(to, func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(ctx, "tcp4", at)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	p := &pair{}
	err = netns.Do(from, func() (err error) {
		p.from, err = (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp4", at)
		return err
	})
	if err != nil {
		return nil, err
	}
	p.to, err = l.Accept()
	return p, err
}

// stream is how many gigabits per second pass.
func (p *pair) stream(d time.Duration) (float64, error) {
	const block = 256 << 10
	got := make(chan int64, 1)
	go func() {
		buf := make([]byte, block)
		var n int64
		for {
			k, err := p.to.Read(buf)
			n += int64(k)
			if err != nil {
				got <- n
				return
			}
		}
	}()
	buf := make([]byte, block)
	begin := time.Now()
	for time.Since(begin) < d {
		if _, err := p.from.Write(buf); err != nil {
			return 0, err
		}
	}
	if err := p.from.Close(); err != nil {
		return 0, err
	}
	n := <-got
	return float64(n) * 8 / time.Since(begin).Seconds() / 1e9, nil
}

// trip is the median of how long one byte takes there and back.
func (p *pair) trip(rounds int) (time.Duration, error) {
	go func() { _, _ = io.Copy(p.to, p.to) }() // ends with the connection
	var all []time.Duration
	b := []byte{1}
	for range rounds {
		begin := time.Now()
		if _, err := p.from.Write(b); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(p.from, b); err != nil {
			return 0, err
		}
		all = append(all, time.Since(begin))
	}
	slices.Sort(all)
	return all[len(all)/2], nil
}

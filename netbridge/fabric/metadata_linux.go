package fabric

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/gantry-project/gantry/netbridge/link"
	"github.com/gantry-project/gantry/netbridge/netns"
)

// metadataAddress is where guests ask who they are.
func metadataAddress() netip.Addr { return netip.AddrFrom4([4]byte{169, 254, 169, 254}) }

// Bounds on what a guest does with its connections.
const (
	metadataPort    = 80
	metadataTimeout = 10 * time.Second
	metadataHeader  = 16 << 10 // bytes
)

// doors are the servers of metadata, by the namespace's pin. The zero value is
// ready; methods are called with Fabric.mu held.
type doors struct {
	servers map[string]*http.Server
	running sync.WaitGroup
}

// serveMetadata makes the address of metadata the namespace's own and answers
// there; or, without who answers, takes it away. The socket belongs to the
// namespace and is served from anywhere.
func (f *Fabric) serveMetadata(ctx context.Context, in *link.Conn, ns *os.File, name string, at Place) error {
	lo, err := in.ByName("lo")
	if err != nil {
		return err
	}
	if f.o.Metadata == nil {
		_, err := setAddresses(in, lo.Index, nil)
		return err
	}
	if _, err := setAddresses(in, lo.Index, []netip.Prefix{netip.PrefixFrom(metadataAddress(), 32)}); err != nil {
		return err
	}
	if f.doors.servers[name] != nil {
		return nil
	}
	var l net.Listener
	err = netns.Do(ns, func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(ctx, "tcp4", netip.AddrPortFrom(metadataAddress(), metadataPort).String())
		return err
	})
	if err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	f.doors.open(name, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.o.Metadata(at, w, r) }))
	return nil
}

func (d *doors) open(name string, l net.Listener, h http.Handler) {
	server := &http.Server{
		Handler: h, ReadTimeout: metadataTimeout, WriteTimeout: metadataTimeout, IdleTimeout: metadataTimeout,
		MaxHeaderBytes: metadataHeader,
		ErrorLog:       log.New(io.Discard, "", 0), // what a guest sends is no news of the host's
	}
	if d.servers == nil {
		d.servers = map[string]*http.Server{}
	}
	d.servers[name] = server
	d.running.Go(func() { _ = server.Serve(l) }) // until it is shut
}

// shut ends what is answered in a namespace.
func (d *doors) shut(name string) error {
	server := d.servers[name]
	if server == nil {
		return nil
	}
	delete(d.servers, name)
	return server.Close()
}

// Close ends what the process does for networks, which is to answer
// guests; networks work on. What is being answered is waited for until ctx
// ends; nothing is called afterwards, or then at most what hangs.
func (f *Fabric) Close(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for id, have := range f.served {
		delete(f.served, id)
		errs = append(errs, have.stop())
	}
	for name := range f.adverts {
		errs = append(errs, f.hush(name, nil))
	}
	for name, server := range f.doors.servers {
		delete(f.doors.servers, name)
		errs = append(errs, server.Shutdown(ctx))
	}
	f.doors.running.Wait()
	if f.filter != nil {
		errs = append(errs, f.filter.Close())
	}
	return errors.Join(errs...)
}

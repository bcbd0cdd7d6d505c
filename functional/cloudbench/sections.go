package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/projects"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-project/gantry/functional/measure"
)

// session is one run of the program.
type session struct {
	settings
	report *measure.Report

	cloud *process // of all sections but the first
	demo  *client
	// small and huge are flavors: one fits, one never does.
	small, huge string
}

// end ends and removes the cloud.
func (b *session) end(ctx context.Context) error {
	if b.cloud == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), waitLimit)
	defer cancel()
	return errors.Join(b.cloud.stop(), b.purge(ctx, b.cloud))
}

// start: from the start of the process to ready.
func (b *session) start(ctx context.Context) error {
	first, again := &measure.Series{Name: "start with an empty state"}, &measure.Series{Name: "start with a state"}
	for range b.starts {
		var p *process
		var err error
		for _, s := range []*measure.Series{first, again} {
			if p, err = b.run(ctx, "start"); err != nil {
				return err
			}
			s.Values = append(s.Values, p.ready)
			if err := p.stop(); err != nil {
				return fmt.Errorf("stop the cloud: %w", err)
			}
		}
		if err := b.purge(ctx, p); err != nil {
			return err
		}
	}
	for _, s := range []*measure.Series{first, again} {
		b.report.Add(s)
		b.report.Below(s.Name+", median to ready", measure.MS(s.Median()), 300, "ms")
	}
	return nil
}

// begin starts the cloud of the other sections and makes what they need.
func (b *session) begin(ctx context.Context) (err error) {
	if b.cloud != nil {
		return nil
	}
	if b.cloud, err = b.run(ctx, "cloud"); err != nil {
		return err
	}
	users := map[string]*client{}
	for _, user := range []string{"admin", "demo"} {
		password, err := b.password(ctx, b.cloud, user)
		if err != nil {
			return err
		}
		if users[user], err = login(ctx, b.cloud.url, user, password); err != nil {
			return err
		}
	}
	admin := users["admin"]
	b.demo = users["demo"]
	pages, err := projects.List(admin.identity, projects.ListOpts{Name: "demo"}).AllPages(ctx)
	if err != nil {
		return err
	}
	list, err := projects.ExtractProjects(pages)
	if err != nil || len(list) != 1 {
		return errors.Join(err, fmt.Errorf("%d projects are named demo", len(list)))
	}
	if err := admin.prepare(ctx, list[0].ID); err != nil {
		return err
	}
	if b.small, err = admin.flavor(ctx, "bench", 64); err != nil {
		return err
	}
	if b.huge, err = admin.flavor(ctx, "bench-huge", 1<<30); err != nil {
		return err
	}
	return b.demo.find(ctx)
}

// boot: one server after the other, made and deleted. The first brings the image
// into the cache and is not counted.
func (b *session) boot(ctx context.Context) error {
	if err := b.begin(ctx); err != nil {
		return err
	}
	made, gone := &measure.Series{Name: "POST /servers to ACTIVE"}, &measure.Series{Name: "DELETE to 404"}
	for i := range b.boots + 1 {
		began := time.Now()
		id, err := b.demo.create(ctx, fmt.Sprint("boot", i), b.small, 1)
		if err != nil {
			return err
		}
		if err := b.demo.active(ctx, id); err != nil {
			return err
		}
		took := time.Since(began)
		if n, err := b.demo.plugged(ctx, id); err != nil || n != 1 {
			return errors.Join(err, fmt.Errorf("server %s is ACTIVE with %d ports that are", id, n))
		}
		began = time.Now()
		if err := b.demo.delete(ctx, id); err != nil {
			return err
		}
		if i > 0 {
			made.Values, gone.Values = append(made.Values, took), append(gone.Values, time.Since(began))
		}
	}
	b.report.Add(made)
	b.report.Add(gone)
	b.report.Below("POST /servers to ACTIVE, p50", measure.MS(made.Median()), 60, "ms")
	b.report.Below("POST /servers to ACTIVE, p99", measure.MS(made.At(0.99)), 250, "ms")
	b.report.Note("DELETE to 404, p50: %.3g ms", measure.MS(gone.Median()))
	return nil
}

// fill: many servers, each by a request of its own, all at once.
func (b *session) fill(ctx context.Context) error {
	if err := b.begin(ctx); err != nil {
		return err
	}
	// the image is in the cache
	id, err := b.demo.create(ctx, "warm", b.small, 1)
	if err != nil {
		return err
	}
	if err := errors.Join(b.demo.active(ctx, id), b.demo.delete(ctx, id)); err != nil {
		return err
	}
	began := time.Now()
	group, running := errgroup.WithContext(ctx)
	for i := range b.burst {
		group.Go(func() error {
			_, err := b.demo.create(running, fmt.Sprint("burst", i), b.small, 1)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	asked := time.Since(began)
	if err := b.all(ctx, "ACTIVE", b.burst); err != nil {
		return err
	}
	took := time.Since(began)
	b.report.Say("  %d servers: all requests answered after %.2f s, all ACTIVE after %.2f s\n", b.burst, asked.Seconds(), took.Seconds())
	b.report.Below(fmt.Sprintf("%d servers at once, all ACTIVE", b.burst), took.Seconds(), 10, "s")
	return b.weigh()
}

// all returns when so many servers are in that status.
func (b *session) all(ctx context.Context, status string, count int) error {
	return until(ctx, func() (bool, error) {
		n, err := b.demo.counted(ctx, status)
		if err == nil && n < count && status != "ERROR" {
			if failed, err := b.demo.counted(ctx, "ERROR"); err != nil || failed > 0 {
				return false, errors.Join(err, fmt.Errorf("%d servers are in error", failed))
			}
		}
		return n >= count, err
	})
}

func (b *session) weigh() error {
	pids, err := b.household()
	if err != nil {
		return err
	}
	pss, err := measure.PSS(pids)
	if err != nil {
		return err
	}
	b.report.Say("  PSS of %d processes of gantry: %.1f MiB\n", len(pids), pss)
	b.report.Below(fmt.Sprintf("PSS of all processes of gantry with %d servers", b.burst), pss, 80, "MiB")
	return nil
}

// list: the whole list of servers. Those that the burst has not made are of a
// flavor that fits no host: rows like others, with a fault, but without ports.
func (b *session) list(ctx context.Context) error {
	if err := b.begin(ctx); err != nil {
		return err
	}
	have, err := b.demo.counted(ctx, "ACTIVE")
	if err != nil {
		return err
	}
	const step = 90
	for n := have; n < b.rows; n += step {
		if _, err := b.demo.create(ctx, "row", b.huge, min(step, b.rows-n)); err != nil {
			return err
		}
	}
	if err := b.all(ctx, "ERROR", b.rows-have); err != nil {
		return err
	}
	listed := &measure.Series{Name: fmt.Sprintf("GET /servers/detail?limit=%d", b.rows)}
	size := int64(0)
	for i := range b.lists + 1 {
		began := time.Now()
		resp, err := b.demo.compute.Get(ctx, b.demo.compute.ServiceURL("servers/detail")+fmt.Sprint("?limit=", b.rows), nil,
			&gophercloud.RequestOpts{KeepResponseBody: true})
		if err != nil {
			return err
		}
		size, err = drain(resp)
		if err != nil {
			return err
		}
		if i > 0 {
			listed.Values = append(listed.Values, time.Since(began))
		}
	}
	b.report.Add(listed)
	b.report.Say("  of %d ACTIVE and %d in ERROR for want of a host, %d KiB\n", have, b.rows-have, size/1024)
	b.report.Below(fmt.Sprintf("list of %d servers with details, median", b.rows), measure.MS(listed.Median()), 50, "ms")
	return nil
}

func drain(resp *http.Response) (int64, error) {
	n, err := io.Copy(io.Discard, resp.Body)
	return n, errors.Join(err, resp.Body.Close())
}

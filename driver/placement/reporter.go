// Package placement makes the Placement service agree with what this host has,
// and handles the allocations of instances.
//
// A driver says what it has as a value; Reconcile compares it with placement
// and writes only what differs and is ours: the provider, its inventories, and
// the traits that the caller names as its own. Aggregates (nova-api's), custom
// traits and custom resource classes of operators, and child providers
// (neutron's) are left alone.
//
// All calls are made at microversion 1.28, the lowest with the generations of
// consumers; from 1.23 on errors carry the codes that tell a conflict of
// generations from others. The calls are those of nova/scheduler/client/report.py.
package placement

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/openstack"
)

const (
	microversion = "placement 1.28"

	// codeConflict: somebody else has changed the provider or consumer since
	// it was read. codeInUse: an inventory has allocations.
	codeConflict = "placement.concurrent_update"
	codeInUse    = "placement.inventory.inuse"

	// maxTries bounds the repetitions after conflicts, as Nova does.
	maxTries = 4
)

// Requester makes requests of the placement service. *openstack.Client is one.
type Requester interface {
	Do(ctx context.Context, auth openstack.UserAuth, req openstack.Request) error
}

// Reporter is a client of placement. It keeps nothing between calls and is
// safe for concurrent use. Its errors have the classes of internal/errdefs.
type Reporter struct {
	requester Requester
	requestID string
}

// New returns a reporter.
func New(r Requester) *Reporter { return &Reporter{requester: r} }

// For returns a reporter whose requests carry the given request id.
func (r *Reporter) For(requestID string) *Reporter {
	return &Reporter{requester: r.requester, requestID: requestID}
}

// do makes one request as the service.
func (r *Reporter) do(ctx context.Context, method, path string, query url.Values, body, into any) error {
	return r.requester.Do(ctx, openstack.UserAuth{RequestID: r.requestID}, openstack.Request{
		Method: method, Path: path, Query: query, Body: body, Into: into,
		Header: map[string]string{"OpenStack-API-Version": microversion, "Accept": "application/json"},
	})
}

// code returns placement's name for the error of an answer, or "".
func code(err error) string {
	if e, ok := errors.AsType[*openstack.StatusError](err); ok && e.Status == http.StatusConflict {
		return e.Type
	}
	return ""
}

// again runs step until it does not end in a conflict of generations, at most
// maxTries times. A step begins by reading.
func again(ctx context.Context, step func(context.Context) error) error {
	var err error
	for range maxTries {
		if err = step(ctx); code(err) != codeConflict {
			return err
		}
	}
	return fmt.Errorf("after %d tries: %w", maxTries, err)
}

// provider is a resource provider as placement shows it.
type provider struct {
	UUID       string `json:"uuid"`
	Name       string `json:"name"`
	Generation int64  `json:"generation"`
}

// find returns the provider with that UUID, nil if there is none.
func (r *Reporter) find(ctx context.Context, uuid string) (*provider, error) {
	found, err := r.providers(ctx, "in_tree", uuid)
	if err != nil {
		return nil, fmt.Errorf("find provider %s: %w", uuid, err)
	}
	for i := range found {
		if found[i].UUID == uuid { // the tree holds others' children too
			return &found[i], nil
		}
	}
	return nil, nil
}

func (r *Reporter) providers(ctx context.Context, filter, value string) ([]provider, error) {
	var list struct {
		Providers []provider `json:"resource_providers"`
	}
	err := r.do(ctx, http.MethodGet, "/resource_providers", url.Values{filter: {value}}, nil, &list)
	return list.Providers, err
}

// create makes the provider, or finds the one that somebody else has made
// meanwhile.
func (r *Reporter) create(ctx context.Context, uuid, name string) (*provider, error) {
	p := &provider{}
	refused := r.do(ctx, http.MethodPost, "/resource_providers", nil, map[string]any{"uuid": uuid, "name": name}, p)
	if refused == nil {
		return p, nil
	}
	if e, ok := errors.AsType[*openstack.StatusError](refused); !ok || e.Status != http.StatusConflict {
		return nil, fmt.Errorf("create provider %s: %w", uuid, refused)
	}
	// Either it is there by now, or another one has the name.
	p, err := r.find(ctx, uuid)
	if err != nil || p != nil {
		return p, err
	}
	others, err := r.providers(ctx, "name", name)
	if err != nil || len(others) == 0 {
		return nil, fmt.Errorf("create provider %s: %w", uuid, errors.Join(refused, err))
	}
	return nil, fmt.Errorf("create provider %s: another resource provider, %s, has the name %q of this host: "+
		"the host was reinstalled or renamed and its identity is lost; delete that provider if nothing uses it, "+
		"or give this host its UUID back: %w", uuid, others[0].UUID, name, errdefs.ErrConflict)
}

// DeleteProvider removes a provider. An absent one is success; one with
// allocations is errdefs.ErrConflict.
func (r *Reporter) DeleteProvider(ctx context.Context, uuid string) error {
	err := r.do(ctx, http.MethodDelete, "/resource_providers/"+uuid, nil, nil, nil)
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return fmt.Errorf("delete provider %s: %w", uuid, err)
	}
	return nil
}

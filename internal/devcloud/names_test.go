package devcloud

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/network"
)

// named is instances whose name is their id, and counts; "gone" is none.
type named struct{ asked int }

func (n *named) Instance(_ context.Context, id string) (objects.Instance, error) {
	if n.asked++; id == "gone" {
		return objects.Instance{}, errors.New("gone")
	}
	i := objects.NewInstance()
	i.Set("hostname", id)
	return i, nil
}

func TestNames(t *testing.T) {
	cell := &named{}
	h := &hostnames{cell: cell, known: map[string]remembered{}}
	hosts := []network.Host{{Instance: "web", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.5")}}, {Instance: "gone"}, {}}
	for range 2 {
		if got := fmt.Sprint(h.of(t.Context(), hosts)); got != "[{web [10.0.0.5]} { []} { []}]" {
			t.Error(got)
		}
	}
	if cell.asked != 3 { // what is there once, what is not each time
		t.Errorf("asked %d times", cell.asked)
	}
}

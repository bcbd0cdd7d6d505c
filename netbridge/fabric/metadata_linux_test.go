package fabric_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/netbridge/fabric"
)

// answering is a cloud's fabric that tells who asks for metadata and through
// which router.
func (h *host) answering(name string) *fabric.Fabric {
	f := fabric.New(fabric.Options{
		Cloud: name, Dir: filepath.Join(h.dir, name), HostNetNS: fdPath(h.ns),
		Metadata: func(at fabric.Place, w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "close")
			_, _ = fmt.Fprintf(w, "%.8s%.8s %s %s", at.Router, at.Network, r.RemoteAddr, r.URL.Path)
		},
	})
	h.t.Cleanup(func() {
		if err := f.Close(context.WithoutCancel(h.t.Context())); err != nil {
			h.t.Error(err)
		}
	})
	return f
}

const metadataService = "169.254.169.254:80"

// asked is what a guest gets through its router.
func (h *host) asked(t tenant) (string, error) {
	got, err := h.metadata(t)
	if want := fmt.Sprintf("%.8s 10.0.0.5:", t.router.ID); err == nil && !strings.HasPrefix(got, want) {
		err = fmt.Errorf("got %q, want %q", got, want)
	}
	return got, err
}

// metadata is what a guest gets: who was asked, by whom, for what.
func (h *host) metadata(t tenant) (string, error) {
	c, err := h.dial(t.guest, metadataService, long)
	if err != nil {
		return "", err
	}
	defer c.Close()
	from := c.LocalAddr().String()
	if _, err := io.WriteString(c, "GET /latest HTTP/1.1\r\nHost: metadata\r\nConnection: close\r\n\r\n"); err != nil {
		return "", err
	}
	text, err := io.ReadAll(c)
	if err != nil {
		return "", err
	}
	_, body, _ := strings.Cut(string(text), "\r\n\r\n")
	if want := " " + from + " /latest"; !strings.HasSuffix(body, want) {
		return body, fmt.Errorf("got %q, want %q at its end", text, want)
	}
	return body, nil
}

func TestMetadataThroughARouter(t *testing.T) {
	h := newHost(t)
	h.fabric = h.answering("one")
	h.ok(h.fabric.SetNetwork(t.Context(), public()))
	// The same addresses, told apart by their routers.
	one, two := h.tenant(11), h.tenant(12)
	two.router.Gateway = nil
	h.ok(h.fabric.SetRouter(t.Context(), two.router))
	for _, who := range []tenant{one, two} {
		if _, err := h.asked(who); err != nil {
			t.Error(err)
		}
	}
	// A process that ends leaves the routers, and the next one answers again.
	h.ok(h.fabric.Close(t.Context()))
	h.refused("while no process runs", one.guest, metadataService)
	h.fabric = h.answering("one")
	h.ok(h.fabric.Sync(t.Context(), fabric.World{Networks: []fabric.Network{public(), one.network, two.network}, Routers: []fabric.Router{one.router, two.router}}))
	if _, err := h.asked(one); err != nil {
		t.Error(err)
	}
	two.router.Absent = true
	h.ok(h.fabric.SetRouter(t.Context(), two.router))
	h.refused("a router that is gone", two.guest, metadataService)
	// Who wants nobody to answer takes the address back.
	h.ok(h.fabric.Close(t.Context()))
	silent := h.cloud("one")
	h.ok(silent.SetRouter(t.Context(), one.router))
	h.refused("nobody answers", one.guest, metadataService)
}

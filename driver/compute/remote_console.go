package compute

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// getConsole opens a console to proxies and returns where it is and the URL by
// which a user reaches it, with a token that conductor keeps
// (nova/compute/manager.py, get_vnc_console; nova/console/type.py).
func getConsole(kind ConsoleKind, usual string) handler {
	return func(m *Manager, ctx context.Context, o *op) (any, error) {
		name := usual
		if err := o.arg("console_type", &name); err != nil {
			return nil, err
		}
		base := m.consoleBase(kind)
		if base == "" || m.dep.Consoles == nil {
			return nil, messaging.NovaError("ConsoleTypeUnavailable", 400, "Unavailable console type %s.", clip(name, 64))
		}
		if name != usual {
			return nil, messaging.NovaError("ConsoleTypeInvalid", 400, "Invalid console type %s", clip(name, 64))
		}
		host, port, err := m.dep.Consoles.Serve(ctx, o.uuid(), kind)
		switch {
		case errors.Is(err, errdefs.ErrUnsupported):
			return nil, messaging.NovaError("ConsoleTypeUnavailable", 400, "Unavailable console type %s.", name)
		case errors.Is(err, errdefs.ErrConflict), errors.Is(err, errdefs.ErrNotFound):
			return nil, messaging.NovaError("InstanceNotReady", 409, "Instance %s is not ready", o.uuid())
		case err != nil:
			return nil, fmt.Errorf("console of %s: %w", o.uuid(), err)
		}
		token := objects.NewConsoleAuthToken(objects.Console{
			Type: name, Host: host, Port: port, InstanceUUID: o.uuid(), BaseURL: base,
		})
		if err := m.dep.Conductor.AuthorizeConsole(ctx, o.rc, token.Object, m.opt.ConsoleTokenTTL); err != nil {
			return nil, fmt.Errorf("console of %s: %w", o.uuid(), err)
		}
		return map[string]any{
			"host": host, "port": port, "internal_access_path": nil,
			"token": token.String("token"), "access_url": accessURL(base, kind, token.String("token")),
		}, nil
	}
}

func (m *Manager) consoleBase(kind ConsoleKind) string {
	if kind == ConsoleVNC {
		return m.opt.VNCBaseURL
	}
	return m.opt.SerialBaseURL
}

// accessURL is ConsoleAuthToken.access_url (nova/objects/console_auth_token.py):
// the page of noVNC gets the token in the path of its websocket.
func accessURL(base string, kind ConsoleKind, token string) string {
	if kind == ConsoleVNC {
		return base + "?" + url.Values{"path": {"?token=" + token}}.Encode()
	}
	return base + "?token=" + token
}

// validateConsolePort tells a proxy whether a token still leads to the console
// of its instance: another may have the port by now.
func (m *Manager) validateConsolePort(_ context.Context, o *op) (any, error) {
	var port lineCount // as text, by all that are known
	var name string
	if err := o.arg("port", &port); err != nil {
		return nil, err
	}
	if err := o.arg("console_type", &name); err != nil {
		return nil, err
	}
	kinds := map[string]ConsoleKind{"novnc": ConsoleVNC, "serial": ConsoleSerial}
	kind, known := kinds[name]
	return known && m.dep.Consoles != nil && m.dep.Consoles.Serves(o.uuid(), kind, int(port)), nil
}

// dropConsoles ends what looks at an instance that goes.
func (m *Manager) dropConsoles(uuid string) {
	if m.dep.Consoles != nil {
		m.dep.Consoles.Drop(uuid)
	}
}

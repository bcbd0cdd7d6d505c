package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/config"
	"github.com/gantry-project/gantry/console"
	"github.com/gantry-project/gantry/console/rfb"
	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/compute"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// consoles implements compute.Consoles.
type consoles struct{ server *console.Server }

var _ compute.Consoles = consoles{}

// openConsoles makes the server of consoles that the configuration asks for.
func openConsoles(ctx context.Context, cfg *config.Config, d driver.ConsoleStreamer, log zerolog.Logger) (consoles, error) {
	o := console.Options{
		Open: func(ctx context.Context, instance string) (console.Stream, error) {
			return d.OpenConsole(ctx, driver.InstanceUUID(instance))
		},
		Keep: cfg.ConsoleAuth.TokenTTL, MaxConsoles: cfg.Gantry.MaxConsoles, MaxViewers: cfg.Gantry.MaxViewers, Log: log,
	}
	if cfg.VNC.Enabled {
		var err error
		if o.Security, err = vncSecurity(cfg); err != nil {
			return consoles{}, err
		}
		o.VNCAddress, o.VNCHost = cfg.VNC.Listen, cfg.VNC.ProxyClient
	}
	if cfg.SerialConsole.Enabled {
		if n, err := fmt.Sscanf(cfg.SerialConsole.PortRange, "%d:%d", &o.SerialPorts[0], &o.SerialPorts[1]); n != 2 || err != nil ||
			o.SerialPorts[0] < 1 || o.SerialPorts[1] > 65535 || o.SerialPorts[0] > o.SerialPorts[1] {
			return consoles{}, fmt.Errorf("[serial_console] port_range %q: want FIRST:LAST: %w", cfg.SerialConsole.PortRange, errdefs.ErrInvalid)
		}
		o.SerialAddress = cfg.SerialConsole.ProxyClient
	}
	return consoles{console.New(ctx, o)}, nil
}

// vncSecurity is what [vnc] auth_schemes asks for.
func vncSecurity(cfg *config.Config) (rfb.Security, error) {
	var s rfb.Security
	for _, scheme := range cfg.VNC.AuthSchemes {
		switch scheme {
		case "none":
			s.Plain = true
		case "vencrypt":
			pair, err := tls.LoadX509KeyPair(cfg.Gantry.VNCCert, cfg.Gantry.VNCKey)
			if err != nil {
				return s, fmt.Errorf("[vnc] auth_schemes vencrypt: [gantry] vnc_cert and vnc_key: %w: %w", errdefs.ErrInvalid, err)
			}
			s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
		default:
			return s, fmt.Errorf("[vnc] auth_schemes %q: want none or vencrypt: %w", scheme, errdefs.ErrInvalid)
		}
	}
	if s.TLS == nil || cfg.Gantry.VNCClientCA == "" {
		return s, nil
	}
	pem, err := os.ReadFile(cfg.Gantry.VNCClientCA)
	if err != nil {
		return s, fmt.Errorf("[gantry] vnc_client_ca: %w", err)
	}
	s.TLS.ClientAuth, s.TLS.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	if !s.TLS.ClientCAs.AppendCertsFromPEM(pem) {
		return s, fmt.Errorf("[gantry] vnc_client_ca %s: no certificate: %w", cfg.Gantry.VNCClientCA, errdefs.ErrInvalid)
	}
	return s, nil
}

// Serve implements compute.Consoles.
func (c consoles) Serve(ctx context.Context, uuid string, kind compute.ConsoleKind) (string, int, error) {
	return c.server.Serve(ctx, uuid, console.Kind(kind))
}

// Serves implements compute.Consoles.
func (c consoles) Serves(uuid string, kind compute.ConsoleKind, port int) bool {
	return c.server.Serves(uuid, console.Kind(kind), port)
}

// Drop implements compute.Consoles.
func (c consoles) Drop(uuid string) { c.server.Drop(uuid) }

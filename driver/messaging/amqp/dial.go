package amqp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// handshakeTime bounds the making of one connection.
const handshakeTime = 30 * time.Second

// dialer connects to one broker.
type dialer struct {
	opts Options
	tls  *tls.Config // nil without ssl; cloned for each connection
}

func newDialer(o Options) (*dialer, error) {
	d := &dialer{opts: o}
	if !o.SSL {
		return d, nil
	}
	var err error
	d.tls, err = tlsConfig(o)
	return d, err
}

// dial makes a connection; ctx and handshakeTime bound it.
func (d *dialer) dial(ctx context.Context, h Host) (connection, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	nd := net.Dialer{Control: socketOptions(d.opts.HeartbeatTimeout)}
	conn, err := nd.DialContext(ctx, "tcp", h.Address())
	if err != nil {
		return nil, fmt.Errorf("connect to broker %s: %w: %w", h, errdefs.ErrUnavailable, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c, err := d.handshake(ctx, conn, h)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("log in to broker %s: %w: %w", h, errdefs.ErrUnavailable, err)
	}
	return c, nil
}

func (d *dialer) handshake(ctx context.Context, conn net.Conn, h Host) (*amqp.Connection, error) {
	if d.tls != nil {
		cfg := d.tls.Clone()
		cfg.ServerName = h.Name
		tc := tls.Client(conn, cfg)
		if err := tc.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		conn = tc
	}
	c, err := amqp.Open(conn, amqp.Config{
		SASL:      d.sasl(h),
		Vhost:     d.opts.URL.VHost,
		Heartbeat: d.opts.heartbeat(),
		Locale:    "en_US",
		Properties: amqp.Table{
			"product":         "gantry",
			"connection_name": fmt.Sprintf("%s:%d:%s", d.opts.Program, os.Getpid(), uuid.NewString()),
		},
	})
	if err != nil {
		return nil, err
	}
	// The library begins to watch for silence with the first frame after the
	// handshake; without this a peer that falls silent before it is waited
	// for without end.
	if beat := c.Config.Heartbeat; beat > 0 {
		if err := conn.SetReadDeadline(time.Now().Add(beat * 3 / 2)); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (d *dialer) sasl(h Host) []amqp.Authentication {
	if d.opts.LoginMethod == "EXTERNAL" {
		return []amqp.Authentication{&amqp.ExternalAuth{}}
	}
	return []amqp.Authentication{
		&amqp.PlainAuth{Username: h.User, Password: h.Password},
		&amqp.AMQPlainAuth{Username: h.User, Password: h.Password},
	}
}

// tlsConfig has no server name yet.
func tlsConfig(o Options) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	switch o.SSLVersion {
	case "", "SSLv23":
	case "TLSv1_2":
		cfg.MaxVersion = tls.VersionTLS12
	default:
		return nil, fmt.Errorf("ssl_version %q: %w: expected TLSv1_2 or nothing", o.SSLVersion, errdefs.ErrInvalid)
	}
	if o.SSLCertFile != "" {
		key := o.SSLKeyFile
		if key == "" {
			key = o.SSLCertFile
		}
		pair, err := tls.LoadX509KeyPair(o.SSLCertFile, key)
		if err != nil {
			return nil, fmt.Errorf("ssl_cert_file: %w: %w", errdefs.ErrInvalid, err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	if o.SSLCAFile == "" {
		cfg.InsecureSkipVerify = true // as stock: without authorities there is nothing to verify with
		return cfg, nil
	}
	pem, err := os.ReadFile(o.SSLCAFile)
	if err != nil {
		return nil, fmt.Errorf("ssl_ca_file: %w: %w", errdefs.ErrInvalid, err)
	}
	cfg.RootCAs = x509.NewCertPool()
	if !cfg.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ssl_ca_file %s: %w: no certificate in it", o.SSLCAFile, errdefs.ErrInvalid)
	}
	if o.SSLAnyHostName {
		cfg.InsecureSkipVerify = true // the chain is verified below, the name is not
		cfg.VerifyConnection = func(s tls.ConnectionState) error { return verifyChain(s, cfg.RootCAs) }
	}
	return cfg, nil
}

func verifyChain(s tls.ConnectionState, roots *x509.CertPool) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("broker sent no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between})
	return err
}

package rfb

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Security types of RFC 6143, section 7.1.2, and of VeNCrypt.
const (
	securityNone     = 1
	securityVeNCrypt = 19
	x509None         = 260
)

const serverVersion = "RFB 003.008\n"

// Security says how clients may connect. The zero value lets nobody in.
type Security struct {
	// Plain lets clients in without encryption.
	Plain bool
	// TLS, if not nil, lets clients in by VeNCrypt's X509None with this
	// configuration, which also says whether they need a certificate.
	TLS *tls.Config
}

func (s Security) types() []byte {
	var out []byte
	if s.TLS != nil {
		out = append(out, securityVeNCrypt)
	}
	if s.Plain {
		out = append(out, securityNone)
	}
	return out
}

// handshake agrees on version and security and returns the connection to go on
// with. Each answer is written at once: there are peers that read it so.
func handshake(ctx context.Context, conn net.Conn, s Security) (net.Conn, error) {
	minor, err := version(conn)
	if err != nil {
		return nil, err
	}
	types := s.types()
	chosen := byte(securityNone)
	switch {
	case minor < 7: // the server decides
		if !slices.Contains(types, chosen) {
			_, err := conn.Write(refusal(make([]byte, 4), "TLS is required"))
			return nil, fmt.Errorf("a client of RFB 3.3 without TLS: %w", join(errdefs.ErrForbidden, err))
		}
		_, err := conn.Write([]byte{0, 0, 0, securityNone})
		return conn, err
	case len(types) == 0:
		_, err := conn.Write(refusal([]byte{0}, "no security type is enabled"))
		return nil, join(errdefs.ErrForbidden, err)
	}
	if _, err := conn.Write(append([]byte{byte(len(types))}, types...)); err != nil {
		return nil, err
	}
	b, err := take(conn, 1)
	if err != nil {
		return nil, err
	}
	if chosen = b[0]; !slices.Contains(types, chosen) {
		_, err := conn.Write(refusal([]byte{0, 0, 0, 1}, "that security type is not enabled"))
		return nil, fmt.Errorf("security type %d: %w", chosen, join(errdefs.ErrForbidden, err))
	}
	if chosen == securityVeNCrypt {
		if conn, err = encrypt(ctx, conn, s.TLS); err != nil {
			return nil, err
		}
	}
	if minor >= 8 || chosen == securityVeNCrypt {
		_, err = conn.Write(make([]byte, 4)) // SecurityResult: OK
	}
	return conn, err
}

func join(class, err error) error {
	if err == nil {
		return class
	}
	return fmt.Errorf("%w: %w", class, err)
}

// refusal is a result with its reason.
func refusal(result []byte, reason string) []byte {
	return append(binary.BigEndian.AppendUint32(result, uint32(len(reason))), reason...)
}

// version exchanges versions and returns the minor one to speak.
func version(conn io.ReadWriter) (int, error) {
	if _, err := io.WriteString(conn, serverVersion); err != nil {
		return 0, err
	}
	b, err := take(conn, len(serverVersion))
	if err != nil {
		return 0, err
	}
	var major, minor int
	if n, err := fmt.Sscanf(string(b), "RFB %03d.%03d\n", &major, &minor); n != 2 || err != nil || major < 3 {
		return 0, fmt.Errorf("version %q: %w", b, errdefs.ErrInvalid)
	}
	if major > 3 {
		minor = 8
	}
	return min(minor, 8), nil
}

// encrypt is VeNCrypt 0.2 with its one subtype.
func encrypt(ctx context.Context, conn net.Conn, config *tls.Config) (net.Conn, error) {
	if _, err := conn.Write([]byte{0, 2}); err != nil {
		return nil, err
	}
	b, err := take(conn, 2)
	if err != nil {
		return nil, err
	}
	if b[0] != 0 || b[1] != 2 {
		_, err := conn.Write([]byte{1})
		return nil, fmt.Errorf("VeNCrypt %d.%d: %w", b[0], b[1], join(errdefs.ErrUnsupported, err))
	}
	if _, err := conn.Write([]byte{0}); err != nil {
		return nil, err
	}
	if _, err := conn.Write([]byte{1, 0, 0, x509None >> 8, x509None & 0xff}); err != nil {
		return nil, err
	}
	if b, err = take(conn, 4); err != nil {
		return nil, err
	}
	if got := binary.BigEndian.Uint32(b); got != x509None {
		_, err := conn.Write([]byte{0})
		return nil, fmt.Errorf("VeNCrypt subtype %d: %w", got, join(errdefs.ErrForbidden, err))
	}
	if _, err := conn.Write([]byte{1}); err != nil {
		return nil, err
	}
	secure := tls.Server(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return secure, nil
}

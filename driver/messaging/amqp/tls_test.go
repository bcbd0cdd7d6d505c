package amqp

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority makes a certificate authority, its file, and a certificate for
// broker.example signed by it.
func authority(t *testing.T) (caFile string, broker tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{"broker.example"}, NotAfter: time.Now().Add(time.Hour)}
	der, err = x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return caFile, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestTLSVerification(t *testing.T) {
	ca, broker := authority(t)
	other, _ := authority(t)
	for name, tc := range map[string]struct {
		o    Options
		host string
		ok   bool
	}{
		"right name":                {Options{SSLCAFile: ca}, "broker.example", true},
		"wrong name":                {Options{SSLCAFile: ca}, "evil.example", false},
		"wrong name allowed":        {Options{SSLCAFile: ca, SSLAnyHostName: true}, "evil.example", true},
		"wrong authority":           {Options{SSLCAFile: other}, "broker.example", false},
		"wrong authority, any name": {Options{SSLCAFile: other, SSLAnyHostName: true}, "broker.example", false},
		"nothing to verify with":    {Options{}, "evil.example", true},
	} {
		cfg, err := tlsConfig(tc.o)
		if err != nil {
			t.Fatal(err)
		}
		cfg.ServerName = tc.host
		client, server := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = tls.Server(server, &tls.Config{Certificates: []tls.Certificate{broker}}).HandshakeContext(t.Context())
			_ = server.Close()
		}()
		err = tls.Client(client, cfg).HandshakeContext(t.Context())
		_ = client.Close()
		<-done
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

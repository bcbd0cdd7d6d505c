package openstack

import (
	"testing"
	"unicode/utf8"
)

func TestUnversioned(t *testing.T) {
	for in, want := range map[string]string{
		"http://h:9696":            "http://h:9696",
		"http://h:9696/":           "http://h:9696",
		"http://h:9696/v2.0/":      "http://h:9696",
		"http://h/image/v2":        "http://h/image",
		"http://h/identity/v3/":    "http://h/identity",
		"http://h/volume":          "http://h/volume",
		"http://h/v":               "http://h/v",
		"http://h/placement/vault": "http://h/placement/vault",
	} {
		if got := unversioned(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func FuzzStatusError(f *testing.F) {
	f.Add(409, []byte(`{"NeutronError":{"type":"OverQuota","message":"m","detail":""}}`))
	f.Add(401, []byte(`{"error":{"code":401,"message":"m"}}`))
	f.Add(404, []byte("<html><body><h1>404</h1>No image &lt;x&gt;</body></html>"))
	f.Add(500, []byte(`{"NeutronError":"text"}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		e := statusError(status, body)
		if len(e.Message) > maxMessage || len(e.Type) > maxMessage {
			t.Error("message too long")
		}
		if !utf8.ValidString(e.Error()) {
			t.Error("not UTF-8")
		}
		if e.Unwrap() == nil {
			t.Error("no class")
		}
	})
}

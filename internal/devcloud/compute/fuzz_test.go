package compute

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"
)

// FuzzRequests throws malformed requests at the API: never 5xx but for what is
// said to be not supported, never a panic, and never another project's server.
func FuzzRequests(f *testing.F) {
	r := newRigIn(f, f.TempDir())
	r.t = &testing.T{}
	id := r.server("demo", "secret", r.flavor("tiny"))
	secret := []byte("secret")
	for _, seed := range []struct{ method, path, version, body string }{
		{"GET", "/v2.1/servers/detail?limit=1&sort_key=uuid", "2.93", ""},
		{"GET", "/v2.1/servers?ip=[&status=active&changes-since=2020", "2.66", ""},
		{"POST", "/v2.1/servers", "2.93", `{"server": {"name": "a", "flavorRef": "x", "imageRef": "y", "networks": [{"uuid": "z"}]}}`},
		{"POST", "/v2.1/servers", "2.1", `{"server": {"name": "a", "flavorRef": 1, "block_device_mapping_v2": [{"boot_index": null}], "min_count": 1e400}}`},
		{"POST", "/v2.1/servers/" + id + "/action", "2.93", `{"reboot": {"type": "HARD"}}`},
		{"POST", "/v2.1/servers/" + id + "/action", "2.93", `{"addSecurityGroup": []}`},
		{"POST", "/v2.1/servers/" + id + "/action", "2.93", `{"rescue": {"adminPass": null}}`},
		{"PUT", "/v2.1/servers/" + id + "/metadata/a%2Fb", "2.93", `{"meta": {"a/b": "c"}}`},
		{"PUT", "/v2.1/servers/" + id + "/tags/%00", "2.93", ""},
		{"POST", "/v2.1/os-keypairs", "2.1", `{"keypair": {"name": "k", "public_key": "ssh-rsa AAAA"}}`},
		{"POST", "/v2.1/os-server-groups", "2.64", `{"server_group": {"name": "g", "policy": "affinity", "rules": {"max_server_per_host": "99999999999999999999"}}}`},
		{"GET", "/v2.1/os-simple-tenant-usage/x?start=2020-01-01T00:00:00&limit=-", "2.40", ""},
		{"POST", "/v2.1/os-server-external-events", "2.93", `{"events": [{"name": "network-changed", "server_uuid": "` + id + `"}]}`},
		{"PUT", "/v2.1/os-quota-sets/x?user_id=/", "2.93", `{"quota_set": {"cores": "0x1"}}`},
		{"GET", "/v2.1//x/../servers", "x.y", ""},
		{"GET", "/v2.1/os-hypervisors?limit=99999999999999999999", "2.33", ""},
	} {
		f.Add(seed.method, seed.path, seed.version, []byte(seed.body))
	}
	f.Fuzz(func(t *testing.T, method, path, version string, body []byte) {
		for _, token := range []string{"other", "admin"} {
			req, err := http.NewRequestWithContext(t.Context(), method, "http://cloud/", bytes.NewReader(body))
			if err != nil {
				return
			}
			u, err := req.URL.Parse(path)
			if err != nil || u.Host != "cloud" {
				return
			}
			req.URL, req.RequestURI = u, u.RequestURI()
			req.Header.Set("X-Auth-Token", token)
			req.Header["X-Openstack-Nova-Api-Version"] = []string{version}
			w := httptest.NewRecorder()
			r.handler.ServeHTTP(w, req)
			if w.Code >= http.StatusInternalServerError && w.Code != http.StatusNotImplemented {
				t.Errorf("%s %s as %s: %d %s", method, path, token, w.Code, w.Body)
			}
			if token == "other" && bytes.Contains(w.Body.Bytes(), secret) && !bytes.Contains(body, secret) && !bytes.Contains([]byte(path), secret) {
				t.Errorf("%s %s shows another project's server: %s", method, path, w.Body)
			}
		}
	})
}

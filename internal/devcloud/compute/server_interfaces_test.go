package compute

import "testing"

func TestInterfacesComeAndGo(t *testing.T) {
	r := newRig(t)
	id := r.server("demo", "a", r.flavor("tiny"))
	path := "/v2.1/servers/" + id
	attach := path + "/os-interface"
	r.ask("demo", "2.93", "POST", attach, `{"interfaceAttachment": {"port_id": "`+freePort+`", "tag": "uplink"}}`).is(200).
		has(freePort, "interfaceAttachment", "port_id").has("10.0.0.9", "interfaceAttachment", "fixed_ips", 0, "ip_address").
		has("uplink", "interfaceAttachment", "tag")
	r.ask("demo", "2.48", "POST", attach, `{"interfaceAttachment": {"port_id": "`+freePort+`", "tag": "uplink"}}`).is(400)
	r.ask("demo", "2.93", "POST", attach, `{"interfaceAttachment": {"port_id": "`+privateNet+`"}}`).says(409, "Port "+privateNet+" is still in use.")
	r.ask("demo", "2.93", "POST", attach, `{"interfaceAttachment": {"net_id": "`+privateNet+`", "fixed_ips": [{"ip_address": "10.0.0.3"}]}}`).
		says(500, "Failed to attach network adapter device to x")
	r.ask("demo", "2.93", "POST", attach, `{"interfaceAttachment": {"net_id": "`+privateNet+`", "port_id": "`+freePort+`"}}`).
		says(400, "Must not input both network_id and port_id")
	r.ask("demo", "2.93", "POST", attach, `{"interfaceAttachment": {"fixed_ips": [{"ip_address": "10.0.0.3"}]}}`).
		says(400, "Must input network_id when request IP address")
	r.ask("demo", "2.93", "DELETE", attach+"/"+freePort, nil).is(202)
	r.ask("other", "2.93", "DELETE", attach+"/"+freePort, nil).is(404)
}

func TestFixedAddressesEndedWithMicroversion244(t *testing.T) {
	r := newRig(t)
	path := "/v2.1/servers/" + r.server("demo", "a", r.flavor("tiny")) + "/action"
	for _, body := range []string{`{"addFixedIp": {"networkId": "` + privateNet + `"}}`, `{"removeFixedIp": {"address": "10.0.0.9"}}`} {
		r.ask("demo", "2.43", "POST", path, body).is(202)
		if a := r.ask("demo", "2.44", "POST", path, body); a.Code != 404 && a.Code != 400 {
			t.Errorf("2.44: %d %s", a.Code, a.Body)
		}
	}
	r.ask("demo", "2.43", "POST", path, `{"removeFixedIp": {"address": "10.0.0.9\nroot"}}`).is(400)
	r.ask("demo", "2.43", "POST", path, `{"addFixedIp": {}}`).is(400)
}

package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// at is a moment, ms after some beginning.
func at(ms int) time.Time { return time.Unix(1000, 0).Add(time.Duration(ms) * time.Millisecond) }

func TestCoveredCountsWhatOverlapsOnce(t *testing.T) {
	for name, c := range map[string]struct {
		spans []span
		want  int
	}{
		"nothing":        {nil, 0},
		"inside":         {[]span{{at(10), at(30), ""}}, 20},
		"overlap":        {[]span{{at(20), at(40), ""}, {at(10), at(30), ""}}, 30},
		"nested":         {[]span{{at(10), at(50), ""}, {at(20), at(30), ""}}, 40},
		"over both ends": {[]span{{at(-10), at(20), ""}, {at(90), at(200), ""}}, 30},
		"outside":        {[]span{{at(-20), at(-10), ""}, {at(110), at(120), ""}}, 0},
		"zero":           {[]span{{}}, 0},
		"all":            {[]span{{at(-1), at(101), ""}}, 100},
	} {
		t.Run(name, func(t *testing.T) {
			if got := covered(c.spans, at(0), at(100)); got != time.Duration(c.want)*time.Millisecond {
				t.Errorf("covered %s, want %d ms", got, c.want)
			}
		})
	}
}

// publish is a traced message as oslo.messaging writes it.
func publish(t *testing.T, ms int, key string, inner map[string]any) traced {
	t.Helper()
	text, err := json.Marshal(inner)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(map[string]any{"oslo.version": "2.0", "oslo.message": string(text)})
	if err != nil {
		t.Fatal(err)
	}
	return traced{at(ms), key, body}
}

func object(data map[string]any, changes ...string) map[string]any {
	return map[string]any{"nova_object.data": data, "nova_object.changes": changes}
}

func TestSplitOfOneBootAmongOthers(t *testing.T) {
	const uuid, other, req = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222", "req-1"
	save := func(id, state, msg, req string) map[string]any {
		return map[string]any{
			"method": "object_action", "_msg_id": msg, "_context_request_id": req,
			"args": map[string]any{"objmethod": "save", "objinst": object(map[string]any{"uuid": id, "vm_state": state}, "vm_state")},
		}
	}
	var messages []message
	for _, p := range []traced{
		publish(t, 0, "compute.elsewhere", map[string]any{"method": "build_and_run_instance", "args": map[string]any{"instance": object(map[string]any{"uuid": uuid})}}),
		publish(t, 10, "compute.h", map[string]any{"method": "build_and_run_instance", "_context_request_id": req, "args": map[string]any{"instance": object(map[string]any{"uuid": uuid})}}),
		publish(t, 20, "conductor", save(uuid, "building", "a", req)),
		publish(t, 25, "conductor", save(other, "active", "z", "req-2")),
		publish(t, 30, "reply_x", map[string]any{"_msg_id": "z", "result": nil, "ending": true}),
		publish(t, 35, "reply_x", map[string]any{"_msg_id": "a", "result": 1, "ending": false}),
		publish(t, 40, "reply_x", map[string]any{"_msg_id": "a", "ending": true}),
		publish(t, 90, "compute.h", map[string]any{"method": "external_instance_event", "args": map[string]any{"events": []any{
			object(map[string]any{"name": "network-vif-plugged", "tag": "p", "instance_uuid": uuid}),
		}}}),
		publish(t, 100, "conductor", save(uuid, "active", "b", req)),
		{at(110), "x", []byte("no message")},
	} {
		if m, ok := decode(p); ok {
			messages = append(messages, m)
		}
	}
	s, ok := splitOf(messages, "h", uuid)
	if !ok {
		t.Fatal("the boot was not found")
	}
	s.wait = span{at(60), s.eventAt, "wait"}
	want := []span{
		{at(10), at(20), "cast .. object_action save"}, {at(40), at(60), "object_action save .. wait"}, {at(90), at(100), "wait .. save of active"},
	}
	if diff := cmp.Diff(want, s.gaps(), cmp.AllowUnexported(span{})); diff != "" {
		t.Errorf("gaps (-want +got):\n%s", diff)
	}
	if s.whole() != 90*time.Millisecond || s.own() != 40*time.Millisecond || s.port != "p" {
		t.Errorf("whole %s, own %s, port %q", s.whole(), s.own(), s.port)
	}
	if _, ok := splitOf(messages, "h", other); ok {
		t.Error("a boot without a cast was found")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"oslo.version":"2.0","oslo.message":"{\"method\":\"object_action\",\"args\":{\"objinst\":{}}}"}`))
	f.Add([]byte(`{"oslo.message":"{\"method\":\"external_instance_event\",\"args\":{\"events\":[{}]}}"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if m, ok := decode(traced{body: body}); ok {
			splitOf([]message{m}, "h", "u")
		}
	})
}

func TestRequestSpan(t *testing.T) {
	const text = `2026-11-21 09:59:03.690 16595 INFO neutron.wsgi [None req-d6 4c7c - - default default] 127.0.0.1 "GET /v2.0/ports?device_id=1 HTTP/1.1" status: 200  len: 188 time: 0.0924845`
	line := regexp.MustCompile(requestLine)
	s, ok := requestSpan(line, text)
	end := time.Date(2026, 11, 21, 9, 59, 3, 690e6, time.Local)
	if !ok || !s.to.Equal(end) || end.Sub(s.from) != 92484500 || s.what != "GET /v2.0/ports" {
		t.Errorf("got %v, %v", s, ok)
	}
	if _, ok := requestSpan(line, strings.Replace(text, "neutron.wsgi", "x", 1)[:60]); ok {
		t.Error("another line was taken for a request")
	}
}

func TestTapsNoteTheFirstTimeUp(t *testing.T) {
	w := &taps{up: map[string]time.Time{}}
	w.note(at(1), "7: tap1a2b3c4d-5e@if2: <NO-CARRIER,BROADCAST,UP> mtu 1450")
	w.note(at(2), "7: tap1a2b3c4d-5e@if2: <BROADCAST,UP,LOWER_UP> mtu 1450")
	w.note(at(3), "7: tap1a2b3c4d-5e@if2: <BROADCAST,UP,LOWER_UP> mtu 1450")
	w.note(at(4), "Deleted 7: tap1a2b3c4d-5e")
	if got, ok := w.upAt("1a2b3c4d-5e6f-4111-8111-111111111111"); !ok || !got.Equal(at(2)) {
		t.Errorf("got %v, %v", got, ok)
	}
	if _, ok := w.upAt(""); ok {
		t.Error("no port is up")
	}
}

func TestParseStat(t *testing.T) {
	p, err := parseStat([]byte("42 (a ) b) S 7 40 40 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 99 1 1\n"))
	if err != nil || p.parent != 7 || p.group != 40 || p.reaped != 700*time.Millisecond {
		t.Errorf("got %+v, %v", p, err)
	}
	for _, bad := range []string{"", "42 (a) S 1", "42 a S 7 40"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestOwnProcessIsMeasured(t *testing.T) {
	me := []int{os.Getpid()}
	used, err := cpu(me)
	if err != nil || used <= 0 {
		t.Errorf("cpu %s, %v", used, err)
	}
	rss, pss, n, err := memory(me)
	if err != nil || rss < pss || pss <= 0 || n < 1 {
		t.Errorf("memory %f %f of %d, %v", rss, pss, n, err)
	}
	if _, err := cpu([]int{1 << 30}); err == nil {
		t.Error("a process that does not exist was measured")
	}
}

func TestQuietenReplacesTheFirstProcess(t *testing.T) {
	var from, to bytes.Buffer
	w := tar.NewWriter(&from)
	for name, body := range map[string]string{"./sbin/init": "loud", "./etc/x": "kept"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(body)), Mode: 0o755}); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, body)
	}
	w.Close()
	if err := quieten(&to, &from); err != nil {
		t.Fatal(err)
	}
	r, got := tar.NewReader(&to), map[string]string{}
	for h, err := r.Next(); err == nil; h, err = r.Next() {
		body, _ := io.ReadAll(r)
		got[h.Name] = string(body)
	}
	if !strings.Contains(got["./sbin/init"], "sleep") || got["./etc/x"] != "kept" {
		t.Errorf("got %q", got)
	}
	if err := quieten(io.Discard, bytes.NewReader(nil)); err == nil {
		t.Error("an archive without an init was taken")
	}
}

func TestCell(t *testing.T) {
	m := measures()[0]
	boots := func(seconds ...float64) (out []sample) {
		for _, s := range seconds {
			out = append(out, sample{boot: time.Duration(s * float64(time.Second))})
		}
		return out
	}
	for want, got := range map[string]string{
		"2.00 (1.00-3.00)":       m.cell(boots(3, 1, 2), nil),
		"1.50 (1.00-2.00) x0.75": m.cell(boots(1, 2), boots(2)),
		"-":                      m.cell(nil, boots(2)),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

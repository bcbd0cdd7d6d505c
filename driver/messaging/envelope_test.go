package messaging

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/internal/errdefs"
)

var update = flag.Bool("update", false, "rewrite golden files")

// TestStockRequests decodes requests of a stock Nova and encodes them again
// without loss.
func TestStockRequests(t *testing.T) {
	for _, tc := range []struct {
		file, method, namespace, version string
		call                             bool
	}{
		{"stock_call_ping", "ping", "baseapi", "1.0", true},
		{"stock_call_conductor", "object_class_action_versions", "", "3.0", true},
		{"stock_cast_stop", "stop_instance", "", "6.0", false},
	} {
		t.Run(tc.file, func(t *testing.T) {
			body := read(t, tc.file)
			r, err := decodeRequest(body)
			if err != nil {
				t.Fatal(err)
			}
			if r.Method != tc.method || r.Namespace != tc.namespace || r.Version != tc.version ||
				(r.MsgID != "") != tc.call || (r.ReplyQ != "") != tc.call || len(r.UniqueID) != 32 {
				t.Errorf("decoded %+v", r)
			}
			if !strings.HasPrefix(r.Context.RequestID(), "req-") || len(r.Context.Fields()) != 25 {
				t.Errorf("context has %d fields", len(r.Context.Fields()))
			}
			again, err := EncodeEnvelope(r.payload())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tree(t, body), tree(t, again)); diff != "" {
				t.Errorf("lost in encoding (-stock +ours):\n%s", diff)
			}
		})
	}
}

// TestStockReplies does the same with replies.
func TestStockReplies(t *testing.T) {
	for _, file := range []string{"stock_reply_ping", "stock_reply_failure"} {
		body := read(t, file)
		r, err := decodeReply(body)
		if err != nil || !r.Ending || r.MsgID == "" || r.UniqueID == "" {
			t.Fatalf("%s: %+v, %v", file, r, err)
		}
		again, err := EncodeEnvelope(r)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tree(t, body), tree(t, again)); diff != "" {
			t.Errorf("%s (-stock +ours):\n%s", file, diff)
		}
		if file != "stock_reply_failure" {
			continue
		}
		e, err := decodeFailure(*r.Failure)
		if err != nil {
			t.Fatal(err)
		}
		if e.Class != "ComputeHostNotFound" || e.Module != "nova.exception" || e.Code != 404 ||
			!strings.Contains(e.Message, "could not be found") || len(e.Traceback) == 0 {
			t.Errorf("failure is %+v", e)
		}
	}
}

// TestGolden pins the bytes that we send.
func TestGolden(t *testing.T) {
	rc := NewRequestContext(map[string]json.RawMessage{
		"request_id": json.RawMessage(`"req-1"`), "is_admin": json.RawMessage("true"), "extra": json.RawMessage(`{"a":[1.50]}`),
	})
	failure := encodeFailure(NovaError("InstanceNotFound", 404, "Instance <x> could not be found."))
	refusal := encodeFailure(NotImplemented(""))
	const id, unique = "0123456789abcdef0123456789abcdef", "ffffffffffffffffffffffffffffffff"
	for name, payload := range map[string]any{
		"call": wireRequest{
			Method: "ping", Namespace: "baseapi", Version: "1.0", UniqueID: unique, MsgID: id, ReplyQ: "reply_" + id,
			Args: map[string]json.RawMessage{"arg": json.RawMessage(`"é & <"`)}, Monitor: time.Minute, Context: rc,
		}.payload(),
		"cast":            wireRequest{Method: "run", Version: "6.0", UniqueID: unique}.payload(),
		"reply":           wireReply{Result: json.RawMessage(`{"a":1}`), Ending: true, MsgID: id, UniqueID: unique},
		"reply_failure":   wireReply{Failure: &failure, Ending: true, MsgID: id, UniqueID: unique},
		"reply_notimpl":   wireReply{Failure: &refusal, Ending: true, MsgID: id, UniqueID: unique},
		"reply_heartbeat": wireReply{MsgID: id, UniqueID: unique},
	} {
		got, err := EncodeEnvelope(payload)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", "ours_"+name+".json")
		if *update {
			if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want := string(read(t, "ours_"+name)); string(got)+"\n" != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
}

func TestDecodeTolerates(t *testing.T) {
	r, err := decodeRequest([]byte(`{"method":"x","_timeout":2.5,"_context_a":1,"unknown":[]}`))
	if err != nil || r.Method != "x" || r.Version != "1.0" || r.Monitor != 2500*time.Millisecond || len(r.Context.Fields()) != 1 {
		t.Errorf("bare payload: %+v, %v", r, err)
	}
	reply, err := decodeReply([]byte(`{"failure":{"class":"X_Remote"},"ending":true,"_msg_id":"m"}`))
	if err != nil || reply.Failure == nil || *reply.Failure != `{"class":"X_Remote"}` {
		t.Errorf("failure as object: %+v, %v", reply, err)
	}
	e, err := decodeFailure(`{"class":"X_Remote","tb":7,"kwargs":[],"args":null}`)
	if err != nil || e.Class != "X" {
		t.Errorf("odd failure: %+v, %v", e, err)
	}
}

func TestBodyLimit(t *testing.T) {
	if _, err := EncodeEnvelope(strings.Repeat("x", MaxBody)); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("encode: %v", err)
	}
	if _, err := DecodeEnvelope(make([]byte, MaxBody+1)); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("decode: %v", err)
	}
}

func TestCompatible(t *testing.T) {
	for _, tc := range []struct {
		have, want string
		ok         bool
	}{
		{"6.1", "6.0", true},
		{"6.1", "6.1", true},
		{"6.1", "6.1.7", true},
		{"6.1", "6", true},
		{"6.1", "6.2", false},
		{"6.1", "5.1", false},
		{"6.1", "", false},
		{"6.1", "x.0", false},
		{"6.1", "6.-1", false},
		{"6.10", "6.9", true},
	} {
		if got := compatible(tc.have, tc.want); got != tc.ok {
			t.Errorf("compatible(%q, %q) = %t", tc.have, tc.want, got)
		}
	}
}

func FuzzDecodeEnvelope(f *testing.F) {
	for _, name := range []string{"stock_call_ping", "stock_cast_stop", "stock_reply_failure", "stock_reply_ping"} {
		body, err := os.ReadFile(filepath.Join("testdata", name+".json"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if r, err := decodeRequest(body); err == nil {
			again, err := EncodeEnvelope(r.payload())
			if err != nil {
				t.Fatalf("decoded, but does not encode: %v", err)
			}
			back, err := decodeRequest(again)
			if err != nil || back.Method != r.Method || back.MsgID != r.MsgID || len(back.Args) != len(r.Args) {
				t.Fatalf("%+v became %+v, %v", r, back, err)
			}
		}
		_, _ = decodeReply(body)
	})
}

func FuzzDecodeFailure(f *testing.F) {
	f.Add(encodeFailure(NovaError("InstanceNotFound", 404, "x")))
	f.Add(`{"class":"X","tb":["a"],"kwargs":{"code":"x"}}`)
	f.Fuzz(func(t *testing.T, s string) {
		e, err := decodeFailure(s)
		if err != nil {
			return
		}
		back, err := decodeFailure(encodeFailure(e))
		if err != nil || back.Message != e.Message {
			t.Fatalf("%+v became %+v, %v", e, back, err)
		}
	})
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	body, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// tree is a body with its inner message parsed too.
func tree(t *testing.T, body []byte) map[string]any {
	t.Helper()
	var outer map[string]any
	if err := json.Unmarshal(body, &outer); err != nil {
		t.Fatal(err)
	}
	var inner any
	if err := json.Unmarshal([]byte(outer["oslo.message"].(string)), &inner); err != nil {
		t.Fatal(err)
	}
	outer["oslo.message"] = inner
	return outer
}

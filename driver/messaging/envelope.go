package messaging

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// envelopeVersion is what we write (oslo_messaging/_drivers/common.py,
// _RPC_ENVELOPE_VERSION). Every 2.x with a minor up to ours is read.
const envelopeVersion = "2.0"

// MaxBody is the longest body in bytes that is sent or accepted. Nova's largest
// messages (a rebuild with user data and injected files) stay below one MiB.
const MaxBody = 16 << 20

const contextPrefix = "_context_"

type envelope struct {
	Version string `json:"oslo.version"`
	Message string `json:"oslo.message"`
}

// EncodeEnvelope encodes payload as JSON, puts that as a string into an
// envelope of version 2.0 and encodes the envelope
// (oslo_messaging/_drivers/common.py, serialize_msg).
func EncodeEnvelope(payload any) ([]byte, error) {
	inner, err := marshal(payload)
	if err != nil {
		return nil, fmt.Errorf("encode message: %w: %w", errdefs.ErrInvalid, err)
	}
	body, err := marshal(envelope{Version: envelopeVersion, Message: string(inner)})
	if err != nil {
		return nil, fmt.Errorf("encode envelope: %w: %w", errdefs.ErrInvalid, err)
	}
	if len(body) > MaxBody {
		return nil, fmt.Errorf("encode envelope of %d bytes: %w: the limit is %d", len(body), errdefs.ErrInvalid, MaxBody)
	}
	return body, nil
}

// DecodeEnvelope returns the fields of the payload in body. A body without the
// two envelope keys is itself the payload. Errors are errdefs.ErrInvalid.
func DecodeEnvelope(body []byte) (map[string]json.RawMessage, error) {
	if len(body) > MaxBody {
		return nil, fmt.Errorf("decode envelope of %d bytes: %w: the limit is %d", len(body), errdefs.ErrInvalid, MaxBody)
	}
	var outer map[string]json.RawMessage
	if err := json.Unmarshal(body, &outer); err != nil {
		return nil, fmt.Errorf("decode envelope: %w: %w", errdefs.ErrInvalid, err)
	}
	rawVersion, hasVersion := outer["oslo.version"]
	rawMessage, hasMessage := outer["oslo.message"]
	if !hasVersion || !hasMessage {
		if outer == nil {
			return nil, fmt.Errorf("decode envelope: %w: not an object", errdefs.ErrInvalid)
		}
		return outer, nil
	}
	version := text(rawVersion)
	if !compatible(envelopeVersion, version) {
		return nil, fmt.Errorf("decode envelope: %w: version %q", errdefs.ErrInvalid, version)
	}
	var inner map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text(rawMessage)), &inner); err != nil {
		return nil, fmt.Errorf("decode message: %w: %w", errdefs.ErrInvalid, err)
	}
	if inner == nil {
		return nil, fmt.Errorf("decode message: %w: not an object", errdefs.ErrInvalid)
	}
	return inner, nil
}

// wireRequest is the payload of a call or cast
// (oslo_messaging/rpc/client.py, _make_message; _drivers/amqpdriver.py, _send).
type wireRequest struct {
	Method, Namespace, Version string
	Args                       map[string]json.RawMessage
	UniqueID                   string
	// MsgID, ReplyQ and Monitor are for calls only. Monitor is _timeout: the
	// caller gives up when it has heard nothing for so long; 0 means null.
	MsgID, ReplyQ string
	Monitor       time.Duration
	Context       RequestContext
}

func (r wireRequest) payload() map[string]any {
	p := map[string]any{
		"method":     r.Method,
		"args":       r.Args,
		"version":    r.Version,
		"_unique_id": r.UniqueID,
	}
	if r.Args == nil {
		p["args"] = struct{}{}
	}
	if r.Namespace != "" {
		p["namespace"] = r.Namespace
	}
	if r.MsgID != "" {
		p["_msg_id"], p["_reply_q"], p["_timeout"] = r.MsgID, r.ReplyQ, nil
		if s := int(r.Monitor / time.Second); s > 0 {
			p["_timeout"] = s
		}
	}
	for k, v := range r.Context.fields {
		p[contextPrefix+k] = v
	}
	return p
}

func decodeRequest(body []byte) (wireRequest, error) {
	p, err := DecodeEnvelope(body)
	if err != nil {
		return wireRequest{}, err
	}
	r := wireRequest{
		Method:    text(p["method"]),
		Namespace: text(p["namespace"]),
		Version:   text(p["version"]),
		UniqueID:  text(p["_unique_id"]),
		MsgID:     text(p["_msg_id"]),
		ReplyQ:    text(p["_reply_q"]),
		Monitor:   seconds(p["_timeout"]),
	}
	if r.Version == "" {
		r.Version = "1.0"
	}
	if raw, ok := p["args"]; ok {
		if err := json.Unmarshal(raw, &r.Args); err != nil {
			return wireRequest{}, fmt.Errorf("decode arguments of %q: %w: %w", r.Method, errdefs.ErrInvalid, err)
		}
	}
	fields := map[string]json.RawMessage{}
	for k, v := range p {
		if name, ok := strings.CutPrefix(k, contextPrefix); ok {
			fields[name] = v
		}
	}
	r.Context = RequestContext{fields: fields}
	return r, nil
}

// wireReply is the payload of a reply or of a heartbeat, which is a reply
// without result, failure and ending (_drivers/amqpdriver.py, _send_reply).
type wireReply struct {
	Result   json.RawMessage `json:"result"`
	Failure  *string         `json:"failure"`
	Ending   bool            `json:"ending"`
	MsgID    string          `json:"_msg_id"`
	UniqueID string          `json:"_unique_id"`
}

func decodeReply(body []byte) (wireReply, error) {
	p, err := DecodeEnvelope(body)
	if err != nil {
		return wireReply{}, err
	}
	r := wireReply{MsgID: text(p["_msg_id"]), UniqueID: text(p["_unique_id"])}
	if raw := p["result"]; !isNull(raw) {
		r.Result = raw
	}
	_ = json.Unmarshal(p["ending"], &r.Ending)
	if raw := p["failure"]; !isNull(raw) {
		s := text(raw)
		if s == "" && string(raw) != `""` {
			s = string(raw) // not encoded a third time
		}
		if s != "" {
			r.Failure = &s
		}
	}
	return r, nil
}

// marshal is json.Marshal that leaves <, > and & as they are.
func marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// text returns a JSON string's value, and "" for anything else.
func text(raw json.RawMessage) string {
	var s string
	_ = json.Unmarshal(raw, &s)
	return s
}

// seconds returns a JSON number as a duration, and 0 for anything else.
func seconds(raw json.RawMessage) time.Duration {
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || math.IsNaN(f) || f <= 0 || f > float64(math.MaxInt32) {
		return 0
	}
	return time.Duration(f * float64(time.Second))
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// newID returns 32 hexadecimal digits.
func newID() string { return strings.ReplaceAll(uuid.NewString(), "-", "") }

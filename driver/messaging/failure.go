package messaging

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// wireFailure is the string in a reply's failure field
// (oslo_messaging/_drivers/common.py, serialize_remote_exception). The
// receiver builds class(*args, **kwargs), so args holds the finished text and
// kwargs only what every exception of nova.exception accepts.
type wireFailure struct {
	Class   string         `json:"class"`
	Module  string         `json:"module"`
	Message string         `json:"message"`
	TB      []string       `json:"tb"`
	Args    []any          `json:"args"`
	Kwargs  map[string]any `json:"kwargs"`
}

// encodeFailure returns the failure string for e. No traceback is sent: it
// would show tenants our code and tells Nova nothing.
func encodeFailure(e *RemoteError) string {
	f := wireFailure{
		Class: e.Class, Module: e.Module, Message: e.Message,
		TB: []string{}, Args: []any{}, Kwargs: map[string]any{},
	}
	if e.Message != "" {
		f.Args = append(f.Args, e.Message)
	}
	if e.Module == novaModule {
		f.Kwargs["code"] = 500
		if e.Code != 0 {
			f.Kwargs["code"] = e.Code
		}
	}
	raw, err := marshal(f)
	if err != nil {
		return `{"class":"NovaException","module":"nova.exception","message":"","tb":[],"args":[],"kwargs":{}}`
	}
	return string(raw)
}

// decodeFailure reads a failure string; whatever it holds, the result says at
// least that the call failed remotely. Fields of unexpected types are left out.
func decodeFailure(s string) (*RemoteError, error) {
	var f map[string]json.RawMessage
	if err := json.Unmarshal([]byte(s), &f); err != nil {
		return nil, fmt.Errorf("decode failure: %w: %w", errdefs.ErrInvalid, err)
	}
	e := &RemoteError{
		Class:   strings.TrimSuffix(text(f["class"]), remoteSuffix),
		Module:  text(f["module"]),
		Message: text(f["message"]),
	}
	if e.Class == "" {
		return nil, fmt.Errorf("decode failure: %w: no class", errdefs.ErrInvalid)
	}
	_ = json.Unmarshal(f["tb"], &e.Traceback)
	var kwargs struct {
		Code json.RawMessage `json:"code"`
	}
	_ = json.Unmarshal(f["kwargs"], &kwargs)
	_ = json.Unmarshal(kwargs.Code, &e.Code)
	return e, nil
}

const (
	novaModule = "nova.exception"
	// remoteSuffix is what oslo appends to the class of an exception that was
	// remote already when it was sent on.
	remoteSuffix = "_Remote"
)

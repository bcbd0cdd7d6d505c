package network

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// style words errors as Neutron does (neutron/api/v2/resource.py), and those of
// tokens as keystonemiddleware.
type style struct{}

// Render implements rest.Style.
func (style) Render(e *rest.Error, _ *http.Request, _ string) (string, []byte) {
	if e.Status == http.StatusUnauthorized {
		return jsonType, marshal(map[string]any{"error": map[string]any{
			"code": e.Status, "title": "Unauthorized", "message": e.Message,
		}})
	}
	kind, text := e.Type, e.Message
	if kind == "" {
		kind = httpName(e.Status)
	}
	if text == "" {
		text = httpText(e.Status)
	}
	return jsonType, marshal(map[string]any{"NeutronError": map[string]any{"type": kind, "message": text, "detail": ""}})
}

const jsonType = "application/json"

func marshal(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		return []byte("{}") // maps of strings and numbers always can be
	}
	return data
}

// httpName is the class of webob.exc.
func httpName(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "HTTPBadRequest"
	case http.StatusForbidden:
		return "HTTPForbidden"
	case http.StatusNotFound:
		return "HTTPNotFound"
	case http.StatusMethodNotAllowed:
		return "HTTPMethodNotAllowed"
	case http.StatusConflict:
		return "HTTPConflict"
	case http.StatusRequestEntityTooLarge:
		return "HTTPRequestEntityTooLarge"
	case http.StatusNotImplemented:
		return "HTTPNotImplemented"
	case http.StatusServiceUnavailable:
		return "HTTPServiceUnavailable"
	}
	return "HTTPInternalServerError"
}

func httpText(status int) string {
	switch status {
	case http.StatusNotFound:
		return "The resource could not be found."
	case http.StatusMethodNotAllowed:
		return "The server could not comply with the request since it is either malformed or otherwise incorrect."
	case http.StatusInternalServerError:
		return "Request Failed: internal server error while processing your request."
	}
	return http.StatusText(status)
}

// fault makes an error of Neutron's: the name of its exception, and its text.
func fault(status int, kind, format string, args ...any) *rest.Error {
	e := rest.Errorf(status, format, args...)
	e.Type = kind
	return e
}

// bad is webob's HTTPBadRequest.
func bad(format string, args ...any) *rest.Error {
	return fault(http.StatusBadRequest, "HTTPBadRequest", format, args...)
}

// invalid is neutron_lib's InvalidInput.
func invalid(format string, args ...any) *rest.Error {
	return fault(http.StatusBadRequest, "InvalidInput", "Invalid input for operation: %s.", fmt.Sprintf(format, args...))
}

func conflict(kind, format string, args ...any) *rest.Error {
	return fault(http.StatusConflict, kind, format, args...)
}

func notFound(kind, format string, args ...any) *rest.Error {
	return fault(http.StatusNotFound, kind, format, args...)
}

// hidden is what a tenant reads of what it may see but not touch in places
// where Neutron hides it.
func hidden() *rest.Error {
	return notFound("HTTPNotFound", "The resource could not be found.")
}

// denied is oslo.policy's refusal of a rule.
func denied(rule string) *rest.Error {
	return fault(http.StatusForbidden, "PolicyNotAuthorized", "%s is disallowed by policy", rule)
}

package compute

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// style words errors as nova/api/openstack/wsgi.py, Fault.
type style struct{}

// noRoute marks the answer to a path that leads nowhere, which is not JSON.
const noRoute = "no route"

// elements are what a fault is called for its status.
func element(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "badRequest"
	case http.StatusUnauthorized:
		return "unauthorized"
	case http.StatusForbidden:
		return "forbidden"
	case http.StatusNotFound:
		return "itemNotFound"
	case http.StatusMethodNotAllowed:
		return "badMethod"
	case http.StatusConflict:
		return "conflictingRequest"
	case http.StatusRequestEntityTooLarge, http.StatusTooManyRequests:
		return "overLimit"
	case http.StatusUnsupportedMediaType:
		return "badMediaType"
	case http.StatusNotImplemented:
		return "notImplemented"
	case http.StatusServiceUnavailable:
		return "serviceUnavailable"
	}
	return "computeFault"
}

// words are what is said when nothing better is known.
func words(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "The server could not comply with the request since it is either malformed or otherwise incorrect."
	case http.StatusForbidden:
		return "Access was denied to this resource."
	case http.StatusNotFound:
		return "The resource could not be found."
	case http.StatusConflict:
		return "There was a conflict when trying to complete your request."
	case http.StatusGone:
		return "This resource is no longer available. No forwarding address is given."
	case http.StatusNotImplemented:
		return "The requested functionality is not supported."
	case http.StatusServiceUnavailable:
		return "The server is currently unavailable. Please try again at a later time."
	}
	return "Unexpected API Error. Please report this at http://bugs.launchpad.net/nova/ and attach the Nova API log if possible."
}

// Render implements rest.Style.
func (style) Render(e *rest.Error, r *http.Request, _ string) (string, []byte) {
	if e.Type == noRoute {
		return noRouteBody(r.Header.Get("Accept"))
	}
	message := e.Message
	if message == "" {
		message = words(e.Status)
	}
	data, err := json.Marshal(map[string]any{element(e.Status): map[string]any{"code": e.Status, "message": message}})
	if err != nil { // texts and numbers only: it cannot be
		data = fmt.Appendf(nil, `{"computeFault": {"code": %d}}`, e.Status)
	}
	return "application/json; charset=UTF-8", data
}

// noRouteBody is webob's page for a path that leads nowhere.
func noRouteBody(accept string) (string, []byte) {
	switch {
	case strings.Contains(accept, "html") || strings.Contains(accept, "*/*"):
		return "text/html; charset=UTF-8", []byte("<html>\n <head>\n  <title>404 Not Found</title>\n </head>\n <body>\n  <h1>404 Not Found</h1>\n" +
			"  The resource could not be found.<br /><br />\n\n\n\n </body>\n</html>")
	case strings.Contains(accept, "application/json"):
		return "application/json", []byte(`{"message": "The resource could not be found.<br /><br />\n\n\n", "code": "404 Not Found", "title": "Not Found"}`)
	}
	return "text/plain; charset=UTF-8", []byte("404 Not Found\n\nThe resource could not be found.\n\n   ")
}

func badRequest(format string, args ...any) error {
	return rest.Errorf(http.StatusBadRequest, format, args...)
}

func notFound(format string, args ...any) error {
	return rest.Errorf(http.StatusNotFound, format, args...)
}

func conflict(format string, args ...any) error {
	return rest.Errorf(http.StatusConflict, format, args...)
}

func forbidden(format string, args ...any) error {
	return rest.Errorf(http.StatusForbidden, format, args...)
}

// notSupported is raise_feature_not_supported.
func notSupported() error { return rest.Errorf(http.StatusNotImplemented, "") }

// allow refuses what the policy of that name does not let pass.
func allow(ok bool, policy string) error {
	if ok {
		return nil
	}
	return forbidden("Policy doesn't allow os_compute_api:%s to be performed.", policy)
}

package placement

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// Codes of errors (placement/errors.py).
const (
	codeUndefined    = "placement.undefined_code"
	codeInUse        = "placement.inventory.inuse"
	codeConcurrent   = "placement.concurrent_update"
	codeDuplicate    = "placement.duplicate_name"
	codeProviderUsed = "placement.resource_provider.inuse"
	codeParent       = "placement.resource_provider.cannot_delete_parent"
)

// explanations are what webob says of a status.
var explanations = map[int]string{
	http.StatusBadRequest:          "The server could not comply with the request since it is either malformed or otherwise incorrect.",
	http.StatusForbidden:           "Access was denied to this resource.",
	http.StatusNotFound:            "The resource could not be found.",
	http.StatusMethodNotAllowed:    "The method specified is not allowed for this resource.",
	http.StatusNotAcceptable:       "The resource could not be generated that was acceptable to your browser (content\nof type application/json).",
	http.StatusConflict:            "There was a conflict when trying to complete your request.",
	http.StatusInternalServerError: "The server has either erred or is incapable of performing the requested operation.",
}

// style is the JSON of placement/util.py json_error_formatter.
type style struct{}

// Render implements rest.Style.
func (style) Render(e *rest.Error, r *http.Request, requestID string) (string, []byte) {
	detail := explanations[e.Status]
	if detail == "" {
		detail = http.StatusText(e.Status)
	}
	detail += "\n\n "
	if e.Message != "" {
		detail += e.Message
	}
	detail += "  "
	if e.Status == http.StatusMethodNotAllowed {
		detail = "The method " + r.Method + " is not allowed for this resource. \n\n " + explanations[e.Status]
	}
	fault := map[string]any{
		"status": e.Status, "title": http.StatusText(e.Status), "detail": detail, "request_id": requestID,
	}
	if e.Status != http.StatusNotAcceptable {
		code := e.Type
		if code == "" {
			code = codeUndefined
		}
		fault["code"] = code
	} else {
		fault["min_version"], fault["max_version"] = microversions.Min.String(), microversions.Max.String()
	}
	body, err := json.Marshal(map[string]any{"errors": []any{fault}})
	if err != nil { // strings and numbers only
		return "text/plain", []byte(detail)
	}
	return "application/json", body
}

// conflict is 409 with a code.
func conflict(code, format string, args ...any) *rest.Error {
	e := rest.Errorf(http.StatusConflict, format, args...)
	e.Type = code
	return e
}

func badRequest(format string, args ...any) *rest.Error {
	return rest.Errorf(http.StatusBadRequest, format, args...)
}

func notFound(format string, args ...any) *rest.Error {
	return rest.Errorf(http.StatusNotFound, format, args...)
}

// asRefusal finds an answer in an error.
func asRefusal(err error) (*rest.Error, bool) { return errors.AsType[*rest.Error](err) }

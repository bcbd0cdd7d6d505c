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

// style is the JSON of placement/util.py json_error_formatter.
type style struct{}

// Render implements rest.Style.
func (style) Render(e *rest.Error, r *http.Request, requestID string) (string, []byte) {
	message := e.Message
	if message == "" {
		switch e.Status {
		case http.StatusNotFound:
			message = "The resource could not be found."
		case http.StatusMethodNotAllowed:
			message = "The method specified is not allowed for this resource."
		case http.StatusInternalServerError:
			message = "The server has either erred or is incapable of performing the requested operation."
		}
	}
	fault := map[string]any{
		"status": e.Status, "title": http.StatusText(e.Status), "detail": message + "\n\n  ", "request_id": requestID,
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
		return "text/plain", []byte(message)
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

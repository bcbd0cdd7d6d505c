package identity

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// style is {"error":{"code","message","title"}} (keystone.exception, rendered by
// keystone.server.flask.application), and Flask's pages where no route is.
type style struct{}

// Render implements rest.Style.
func (style) Render(e *rest.Error, r *http.Request, _ string) (contentType string, body []byte) {
	title, message := http.StatusText(e.Status), e.Message
	if message == "" {
		switch e.Status {
		case http.StatusNotFound:
			return page(title, "The requested URL was not found on the server. If you entered the URL manually please check your spelling and try again.")
		case http.StatusMethodNotAllowed:
			if r.URL.Path != "/" && r.URL.Path != "/v3" {
				return "application/json", []byte(`{"message":"The method is not allowed for the requested URL."}`)
			}
			return page(title, "The method is not allowed for the requested URL.")
		case http.StatusBadRequest:
			message = malformed
		case http.StatusConflict:
			message = "Conflict occurred attempting to store it."
		default:
			message = "An unexpected error prevented the server from fulfilling your request."
		}
	}
	told := map[string]any{"code": e.Status, "message": message, "title": title}
	if e.Type == withIdentity {
		told["identity"] = struct{}{}
	}
	body, err := json.Marshal(map[string]any{"error": told})
	if err != nil { // strings and a number
		panic(err)
	}
	return "application/json", body
}

func page(title, text string) (contentType string, body []byte) {
	code := http.StatusNotFound
	if title == http.StatusText(http.StatusMethodNotAllowed) {
		code = http.StatusMethodNotAllowed
	}
	return "text/html; charset=utf-8", fmt.Appendf(nil, "<!doctype html>\n<html lang=en>\n<title>%d %s</title>\n<h1>%s</h1>\n<p>%s</p>\n", code, title, title, text)
}

// withIdentity marks the errors that carry an empty "identity" beside the text.
const withIdentity = "AuthPluginException"

const malformed = "The server could not comply with the request since it is either malformed or otherwise incorrect. The client is assumed to be in error."

// expecting is keystone.exception.ValidationError.
func expecting(attribute, target string) error {
	return rest.Errorf(http.StatusBadRequest, "Expecting to find %s in %s. %s", attribute, target, malformed)
}

func notFound(what, id string) error {
	return rest.Errorf(http.StatusNotFound, "Could not find %s: %s.", what, id)
}

func invalid(format string, args ...any) error {
	return rest.Errorf(http.StatusBadRequest, format, args...)
}

func forbidden(format string, args ...any) error {
	return rest.Errorf(http.StatusForbidden, format, args...)
}

// denied is what a policy says.
func denied(action string) error {
	return forbidden("You are not authorized to perform the requested action: %s.", action)
}

// unauthorized tells nobody why.
func unauthorized(cause error) error {
	return rest.Errorf(http.StatusUnauthorized, "The request you have made requires authentication.").Because(cause)
}

func conflict(kind, details string) error {
	return rest.Errorf(http.StatusConflict, "Conflict occurred attempting to store %s - %s.", kind, details)
}

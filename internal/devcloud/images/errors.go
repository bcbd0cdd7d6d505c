package images

import (
	"encoding/json"
	"fmt"
	"html"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/gantry-project/gantry/internal/devcloud/lazyregexp"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// style is webob's: a page, or JSON or text for those who ask for that and not
// for HTML.
type style struct{}

// asText marks the errors that are text for everybody.
const asText = "text/plain"

// asDetail marks the errors whose text follows that of their status.
const asDetail = "detail"

// texts of webob.exc for errors without an explanation.
var texts = map[int]string{
	http.StatusBadRequest:                   "The server could not comply with the request since it is either malformed or otherwise incorrect.",
	http.StatusUnauthorized:                 "This server could not verify that you are authorized to access the document you requested. Either you supplied the wrong credentials (e.g., bad password), or your browser does not understand how to supply the credentials required.",
	http.StatusForbidden:                    "Access was denied to this resource.",
	http.StatusNotFound:                     "The resource could not be found.",
	http.StatusMethodNotAllowed:             "The method specified is not allowed for this resource.",
	http.StatusConflict:                     "There was a conflict when trying to complete your request.",
	http.StatusRequestEntityTooLarge:        "The body of your request was too large for this server.",
	http.StatusRequestedRangeNotSatisfiable: "The Range requested is not available.",
	http.StatusUnsupportedMediaType:         "The request media type is not supported by this server.",
	http.StatusInternalServerError:          "The server has either erred or is incapable of performing the requested operation.",
	http.StatusNotImplemented:               "The server does not support the requested operation.",
	http.StatusServiceUnavailable:           "The server is currently unavailable. Please try again at a later time.",
}

// Render implements rest.Style.
func (style) Render(e *rest.Error, r *http.Request, _ string) (contentType string, body []byte) {
	message := e.Message
	if message == "" || e.Status == http.StatusUnauthorized {
		message = texts[e.Status]
	}
	title := http.StatusText(e.Status)
	if e.Status == http.StatusRequestedRangeNotSatisfiable {
		title = "Request Range Not Satisfiable"
	}
	status, more := fmt.Sprintf("%d %s", e.Status, title), ""
	if e.Type == asDetail {
		message, more = texts[e.Status], message
	}
	if e.Status == http.StatusMethodNotAllowed {
		message = "The method " + r.Method + " is not allowed for this resource."
	}
	page, document := accepts(r, "text/html"), accepts(r, "application/json")
	switch {
	case e.Type == asText || page == 0 && document == 0:
		return "text/plain; charset=UTF-8", fmt.Appendf(nil, "%s\n\n%s\n\n%s\n   ", status, message, more)
	case document > page:
		body, err := json.Marshal(map[string]string{"code": status, "title": title, "message": escape(message) + "<br /><br />\n" + escape(more) + "\n\n"})
		if err != nil { // strings
			panic(err)
		}
		return "application/json", body
	}
	return "text/html; charset=UTF-8", fmt.Appendf(nil, "<html>\n <head>\n  <title>%s</title>\n </head>\n <body>\n  <h1>%s</h1>\n  %s<br /><br />\n%s\n\n\n </body>\n</html>", status, status, escape(message), escape(more))
}

// escape is Python's html.escape.
func escape(s string) string {
	return strings.NewReplacer("&#34;", "&quot;", "&#39;", "&#x27;").Replace(html.EscapeString(s))
}

// accepts is how much a client wants a type of content, from 0 to 1.
func accepts(r *http.Request, kind string) (most float64) {
	family, _, _ := strings.Cut(kind, "/")
	exact := -1
	for _, h := range r.Header.Values("Accept") {
		for one := range strings.SplitSeq(h, ",") {
			name, params, err := mime.ParseMediaType(strings.TrimSpace(one))
			rank := slices.Index([]string{"*/*", family + "/*", kind}, name)
			if err != nil || rank < exact || rank < 0 {
				continue
			}
			q, err := strconv.ParseFloat(or(params["q"], "1"), 64)
			if err != nil {
				continue
			}
			most, exact = q, rank
		}
	}
	return most
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func notFound(id string) error {
	return rest.Errorf(http.StatusNotFound, "No image found with ID %s", id)
}

func invalid(format string, args ...any) error {
	return rest.Errorf(http.StatusBadRequest, format, args...)
}

func forbidden(format string, args ...any) error {
	return rest.Errorf(http.StatusForbidden, format, args...)
}

func conflict(format string, args ...any) error {
	return rest.Errorf(http.StatusConflict, format, args...)
}

func detail(status int, format string, args ...any) error {
	e := rest.Errorf(status, format, args...)
	e.Type = asDetail
	return e
}

func wrongType(r *rest.Request) *rest.Error {
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	return rest.Errorf(http.StatusUnsupportedMediaType, "The request media type %s is not supported by this server.", kind)
}

var oneRange = lazyregexp.New(`^bytes=(?:(\d+)-(\d*)|-(\d+))$`)

// checkRange refuses ranges of data of that size which cannot be answered.
func checkRange(asked string, size *int64) error {
	if asked == "" || size == nil {
		return nil
	}
	m := oneRange.FindStringSubmatch(asked)
	if m == nil {
		return detail(http.StatusRequestedRangeNotSatisfiable, "Invalid Range header.")
	}
	from, errFrom := strconv.ParseInt(or(m[1], "0"), 10, 64)
	to, errTo := strconv.ParseInt(or(m[2], "9223372036854775807"), 10, 64)
	if errFrom != nil || errTo != nil || to < from {
		return detail(http.StatusRequestedRangeNotSatisfiable, "Invalid Range header.")
	}
	if from >= *size {
		return detail(http.StatusRequestedRangeNotSatisfiable, "Invalid start position in Range header. Start position MUST be in the inclusive range [0, %d].", *size-1)
	}
	return nil
}

// tooMuch is a quota that would be exceeded.
func tooMuch(what string, attempted, most int) error {
	e := rest.Errorf(http.StatusRequestEntityTooLarge, "The limit has been exceeded on the number of allowed image %s. Attempted: %d, Maximum: %d", what, attempted, most)
	e.Type = asText
	return e
}

// denied is what a policy says.
func denied(action string) error {
	return forbidden("You are not authorized to complete %s action.", action)
}

// transition is a change of state that there is none of.
func transition(from, to string) error {
	return conflict("Image status transition from %s to %s is not allowed", from, to)
}

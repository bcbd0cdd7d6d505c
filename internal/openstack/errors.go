package openstack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// StatusError is an answer of a service that is not a success.
type StatusError struct {
	// Status is the HTTP status.
	Status int
	// Type is the service's own name of the error ("OverQuota"), or empty.
	Type string
	// Message is what the service said, shortened.
	Message string
}

// Error returns status, type and message.
func (e *StatusError) Error() string {
	s := fmt.Sprintf("status %d", e.Status)
	if e.Type != "" {
		s += " " + e.Type
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// Unwrap returns the error class that the status means.
func (e *StatusError) Unwrap() error {
	switch s := e.Status; {
	case s == http.StatusNotFound || s == http.StatusGone:
		return errdefs.ErrNotFound
	case e.Type == "OverQuota" || s == http.StatusRequestEntityTooLarge || s == http.StatusInsufficientStorage:
		return errdefs.ErrExhausted
	case s == http.StatusConflict || s == http.StatusPreconditionFailed:
		return errdefs.ErrConflict
	case s == http.StatusUnauthorized || s == http.StatusForbidden:
		return errdefs.ErrForbidden
	case s == http.StatusNotImplemented:
		return errdefs.ErrUnsupported
	case s == http.StatusTooManyRequests || s == http.StatusRequestTimeout:
		return errdefs.ErrUnavailable
	case s >= 400 && s < 500:
		return errdefs.ErrInvalid
	}
	return errdefs.ErrUnavailable // 5xx, and redirects, which nobody follows
}

// Classify turns the error of a gophercloud call into one of ours: a
// *StatusError for an answer, ctx's own error when ctx has ended, and
// errdefs.ErrUnavailable for everything that kept the answer from coming. op
// says what was tried. A nil err stays nil.
func Classify(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*gophercloud.ErrUnableToReauthenticate](err); ok {
		err = e.ErrReauth
	}
	if e, ok := errors.AsType[*gophercloud.ErrErrorAfterReauthentication](err); ok {
		err = e.ErrOriginal
	}
	if e, ok := errors.AsType[gophercloud.ErrUnexpectedResponseCode](err); ok {
		return fmt.Errorf("%s: %w", op, statusError(e.Actual, e.Body))
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", op, ctx.Err())
	}
	for _, class := range []error{errdefs.ErrUnavailable, errdefs.ErrForbidden, errdefs.ErrInvalid, errdefs.ErrNotFound} {
		if errors.Is(err, class) {
			return fmt.Errorf("%s: %w", op, err)
		}
	}
	return fmt.Errorf("%s: %w: %w", op, errdefs.ErrUnavailable, err)
}

const maxMessage = 500

// statusError reads the body of an error in the forms of Neutron, Keystone,
// Placement and Glance; anything else is taken as text.
func statusError(status int, body []byte) *StatusError {
	e := &StatusError{Status: status}
	var doc struct {
		Neutron json.RawMessage `json:"NeutronError"`
		Error   struct {
			Message string `json:"message"`
		} `json:"error"`
		Errors []struct {
			Detail string `json:"detail"`
			Code   string `json:"code"`
		} `json:"errors"`
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &doc) != nil {
		e.Message = shorten(plain(string(body)))
		return e
	}
	var n struct{ Type, Message, Detail string }
	switch {
	case len(doc.Neutron) > 0:
		if json.Unmarshal(doc.Neutron, &n) == nil {
			e.Type, e.Message = n.Type, n.Message
		} else {
			e.Message = string(doc.Neutron)
		}
	case doc.Error.Message != "":
		e.Message = doc.Error.Message
	case len(doc.Errors) > 0:
		e.Type, e.Message = doc.Errors[0].Code, doc.Errors[0].Detail
	default:
		e.Message = doc.Message
	}
	e.Type, e.Message = shorten(e.Type), shorten(e.Message)
	return e
}

// plain drops the tags of an HTML page and folds white space.
func plain(s string) string {
	var b strings.Builder
	depth := 0
	for _, r := range s {
		switch {
		case r == '<':
			depth++
			b.WriteByte(' ')
		case r == '>' && depth > 0:
			depth--
		case depth == 0:
			b.WriteRune(r)
		}
	}
	return strings.Join(strings.Fields(html.UnescapeString(b.String())), " ")
}

func shorten(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= maxMessage {
		return s
	}
	for s = s[:maxMessage]; !utf8.ValidString(s); {
		s = s[:len(s)-1]
	}
	return s
}

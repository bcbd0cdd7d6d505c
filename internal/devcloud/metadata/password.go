package metadata

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
)

// A password is kept in parts in the system metadata
// (nova/api/metadata/password.py): a row holds 255 characters.
const (
	passwordKey    = "password_"
	passwordParts  = 4
	passwordLength = 255
)

// password answers with the (encrypted) password that the guest has left here,
// or takes it, once.
func (s *Service) password(r *http.Request, i objects.Instance) (answer, error) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return text(kept(i)), nil
	case http.MethodPost:
	default:
		return answer{}, &refusal{http.StatusBadRequest, "GET and POST only are supported."}
	}
	const most = passwordParts * passwordLength
	body, err := io.ReadAll(io.LimitReader(r.Body, most+1))
	if err != nil {
		return answer{}, &refusal{http.StatusBadRequest, "Request is incomplete."}
	}
	if len(body) > most {
		return answer{}, &refusal{http.StatusBadRequest, "Request is too large."}
	}
	if !utf8.Valid(body) {
		return answer{}, &refusal{http.StatusBadRequest, "Request is no text."}
	}
	_, err = s.o.Cell.UpdateInstance(r.Context(), i.UUID(), cell.Expect{}, func(i objects.Instance) error {
		if kept(i) != "" {
			return &refusal{http.StatusConflict, "There was a conflict when trying to complete your request."}
		}
		return keep(i, []rune(string(body)))
	})
	return text(""), err
}

// kept is the password of an instance, "" for none.
func kept(i objects.Instance) string {
	var w strings.Builder
	all := i.SystemMetadata()
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if strings.HasPrefix(key, passwordKey) {
			w.WriteString(all[key])
		}
	}
	return w.String()
}

func keep(i objects.Instance, password []rune) error {
	for part := range passwordParts {
		n := min(len(password), passwordLength)
		if err := i.PutSystemMetadata(fmt.Sprint(passwordKey, part), string(password[:n])); err != nil {
			return err
		}
		password = password[n:]
	}
	return nil
}

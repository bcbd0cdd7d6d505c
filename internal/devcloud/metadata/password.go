package metadata

import (
	"io"
	"net/http"
	"unicode/utf8"

	"github.com/gantry-project/gantry/driver/metadata"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
)

// password answers with the (encrypted) password that the guest has left here,
// or takes it, once.
func (s *Service) password(r *http.Request, i objects.Instance) (answer, error) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return text(metadata.Password(i)), nil
	case http.MethodPost:
	default:
		return answer{}, &refusal{http.StatusBadRequest, "GET and POST only are supported."}
	}
	const most = metadata.MaxPassword
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
		if metadata.Password(i) != "" {
			return &refusal{http.StatusConflict, "There was a conflict when trying to complete your request."}
		}
		return metadata.PutPassword(i, string(body))
	})
	return text(""), err
}

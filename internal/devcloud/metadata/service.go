package metadata

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"path"
	"strings"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// Cell has the instances. *cell.Store is one.
type Cell interface {
	// Instance returns an instance that is not deleted; errdefs.ErrNotFound.
	Instance(ctx context.Context, id string) (objects.Instance, error)
	// BlockDevices returns the disks of instances, by instance.
	BlockDevices(ctx context.Context, instances ...string) (map[string][]*objects.Object, error)
	// UpdateInstance changes an instance in one transaction.
	UpdateInstance(ctx context.Context, id string, expect cell.Expect, change func(objects.Instance) error) (objects.Instance, error)
}

// Groups knows the names of security groups.
type Groups interface {
	// GroupNames are those of an instance's ports, each once.
	GroupNames(ctx context.Context, instance string) ([]string, error)
}

// Options of a Service.
type Options struct {
	Cell   Cell
	Groups Groups
	// Secret is shared with the proxy; not empty.
	Secret []byte
	Log    zerolog.Logger
}

// Service answers what a proxy that knows the secret asks for an instance.
// Safe for concurrent use.
type Service struct{ o Options }

// New returns a Service; without a secret it is errdefs.ErrInvalid.
func New(o Options) (*Service, error) {
	if len(o.Secret) == 0 {
		return nil, fmt.Errorf("metadata service: no secret: %w", errdefs.ErrInvalid)
	}
	return &Service{o}, nil
}

// The headers that Neutron's metadata agent sets.
const (
	headerInstance  = "X-Instance-ID"
	headerSignature = "X-Instance-ID-Signature"
	headerTenant    = "X-Tenant-ID"
	headerAddress   = "X-Forwarded-For"
)

// Types of answers.
const (
	typeText = "text/plain; charset=UTF-8"
	typeJSON = "application/json"
)

// answer is a body with its type.
type answer struct {
	kind string
	body []byte
}

func text(s string) answer { return answer{typeText, []byte(s)} }

// refusal is an error that is told to who asked.
type refusal struct {
	status int
	text   string
}

// Error is what is told.
func (r *refusal) Error() string { return r.text }

func notFound() error { return &refusal{http.StatusNotFound, "The resource could not be found."} }

// ServeHTTP implements http.Handler. Only the list of versions at / is told to
// anybody; without a header it is 400, with a wrong signature 403, and for an
// instance that is unknown or of another tenant 404.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a, err := s.answer(r)
	var no *refusal
	switch {
	case errors.As(err, &no):
	case err != nil:
		s.o.Log.Error().Err(err).Str(logging.Instance, r.Header.Get(headerInstance)).Msg("metadata is not to be had")
		no = &refusal{http.StatusInternalServerError, "An unknown error has occurred. Please try your request again."}
	}
	if no != nil {
		a = text(fmt.Sprintf("%d %s\n\n%s\n\n   ", no.status, http.StatusText(no.status), no.text))
	}
	w.Header().Set("Content-Type", a.kind)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if no != nil {
		w.WriteHeader(no.status)
	}
	_, _ = w.Write(a.body) // who asked has gone
}

func (s *Service) answer(r *http.Request) (answer, error) {
	where := path.Clean("/" + r.URL.Path)
	if where == "/" {
		return text(strings.Join(ec2Listed(), "\n")), nil
	}
	i, err := s.caller(r)
	if err != nil {
		return answer{}, err
	}
	form, rest, _ := strings.Cut(where[1:], "/")
	switch form {
	case "openstack":
		return s.openStack(r, i, rest)
	case "ec2":
		return s.ec2(r, i, rest)
	}
	return s.ec2(r, i, where[1:])
}

// caller is the instance that a proxy vouches for.
func (s *Service) caller(r *http.Request) (objects.Instance, error) {
	var none objects.Instance
	for _, name := range []string{headerInstance, headerSignature, headerTenant} {
		switch len(r.Header.Values(name)) {
		case 0:
			return none, &refusal{http.StatusBadRequest, name + " header is missing from request."}
		case 1:
		default:
			return none, &refusal{http.StatusBadRequest, "Multiple " + name + " headers found within request."}
		}
	}
	id := r.Header.Get(headerInstance)
	if !hmac.Equal([]byte(sign(s.o.Secret, id)), []byte(r.Header.Get(headerSignature))) {
		s.o.Log.Warn().Str(logging.Instance, id).Str("from", r.Header.Get(headerAddress)).Str("cost", "refused").Msg("metadata request with a wrong signature")
		return none, &refusal{http.StatusForbidden, "Invalid proxy request signature."}
	}
	i, err := s.o.Cell.Instance(r.Context(), id)
	if errors.Is(err, errdefs.ErrNotFound) {
		return none, notFound()
	}
	if err != nil {
		return none, err
	}
	if tenant := r.Header.Get(headerTenant); i.ProjectID() != tenant {
		s.o.Log.Warn().Str(logging.Instance, id).Str("tenant", tenant).Str("cost", "refused").Msg("metadata request of another tenant")
		return none, notFound()
	}
	return i, nil
}

// sign is the signature of an instance's id: HMAC-SHA256 in hexadecimal digits
// (nova/api/metadata/handler.py, _validate_shared_secret).
func sign(secret []byte, id string) string {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(id))
	return hex.EncodeToString(h.Sum(nil))
}

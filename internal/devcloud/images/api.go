package images

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func (s *Service) imageRoutes() {
	s.api.Handle("GET /v2/images", s.list)
	s.api.Handle("POST /v2/images", s.post)
	s.api.Handle("GET /v2/images/{id}", s.show)
	s.api.Handle("PATCH /v2/images/{id}", s.patch)
	s.api.Handle("DELETE /v2/images/{id}", s.delete)
	s.api.Handle("PUT /v2/images/{id}/tags/{tag}", s.putTag)
	s.api.Handle("DELETE /v2/images/{id}/tags/{tag}", s.deleteTag)
	s.api.Handle("POST /v2/images/{id}/actions/deactivate", func(ctx context.Context, r *rest.Request) (*rest.Response, error) {
		return s.move(ctx, r, "deactivate_image", "active", "deactivated")
	})
	s.api.Handle("POST /v2/images/{id}/actions/reactivate", func(ctx context.Context, r *rest.Request) (*rest.Response, error) {
		return s.move(ctx, r, "reactivate_image", "deactivated", "active")
	})
	s.api.Handle("GET /v2/images/{id}/tasks", func(ctx context.Context, r *rest.Request) (*rest.Response, error) {
		if _, err := s.Image(ctx, r.Caller, r.PathValue("id")); err != nil {
			return nil, err
		}
		return rest.OK(map[string]any{"tasks": []any{}})
	})
}

// done is 204 as Glance sends it, with a type of nothing.
func done() (*rest.Response, error) {
	return &rest.Response{Status: http.StatusNoContent, Header: http.Header{"Content-Type": {"text/html; charset=UTF-8"}}}, nil
}

// readObject reads a body that has to be an object.
func readObject(r *rest.Request) (map[string]any, error) {
	v, err := readBody(r)
	if err != nil {
		return nil, err
	}
	body, ok := v.(map[string]any)
	if !ok {
		return nil, invalid("Provided object does not match schema 'image': %s is not of type 'object'", rest.Repr(v))
	}
	return body, nil
}

func readBody(r *rest.Request) (v any, err error) {
	data, err := r.Bytes()
	if err != nil {
		return nil, err
	}
	if len(data) == 0 {
		return nil, invalid("Body expected in request.")
	}
	if err := rest.Unmarshal(data, &v); err != nil {
		return nil, invalid("Malformed JSON in request body.")
	}
	if kind := typeOf(v); kind != "object" && kind != "array" {
		return nil, invalid("Unexpected body type. Expected list/dict.")
	}
	return v, nil
}

func (s *Service) post(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	body, err := readObject(r)
	if err != nil {
		return nil, err
	}
	i, err := s.create(ctx, r.Caller, body)
	if err != nil {
		return nil, err
	}
	return &rest.Response{
		Status: http.StatusCreated, Body: i.view(),
		Header: http.Header{"Location": {r.Base() + "/v2/images/" + i.ID}, "Openstack-Image-Import-Methods": {"glance-direct"}},
	}, nil
}

// create makes an image of what a request says.
func (s *Service) create(ctx context.Context, who *rest.Caller, body map[string]any) (*Image, error) {
	for _, name := range disallowed {
		if _, ok := body[name]; ok {
			return nil, forbidden("Attribute '%s' is read-only.", name)
		}
	}
	if err := check(body); err != nil {
		return nil, err
	}
	now := time.UnixMicro(s.now()).UTC()
	i := &Image{ID: uuid.NewString(), Status: "queued", Visibility: "shared", Owner: &who.ProjectID, Created: now, Updated: now, Tags: []string{}, Properties: map[string]string{}}
	for name, v := range body {
		a, known := attributes[name]
		switch text, _ := v.(string); {
		case name == "id":
			i.ID = strings.ToLower(text)
		case name == "locations":
			return nil, forbidden("Attribute '%s' is reserved.", name)
		case slices.Contains(readOnly, name):
			return nil, forbidden("Attribute '%s' is read-only.", name)
		case known:
			a.set(i, v)
		case len(name) > 255:
			return nil, invalid("Custom property should not be greater than 255 characters.")
		case isReserved(name):
			return nil, detail(http.StatusForbidden, "Attribute '%s' is reserved.", name)
		default:
			i.Properties[name] = text
		}
	}
	if err := mayCreate(who, i); err != nil {
		return nil, err
	}
	if err := checkValues(i); err != nil {
		return nil, err
	}
	leave, ok := s.enter(i.ID)
	if !ok {
		return nil, conflict("Image ID %s already exists!", i.ID)
	}
	defer leave()
	err := s.db.Write(ctx, func(tx *sql.Tx) error { return i.insert(ctx, tx) })
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		return nil, conflict("Image ID %s already exists!", i.ID)
	}
	return i, err
}

func mayCreate(who *rest.Caller, i *Image) error {
	if !who.Admin() && (i.Owner == nil || *i.Owner != who.ProjectID) {
		owner := "None"
		if i.Owner != nil {
			owner = *i.Owner
		}
		return forbidden("You are not permitted to create images owned by '%s'.", owner)
	}
	if !who.Member() {
		return denied("add_image")
	}
	return mayShow(who, i.Visibility)
}

func (s *Service) show(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	i, err := s.Image(ctx, r.Caller, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return rest.OK(i.view())
}

func (s *Service) delete(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := s.Delete(ctx, r.Caller, r.PathValue("id")); err != nil {
		return nil, err
	}
	return done()
}

// remove deletes an image and its data.
func (s *Service) remove(ctx context.Context, who *rest.Caller, id string) error {
	err := s.db.Write(ctx, func(tx *sql.Tx) error {
		i, err := getOwn(ctx, tx, who, id, "delete_image")
		if e, ok := errors.AsType[*rest.Error](err); ok && e.Status == http.StatusNotFound {
			return rest.Errorf(http.StatusNotFound, "Failed to find image %s to delete", id)
		}
		if err != nil {
			return err
		}
		if i.Protected {
			return forbidden("Image %s is protected and cannot be deleted.", id)
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM images WHERE id = ?`, id)
		return err
	})
	if err != nil {
		return err
	}
	// the id came out of the database, so it is a UUID; an absent file is fine,
	// another one goes at the next start
	for _, dir := range []string{"data", "staging"} {
		if err := os.Remove(s.path(dir, id)); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.o.Log.Warn().Err(err).Str("image", id).Msg("data of a deleted image stays until the next start")
		}
	}
	return nil
}

// move is an action that changes the state.
func (s *Service) move(ctx context.Context, r *rest.Request, action, from, to string) (*rest.Response, error) {
	id := r.PathValue("id")
	err := s.db.Write(ctx, func(tx *sql.Tx) error {
		i, err := getOwn(ctx, tx, r.Caller, id, action)
		switch {
		case err != nil:
			return err
		case i.Status == to:
			return nil
		case i.Status != from:
			return forbidden("Not allowed to %s image in status '%s'", strings.TrimSuffix(action, "_image"), i.Status)
		}
		_, err = tx.ExecContext(ctx, `UPDATE images SET status = ?, updated_at = ? WHERE id = ?`, to, s.now(), id)
		return err
	})
	if err != nil {
		return nil, err
	}
	return done()
}

// retag changes the tags of an image.
func (s *Service) retag(ctx context.Context, r *rest.Request, verb string, f func(i *Image) error) (*rest.Response, error) {
	id := r.PathValue("id")
	err := s.db.Write(ctx, func(tx *sql.Tx) error {
		i, err := get(ctx, tx, r.Caller, id)
		if err != nil {
			return err
		}
		if mayChange(r.Caller, i, "") != nil {
			return forbidden("Not allowed to %s tags for image %s.", verb, id)
		}
		if err := f(i); err != nil {
			return err
		}
		return i.save(ctx, tx, s.now())
	})
	if e, ok := errors.AsType[*rest.Error](err); ok && e.Status == http.StatusNotFound && e.Message != "" {
		return nil, rest.Errorf(http.StatusNotFound, "Image %s not found.", id)
	}
	if err != nil {
		return nil, err
	}
	return done()
}

func (s *Service) putTag(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	tag := r.PathValue("tag")
	if err := check(map[string]any{"tags": []any{tag}}); err != nil {
		return nil, err
	}
	if strings.Contains(tag, "/") { // Glance has no such path
		return nil, rest.Errorf(http.StatusNotFound, "")
	}
	return s.retag(ctx, r, "update", func(i *Image) error {
		i.Tags = append(i.Tags, tag)
		return nil
	})
}

func (s *Service) deleteTag(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	return s.retag(ctx, r, "delete", func(i *Image) error {
		at := slices.Index(i.Tags, r.PathValue("tag"))
		if at < 0 {
			return rest.Errorf(http.StatusNotFound, "")
		}
		i.Tags = slices.Delete(i.Tags, at, at+1)
		return nil
	})
}

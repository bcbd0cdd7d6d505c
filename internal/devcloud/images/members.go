package images

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func (s *Service) memberRoutes() {
	s.api.Handle("GET /v2/images/{id}/members", s.listMembers)
	s.api.Handle("POST /v2/images/{id}/members", s.postMember)
	s.api.Handle("GET /v2/images/{id}/members/{member}", s.getMember)
	s.api.Handle("PUT /v2/images/{id}/members/{member}", s.putMember)
	s.api.Handle("DELETE /v2/images/{id}/members/{member}", s.deleteMember)
}

// member is a project that an image is shared with.
type member struct {
	image, project, status string
	created, updated       int64
}

func (m *member) view() map[string]any {
	return map[string]any{
		"member_id": m.project, "image_id": m.image, "status": m.status, "schema": "/v2/schemas/member",
		"created_at": stamp(time.UnixMicro(m.created).UTC()), "updated_at": stamp(time.UnixMicro(m.updated).UTC()),
	}
}

// queryMembers reads the members of an image that the caller may know: the
// owner knows all, a member itself.
func queryMembers(ctx context.Context, tx *sql.Tx, who *rest.Caller, i *Image) (all []*member, err error) {
	only := sql.NullString{String: who.ProjectID, Valid: !owns(who, i)}
	rows, err := tx.QueryContext(ctx, `SELECT image_id, member_id, status, created_at, updated_at FROM members
		WHERE image_id = ? AND ifnull(?, member_id) = member_id ORDER BY created_at, member_id`, i.ID, only)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		m := &member{}
		if err := rows.Scan(&m.image, &m.project, &m.status, &m.created, &m.updated); err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, rows.Err()
}

func owns(who *rest.Caller, i *Image) bool {
	return who.Admin() || i.Owner != nil && *i.Owner == who.ProjectID
}

// shared reads the image of a path whose members are asked for.
func shared(ctx context.Context, tx *sql.Tx, r *rest.Request) (*Image, error) {
	id := r.PathValue("id")
	i, err := get(ctx, tx, r.Caller, id)
	if e, ok := errors.AsType[*rest.Error](err); ok && e.Status == http.StatusNotFound {
		return nil, rest.Errorf(http.StatusNotFound, "Image %s not found.", id)
	}
	return i, err
}

// one finds the member of a path.
func one(ctx context.Context, tx *sql.Tx, r *rest.Request, i *Image) (*member, error) {
	all, err := queryMembers(ctx, tx, r.Caller, i)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(all, func(m *member) bool { return m.project == r.PathValue("member") })
	if at < 0 {
		return nil, rest.Errorf(http.StatusNotFound, "%s not found in the member list of the image %s.", r.PathValue("member"), i.ID)
	}
	return all[at], nil
}

func (s *Service) listMembers(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	shown := []map[string]any{}
	err := s.db.Read(ctx, func(tx *sql.Tx) error {
		i, err := shared(ctx, tx, r)
		if err != nil {
			return err
		}
		if i.Visibility != "shared" {
			return forbidden("Not allowed to list members for image %s: Only shared images have members.", i.ID)
		}
		all, err := queryMembers(ctx, tx, r.Caller, i)
		for _, m := range all {
			shown = append(shown, m.view())
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"members": shown, "schema": "/v2/schemas/members"})
}

func (s *Service) getMember(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	var m *member
	err := s.db.Read(ctx, func(tx *sql.Tx) error {
		i, err := shared(ctx, tx, r)
		if err != nil {
			return err
		}
		if i.Visibility != "shared" {
			return rest.Errorf(http.StatusNotFound, "Only shared images have members.")
		}
		m, err = one(ctx, tx, r, i)
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.OK(m.view())
}

// readField reads the one string of a request about a member.
func readField(r *rest.Request, name, absent, wrong string) (string, error) {
	v, err := readBody(r)
	if err != nil {
		return "", err
	}
	body, ok := v.(map[string]any)
	if !ok {
		return "", invalid("%s", wrong)
	}
	value, ok := body[name]
	if !ok {
		return "", invalid("%s", absent)
	}
	text, ok := value.(string)
	if !ok && value != nil {
		return "", invalid("%s", wrong)
	}
	return text, nil
}

func (s *Service) postMember(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	project, err := readField(r, "member", "Member to be added not specified", `Expected a member in the form: {"member": "image_id"}`)
	if err != nil {
		return nil, err
	}
	if project == "" {
		return nil, invalid("Member can't be empty")
	}
	if len(project) > 255 {
		return nil, invalid("Member ID is too long")
	}
	now := s.now()
	m := &member{project: project, status: "pending", created: now, updated: now}
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		i, err := shared(ctx, tx, r)
		if err != nil {
			return err
		}
		if i.Visibility != "shared" || !owns(r.Caller, i) || !r.Caller.Member() {
			return forbidden("Not allowed to create members for image %s.", i.ID)
		}
		m.image = i.ID
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM members WHERE image_id = ?`, i.ID).Scan(&n); err != nil {
			return err
		}
		if n >= memberQuota {
			return rest.Errorf(http.StatusRequestEntityTooLarge, "Image member limit exceeded for image %s: The limit has been exceeded on the number of allowed image members for this image. Attempted: %d, Maximum: %d:", i.ID, n+1, memberQuota)
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO members (image_id, member_id, status, created_at, updated_at) VALUES (?, ?, ?, ?, ?)`, m.image, m.project, m.status, now, now)
		return err
	})
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		return nil, conflict("Member %s is duplicated for image %s", project, r.PathValue("id"))
	}
	if err != nil {
		return nil, err
	}
	return rest.OK(m.view())
}

// putMember is for the member itself: it takes the image or not.
func (s *Service) putMember(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	status, err := readField(r, "status", "Status not specified", `Expected a status in the form: {"status": "status"}`)
	if err != nil {
		return nil, err
	}
	var m *member
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		i, err := shared(ctx, tx, r)
		if err != nil {
			return err
		}
		if i.Visibility != "shared" || !r.Caller.Member() || !r.Caller.Admin() && owns(r.Caller, i) {
			return forbidden("Not allowed to update members for image %s.", i.ID)
		}
		if m, err = one(ctx, tx, r, i); err != nil {
			return err
		}
		if known := []string{"pending", "accepted", "rejected"}; !slices.Contains(known, status) {
			return invalid(`Incorrect request: Status must be "pending", "accepted" or "rejected".`)
		}
		m.status, m.updated = status, s.now()
		_, err = tx.ExecContext(ctx, `UPDATE members SET status = ?, updated_at = ? WHERE image_id = ? AND member_id = ?`, m.status, m.updated, m.image, m.project)
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.OK(m.view())
}

func (s *Service) deleteMember(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	err := s.db.Write(ctx, func(tx *sql.Tx) error {
		i, err := shared(ctx, tx, r)
		if err != nil {
			return err
		}
		if i.Visibility != "shared" || !owns(r.Caller, i) || !r.Caller.Member() {
			return forbidden("Not allowed to delete members for image %s.", i.ID)
		}
		m, err := one(ctx, tx, r, i)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM members WHERE image_id = ? AND member_id = ?`, m.image, m.project)
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.NoContent()
}

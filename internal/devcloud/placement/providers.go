package placement

import (
	"database/sql"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// provider is a row of providers.
type provider struct {
	uuid, name string
	generation int64
	parent     sql.NullString
	root       string
}

const providerColumns = "uuid, name, generation, parent, root"

func (p *provider) scan(row interface{ Scan(dest ...any) error }) error {
	return row.Scan(&p.uuid, &p.name, &p.generation, &p.parent, &p.root)
}

// provider returns one, or errdefs.ErrNotFound.
func (o operation) provider(id string) (*provider, error) {
	p := &provider{}
	err := p.scan(o.tx.QueryRowContext(o.Context, "SELECT "+providerColumns+" FROM providers WHERE uuid = ?", strings.ToLower(id)))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, notFound("No resource provider with uuid %s found", id).Because(errdefs.ErrNotFound)
	}
	return p, err
}

// target is the provider of the path.
func (o operation) target() (*provider, error) { return o.provider(o.PathValue("uuid")) }

// touch makes a change of p visible to those who have read it, unless somebody
// else was faster.
func (o operation) touch(p *provider) error {
	n, err := o.exec("UPDATE providers SET generation = generation + 1, updated = ? WHERE uuid = ? AND generation = ?", time.Now().Unix(), p.uuid, p.generation)
	if err == nil && n == 0 {
		err = conflict(codeConcurrent, "Another thread concurrently updated the resource provider data. Please retry your update")
	}
	p.generation++
	return err
}

func (o operation) view(p *provider) map[string]any {
	v, self := o.Version, o.Prefix()+"/resource_providers/"+p.uuid
	links := []any{map[string]string{"rel": "self", "href": self}}
	for _, l := range []struct {
		rel   string
		since int
	}{{"inventories", 0}, {"usages", 0}, {"aggregates", 1}, {"traits", 6}, {"allocations", 11}} {
		if v.AtLeast(1, l.since) {
			links = append(links, map[string]string{"rel": l.rel, "href": self + "/" + l.rel})
		}
	}
	view := map[string]any{"uuid": p.uuid, "name": p.name, "generation": p.generation, "links": links}
	if v.AtLeast(1, 14) {
		view["parent_provider_uuid"], view["root_provider_uuid"] = nil, p.root
		if p.parent.Valid {
			view["parent_provider_uuid"] = p.parent.String
		}
	}
	return view
}

// optional is a JSON value that may be absent, null or a string.
type optional struct {
	set   bool
	value *string
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *optional) UnmarshalJSON(data []byte) error {
	s.set = true
	return json.Unmarshal(data, &s.value)
}

// providerBody is what POST and PUT take.
type providerBody struct {
	Name   *string  `json:"name"`
	UUID   *string  `json:"uuid"`
	Parent optional `json:"parent_provider_uuid"`
}

func (o operation) providerBody() (b providerBody, err error) {
	if err := o.strict(&b); err != nil {
		return b, err
	}
	switch {
	case b.Name == nil:
		err = badRequest("JSON does not validate: 'name' is a required property")
	case len(*b.Name) > 200:
		err = badRequest("JSON does not validate: '%s' is too long", *b.Name)
	case b.Parent.set && !o.Version.AtLeast(1, 14):
		err = badRequest("JSON does not validate: Additional properties are not allowed ('parent_provider_uuid' was unexpected)")
	case b.UUID != nil && o.Method == http.MethodPut:
		err = badRequest("JSON does not validate: Additional properties are not allowed ('uuid' was unexpected)")
	}
	for _, id := range []*string{b.UUID, b.Parent.value} {
		if err == nil && id != nil {
			if *id, err = canonical(*id); err != nil {
				err = badRequest("JSON does not validate: '%s' is not a 'uuid'", *id)
			}
		}
	}
	return b, err
}

// canonical writes a UUID with its dashes and small letters.
func canonical(id string) (string, error) {
	u, err := uuid.Parse(id)
	if err != nil || len(id) != 36 && len(id) != 32 {
		return id, errdefs.ErrInvalid
	}
	return u.String(), nil
}

func createProvider(o operation) (*rest.Response, error) {
	in, err := o.providerBody()
	if err != nil {
		return nil, err
	}
	p := &provider{uuid: uuid.NewString(), name: *in.Name}
	if in.UUID != nil {
		p.uuid = *in.UUID
	}
	p.root = p.uuid
	if in.Parent.value != nil {
		if err := o.adopt(p, *in.Parent.value); err != nil {
			return nil, badRequest("Unable to create resource provider \"%s\", %s: Object action create failed because: %s.", p.name, p.uuid, err.Error())
		}
	}
	if err := o.unique(p); err != nil {
		return nil, err
	}
	if _, err := o.exec("INSERT INTO providers (uuid, name, parent, root, updated) VALUES (?, ?, ?, ?, ?)", p.uuid, p.name, p.parent, p.root, time.Now().Unix()); err != nil {
		return nil, err
	}
	res := &rest.Response{Status: http.StatusCreated, Header: http.Header{"Location": {o.Base() + "/resource_providers/" + p.uuid}}}
	if o.Version.AtLeast(1, 20) {
		res.Status, res.Body = http.StatusOK, o.view(p)
		fresh(res)
	}
	return res, nil
}

// adopt puts p below a parent.
func (o operation) adopt(p *provider, parent string) error {
	if parent == p.uuid {
		return errors.New("parent provider UUID cannot be same as UUID. Please set parent provider UUID to None if there is no parent")
	}
	up, err := o.provider(parent)
	if err != nil {
		return errors.New("parent provider UUID does not exist")
	}
	p.parent, p.root = sql.NullString{String: up.uuid, Valid: true}, up.root
	return nil
}

// unique refuses the name and UUID of another provider.
func (o operation) unique(p *provider) error {
	for _, c := range []struct{ column, value string }{{"name", p.name}, {"uuid", p.uuid}} {
		taken, err := o.has("SELECT 1 FROM providers WHERE "+c.column+" = ?", c.value)
		if err != nil {
			return err
		}
		if taken {
			return conflict(codeDuplicate, "Conflicting resource provider %s: %s already exists.", c.column, c.value)
		}
	}
	return nil
}

func showProvider(o operation) (*rest.Response, error) {
	p, err := o.target()
	if err != nil {
		return nil, err
	}
	return rest.OK(o.view(p))
}

func updateProvider(o operation) (*rest.Response, error) {
	p, err := o.target()
	if err != nil {
		return nil, err
	}
	in, err := o.providerBody()
	if err != nil {
		return nil, err
	}
	if *in.Name != p.name {
		if taken, err := o.has("SELECT 1 FROM providers WHERE name = ?", *in.Name); err != nil {
			return nil, err
		} else if taken {
			return nil, conflict(codeDuplicate, "Conflicting resource provider %s already exists.", *in.Name)
		}
	}
	tree, err := o.below(p.uuid)
	if err != nil {
		return nil, err
	}
	before := *p
	p.name = *in.Name
	if in.Parent.set {
		if err := o.reparent(p, in.Parent.value, tree); err != nil {
			return nil, badRequest("Unable to save resource provider %s: Object action update failed because: %s.", p.uuid, err.Error())
		}
	}
	if _, err := o.exec("UPDATE providers SET name = ?, parent = ?, updated = ? WHERE uuid = ?", p.name, p.parent, time.Now().Unix(), p.uuid); err != nil {
		return nil, err
	}
	if p.root != before.root {
		for _, below := range append(tree, p.uuid) {
			if _, err := o.exec("UPDATE providers SET root = ? WHERE uuid = ?", p.root, below); err != nil {
				return nil, err
			}
		}
	}
	return rest.OK(o.view(p))
}

// reparent moves p, which has tree below it; from 1.37 on anywhere outside of
// that.
func (o operation) reparent(p *provider, parent *string, tree []string) error {
	free := o.Version.AtLeast(1, 37)
	switch {
	case parent == nil && p.parent.Valid && !free:
		return errors.New("un-parenting a provider is not currently allowed")
	case parent == nil:
		p.parent, p.root = sql.NullString{}, p.uuid
		return nil
	case p.parent.Valid && p.parent.String != *parent && !free:
		return errors.New("re-parenting a provider is not currently allowed")
	}
	if slices.Contains(tree, *parent) {
		return errors.New("creating loop in the provider tree is not allowed")
	}
	return o.adopt(p, *parent)
}

// below lists the descendants of a provider.
func (o operation) below(id string) ([]string, error) {
	return o.column(`WITH RECURSIVE tree (uuid) AS (
		SELECT uuid FROM providers WHERE parent = ? UNION SELECT p.uuid FROM providers p JOIN tree ON p.parent = tree.uuid)
		SELECT uuid FROM tree`, id)
}

func deleteProvider(o operation) (*rest.Response, error) {
	id := o.PathValue("uuid")
	p, err := o.target()
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, notFound("No resource provider with uuid %s found for delete", id)
	}
	if err != nil {
		return nil, err
	}
	if parent, err := o.has("SELECT 1 FROM providers WHERE parent = ?", p.uuid); err != nil {
		return nil, err
	} else if parent {
		return nil, conflict(codeParent, "Unable to delete parent resource provider %s: It has child resource providers.", id)
	}
	if used, err := o.has("SELECT 1 FROM allocations WHERE provider = ?", p.uuid); err != nil {
		return nil, err
	} else if used {
		return nil, conflict(codeProviderUsed, "Unable to delete resource provider %s: Resource provider has allocations.", id)
	}
	if _, err := o.exec("DELETE FROM providers WHERE uuid = ?", p.uuid); err != nil {
		return nil, err
	}
	return rest.NoContent()
}

func listProviders(o operation) (*rest.Response, error) {
	if err := o.knownParams(map[string]int{"name": 0, "uuid": 0, "member_of": 3, "resources": 4, "in_tree": 14, "required": 18}); err != nil {
		return nil, err
	}
	g, err := o.group("")
	if err != nil {
		return nil, err
	}
	w, err := o.world()
	if err != nil {
		return nil, err
	}
	list := []any{}
	for _, p := range w.providers {
		q := o.Params()
		if q.Has("name") && p.name != q.Get("name") || q.Has("uuid") && p.uuid != q.Get("uuid") {
			continue
		}
		if w.fits(p, g) {
			list = append(list, o.view(p))
		}
	}
	return rest.OK(map[string]any{"resource_providers": list})
}

// knownParams refuses queries with others; each with the minor version since
// which it is there.
func (o operation) knownParams(known map[string]int) error {
	for k := range o.Params() {
		if since, ok := known[k]; !ok || !o.Version.AtLeast(1, since) {
			return badRequest("Invalid query string parameters: Additional properties are not allowed ('%s' was unexpected)", k)
		}
	}
	return nil
}

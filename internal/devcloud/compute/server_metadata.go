package compute

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

var (
	metadataSchema = schema.Object(schema.Req("metadata", schema.Metadata()...))
	metaSchema     = schema.Object(schema.Req("meta", schema.Metadata().With(schema.MinProps(1), schema.MaxProps(1))...))
)

func (s *Service) metadataRoutes() {
	s.handle("GET /v2.1/servers/{id}/metadata", s.metadataList)
	s.handle("POST /v2.1/servers/{id}/metadata", s.metadataAdd)
	s.handle("PUT /v2.1/servers/{id}/metadata", s.metadataReplace)
	s.handle("GET /v2.1/servers/{id}/metadata/{key}", s.metadataShow)
	s.handle("PUT /v2.1/servers/{id}/metadata/{key}", s.metadataSet)
	s.handle("DELETE /v2.1/servers/{id}/metadata/{key}", s.metadataDelete)
}

func (s *Service) metadataList(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	i, err := s.server(ctx, r)
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"metadata": i.Metadata()})
}

func (s *Service) metadataShow(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	i, err := s.server(ctx, r)
	if err != nil {
		return nil, err
	}
	key := r.PathValue("key")
	v, ok := i.Metadata()[key]
	if !ok {
		return nil, notFound("Metadata item was not found")
	}
	return rest.OK(map[string]any{"meta": map[string]string{key: v}})
}

func (s *Service) metadataAdd(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	d, err := body(r, metadataSchema)
	if err != nil {
		return nil, err
	}
	now, err := s.setMetadata(ctx, r, "create", d.Dict("metadata").Strings(), false)
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"metadata": now})
}

func (s *Service) metadataReplace(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	d, err := body(r, metadataSchema)
	if err != nil {
		return nil, err
	}
	now, err := s.setMetadata(ctx, r, "update_all", d.Dict("metadata").Strings(), true)
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"metadata": now})
}

func (s *Service) metadataSet(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	d, err := body(r, metaSchema)
	if err != nil {
		return nil, err
	}
	meta := d.Dict("meta").Strings()
	if _, ok := meta[r.PathValue("key")]; !ok {
		return nil, badRequest("Request body and URI mismatch")
	}
	if _, err := s.setMetadata(ctx, r, "update", meta, false); err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"meta": meta})
}

// metadataStates are those in which metadata and tags may be changed.
func metadataStates() []string { return []string{vmActive, vmPaused, vmSuspended, vmStopped} }

// setMetadata merges metadata into an instance's, or replaces it, and returns
// what it has then.
func (s *Service) setMetadata(ctx context.Context, r *rest.Request, policy string, meta map[string]string, replace bool) (map[string]string, error) {
	i, err := s.ownServer(ctx, r, "server-metadata:"+policy)
	if err != nil {
		return nil, err
	}
	if err := (verb{name: "update metadata", vm: metadataStates()}).admits(r, i); err != nil {
		return nil, err
	}
	limits, err := s.limitsOf(ctx, scopes(i.ProjectID(), "")...)
	if err != nil {
		return nil, err
	}
	i, err = s.changeRow(ctx, i, "update metadata", func(row objects.Instance) error {
		all := row.Metadata()
		if replace {
			all = map[string]string{}
		}
		maps.Copy(all, meta)
		if over(limits["metadata_items"], 0, len(all)) {
			return forbidden("Maximum number of metadata items exceeds %d", limits["metadata_items"])
		}
		row.Set("metadata", all)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return i.Metadata(), nil
}

// changeRow changes an instance that has no task.
func (s *Service) changeRow(ctx context.Context, i objects.Instance, what string, change func(objects.Instance) error) (objects.Instance, error) {
	out, err := s.o.Cell.UpdateInstance(ctx, i.UUID(), cell.Expect{TaskState: []string{""}}, change)
	if e, ok := errors.AsType[*cell.StateError](err); ok {
		return i, wrongState(what, i, e.Field, e.Actual)
	}
	return out, lost(err, i.UUID())
}

func (s *Service) metadataDelete(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	i, err := s.ownServer(ctx, r, "server-metadata:delete")
	if err != nil {
		return nil, err
	}
	key := r.PathValue("key")
	if _, ok := i.Metadata()[key]; !ok {
		return nil, notFound("Metadata item was not found")
	}
	if err := (verb{name: "delete metadata", vm: metadataStates()}).admits(r, i); err != nil {
		return nil, err
	}
	_, err = s.changeRow(ctx, i, "delete metadata", func(row objects.Instance) error {
		all := row.Metadata()
		delete(all, key)
		row.Set("metadata", all)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return empty(http.StatusNoContent)
}

func (s *Service) tagRoutes() {
	for pattern, h := range map[string]rest.Handler{
		"GET /v2.1/servers/{id}/tags": s.tagList, "PUT /v2.1/servers/{id}/tags": s.tagReplace, "DELETE /v2.1/servers/{id}/tags": s.tagClear,
		"GET /v2.1/servers/{id}/tags/{tag}": s.tagShow, "PUT /v2.1/servers/{id}/tags/{tag}": s.tagAdd, "DELETE /v2.1/servers/{id}/tags/{tag}": s.tagDelete,
	} {
		s.handle(pattern, func(ctx context.Context, r *rest.Request) (*rest.Response, error) {
			if !r.Version.AtLeast(2, 26) {
				return nil, notFound("")
			}
			return h(ctx, r)
		})
	}
}

func (s *Service) tagList(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	i, err := s.server(ctx, r)
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"tags": tagsOf(i)})
}

func (s *Service) tagShow(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	i, err := s.server(ctx, r)
	if err != nil {
		return nil, err
	}
	if tag := r.PathValue("tag"); !slices.Contains(tagsOf(i), tag) {
		return nil, notFound("Server %s has no tag '%s'", i.UUID(), tag)
	}
	return empty(http.StatusNoContent)
}

// changeTags lets change make new tags of the ones there are.
func (s *Service) changeTags(ctx context.Context, r *rest.Request, policy, what string, change func(id string, tags []string) ([]string, error)) ([]string, error) {
	i, err := s.ownServer(ctx, r, "os-server-tags:"+policy)
	if err != nil {
		return nil, err
	}
	if err := (verb{name: what, vm: metadataStates(), ignoresLock: true, anyTask: true, unlaunched: true}).admits(r, i); err != nil {
		return nil, err
	}
	i, err = s.o.Cell.UpdateInstance(ctx, i.UUID(), cell.Expect{}, func(row objects.Instance) error {
		tags, err := change(row.UUID(), tagsOf(row))
		if err != nil {
			return err
		}
		l := tagList(tags)
		for _, t := range l.Objects("objects") {
			t.SetClean("resource_id", row.UUID())
		}
		row.Set("tags", l)
		return nil
	})
	return tagsOf(i), lost(err, i.UUID())
}

func (s *Service) tagAdd(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	tag, fresh := r.PathValue("tag"), false
	if refusal := schema.Tag().Body(tag); refusal != "" {
		return nil, badRequest("Tag '%s' is invalid. It must be a non empty string without characters '/' and ','. Validation error message: %s", tag, refusal)
	}
	_, err := s.changeTags(ctx, r, "update", "update tag", func(_ string, tags []string) ([]string, error) {
		if slices.Contains(tags, tag) {
			return tags, nil
		}
		if len(tags) >= maxTags {
			return nil, badRequest("The number of tags exceeded the per-server limit %d", maxTags)
		}
		fresh = true
		return append(tags, tag), nil
	})
	if err != nil {
		return nil, err
	}
	if !fresh {
		return empty(http.StatusNoContent)
	}
	at := at(r, "servers").self + "/" + r.PathValue("id") + "/tags/" + tag
	return &rest.Response{Status: http.StatusCreated, Header: http.Header{"Location": {at}}}, nil
}

func (s *Service) tagReplace(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	d, err := body(r, schema.Object(schema.Req("tags", schema.Type("array"), schema.Items(schema.Tag()...), schema.MaxItems(maxTags))))
	if err != nil {
		return nil, err
	}
	tags := []string{}
	for _, t := range d.List("tags") {
		if tag, ok := t.(string); ok && !slices.Contains(tags, tag) {
			tags = append(tags, tag)
		}
	}
	now, err := s.changeTags(ctx, r, "update_all", "update tags", func(string, []string) ([]string, error) { return tags, nil })
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"tags": now})
}

func (s *Service) tagDelete(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	tag := r.PathValue("tag")
	_, err := s.changeTags(ctx, r, "delete", "delete tag", func(id string, tags []string) ([]string, error) {
		if !slices.Contains(tags, tag) {
			return nil, notFound("Instance %s has no tag '%s'", id, tag)
		}
		return slices.DeleteFunc(tags, func(t string) bool { return t == tag }), nil
	})
	if err != nil {
		return nil, err
	}
	return empty(http.StatusNoContent)
}

func (s *Service) tagClear(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if _, err := s.changeTags(ctx, r, "delete_all", "delete tags", func(string, []string) ([]string, error) { return nil, nil }); err != nil {
		return nil, err
	}
	return empty(http.StatusNoContent)
}

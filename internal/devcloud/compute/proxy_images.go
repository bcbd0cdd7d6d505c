package compute

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func (s *Service) imageProxyRoutes() {
	s.proxy("GET /v2.1/images", s.proxyImages("", s.imageLine))
	s.proxy("GET /v2.1/images/detail", s.proxyImages("/detail", s.imageProxyView))
	s.proxy("GET /v2.1/images/{image}", func(ctx context.Context, r *rest.Request) (*rest.Response, error) {
		i, err := s.o.Images.Image(ctx, r.Caller, r.PathValue("image"))
		if errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, errdefs.ErrInvalid) {
			return nil, notFound("Image not found.")
		}
		if err != nil {
			return nil, err
		}
		return rest.OK(map[string]any{"image": s.imageProxyView(r, i)})
	})
}

// imageStates are Nova's words for those of images.
func imageState(status string) (word string, progress int) {
	switch status {
	case "active":
		return "ACTIVE", 100
	case "queued", "importing":
		return "SAVING", 25
	case "saving":
		return "SAVING", 50
	case "deleted", "pending_delete":
		return "DELETED", 0
	case "killed":
		return "ERROR", 0
	}
	return "UNKNOWN", 0
}

// imageLine is an image in a short list.
func (s *Service) imageLine(r *rest.Request, i Image) map[string]any {
	links := []any{}
	for _, l := range at(r, "images").links(i.ID) {
		links = append(links, l)
	}
	links = append(links, map[string]string{
		"rel": "alternate", "type": "application/vnd.openstack.image", "href": s.o.ImagesURL + "/images/" + i.ID,
	})
	return map[string]any{"id": i.ID, "name": i.Name, "links": links}
}

func (s *Service) imageProxyView(r *rest.Request, i Image) map[string]any {
	v := s.imageLine(r, i)
	state, progress := imageState(i.Status)
	v["minRam"], v["minDisk"], v["metadata"], v["OS-EXT-IMG-SIZE:size"] = i.MinRAM, i.MinDisk, i.Properties, i.Size
	v["created"], v["updated"], v["status"], v["progress"] = i.CreatedAt.UTC().Format(seconds), i.UpdatedAt.UTC().Format(seconds), state, progress
	if id := i.Properties["instance_uuid"]; id != "" {
		v["server"] = map[string]any{"id": id, "links": at(r, "servers").links(id)}
	}
	if auto, ok := i.Properties["auto_disk_config"]; ok {
		v["OS-DCF:diskConfig"] = "MANUAL"
		if b, err := strconv.ParseBool(auto); err == nil && b {
			v["OS-DCF:diskConfig"] = "AUTO"
		}
	}
	return v
}

// proxyImages lists images that pass the filters name and status.
func (s *Service) proxyImages(path string, view func(*rest.Request, Image) map[string]any) rest.Handler {
	return func(ctx context.Context, r *rest.Request) (*rest.Response, error) {
		q := r.Params()
		limit := pageSize
		if n, err := strconv.Atoi(q.Get("limit")); err == nil && n > 0 && n < limit {
			limit = n
		}
		all, err := s.o.Images.Images(ctx, r.Caller, limit, q.Get("marker"))
		if errors.Is(err, errdefs.ErrInvalid) || errors.Is(err, errdefs.ErrNotFound) {
			return nil, badRequest("marker [%s] not found", q.Get("marker"))
		}
		if err != nil {
			return nil, err
		}
		views := []any{}
		for _, i := range all {
			state, _ := imageState(i.Status)
			if name, asked := q["name"]; asked && name[0] != i.Name {
				continue
			}
			if status, asked := q["status"]; asked && !strings.EqualFold(status[0], state) {
				continue
			}
			views = append(views, view(r, i))
		}
		out := map[string]any{"images": views}
		if next := at(r, "images"+path).next(r, len(all), limit, func() string { return all[len(all)-1].ID }); next != nil {
			out["images_links"] = next
		}
		return rest.OK(out)
	}
}

package images

import (
	"context"
	"database/sql"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/internal/devcloud/lazyregexp"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// The two kinds of patches (glance.api.v2.images.RequestDeserializer.update):
// of JSON schema draft 4 with {"add": "/path"} and of draft 10 with "op".
const (
	patchV20 = "application/openstack-images-v2.0-json-patch"
	patchV21 = "application/openstack-images-v2.1-json-patch"
)

var operations = []string{"add", "remove", "replace"}

// change is one operation of a patch.
type change struct {
	op, name string
	value    any
	strict   bool // adding what is there is an error
}

func (s *Service) patch(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	changes, err := readPatch(r)
	if err != nil {
		return nil, err
	}
	var i *Image
	err = s.db.Write(ctx, func(tx *sql.Tx) (err error) {
		if i, err = get(ctx, tx, r.Caller, r.PathValue("id")); err != nil || len(changes) == 0 {
			return err
		}
		for _, c := range changes {
			if err := c.apply(r.Caller, i); err != nil {
				return err
			}
		}
		if err := checkValues(i); err != nil {
			return err
		}
		return i.save(ctx, tx, s.now())
	})
	if err != nil {
		return nil, err
	}
	return rest.OK(i.view())
}

// readPatch reads and checks a patch.
func readPatch(r *rest.Request) ([]change, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != patchV20 && kind != patchV21 {
		e := wrongType(r)
		e.Header = http.Header{"Accept-Patch": {patchV20 + ", " + patchV21}}
		return nil, e
	}
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	list, ok := body.([]any)
	if !ok {
		return nil, invalid("Request body must be a JSON array of operation objects.")
	}
	changes := make([]change, 0, len(list))
	for _, item := range list {
		raw, ok := item.(map[string]any)
		if !ok {
			return nil, invalid("Operations must be JSON objects.")
		}
		c, err := readChange(raw, kind == patchV20)
		if err != nil {
			return nil, err
		}
		changes = append(changes, c)
	}
	return changes, nil
}

func readChange(raw map[string]any, old bool) (c change, err error) {
	c.strict = old
	var pointer any
	if old {
		for _, op := range operations {
			if p, ok := raw[op]; ok {
				if c.op != "" {
					return c, invalid(`Operation objects must contain only one member named "add", "remove", or "replace".`)
				}
				c.op, pointer = op, p
			}
		}
		if c.op == "" {
			return c, invalid(`Operation objects must contain exactly one member named "add", "remove", or "replace".`)
		}
	} else {
		op, ok := raw["op"]
		if !ok || op == nil {
			return c, invalid("Unable to find `op` in JSON Schema change. It must be one of the following: add, remove, replace.")
		}
		if c.op, _ = op.(string); !slices.Contains(operations, c.op) {
			return c, invalid("Invalid operation: `%s`. It must be one of the following: add, remove, replace.", strings.Trim(rest.Repr(op), "'"))
		}
		if pointer, ok = raw["path"]; !ok {
			return c, invalid("Unable to find 'path' in JSON Schema change")
		}
	}
	if c.name, err = readPointer(pointer); err != nil {
		return c, err
	}
	if c.op != "remove" {
		v, ok := raw["value"]
		if !ok {
			return c, invalid(`Operation "%s" requires a member named "value".`, c.op)
		}
		c.value = v
	}
	return c, c.check()
}

var (
	adjacent  = lazyregexp.New(`/\s*?/`)
	badEscape = lazyregexp.New(`~[^01]`)
)

// readPointer reads a JSON pointer to an attribute.
func readPointer(v any) (string, error) {
	p, ok := v.(string)
	switch {
	case !ok:
		return "", invalid("Pointer `%s` does not start with \"/\".", rest.Repr(v))
	case !strings.HasPrefix(p, "/"):
		return "", invalid("Pointer `%s` does not start with \"/\".", p)
	case adjacent.MatchString(p[1:]):
		return "", invalid("Pointer `%s` contains adjacent \"/\".", p)
	case len(p) > 1 && strings.HasSuffix(p, "/"):
		return "", invalid("Pointer `%s` end with \"/\".", p)
	case badEscape.MatchString(p) || strings.HasSuffix(p, "~"):
		return "", invalid("Pointer `%s` contains \"~\" not part of a recognized escape sequence.", p)
	}
	parts := strings.Split(strings.TrimLeft(p, "/"), "/")
	for n, part := range parts {
		parts[n] = strings.TrimSpace(strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~"))
	}
	if parts[0] == "locations" {
		return parts[0], nil // refused by apply
	}
	if len(parts) != 1 {
		return "", invalid("Invalid JSON pointer for this resource: '/%s'", strings.Join(parts, "/"))
	}
	return parts[0], nil
}

// check refuses names and values that no caller may change.
func (c change) check() error {
	if slices.Contains(readOnly, c.name) {
		return forbidden("Attribute '%s' is read-only.", c.name)
	}
	if isReserved(c.name) {
		return forbidden("Attribute '%s' is reserved.", c.name)
	}
	if c.op == "remove" || c.name == "locations" {
		return nil
	}
	return check(map[string]any{c.name: c.value})
}

// apply changes the image as far as the caller may.
func (c change) apply(who *rest.Caller, i *Image) error {
	if list, ok := c.value.([]any); ok && len(list) == 0 && c.name == "locations" && c.op == "replace" {
		return detail(http.StatusForbidden, "Cannot set locations to empty list.")
	}
	if c.name == "locations" {
		return forbidden("It's not allowed to %s locations if locations are invisible.", map[string]string{"add": "add", "remove": "remove", "replace": "update"}[c.op])
	}
	if c.name == "owner" && c.op == "replace" && !who.Admin() {
		return detail(http.StatusForbidden, "Owner can't be updated by non admin.")
	}
	if err := mayChange(who, i, "modify_image"); err != nil {
		return err
	}
	a, known := attributes[c.name]
	_, there := i.Properties[c.name]
	switch {
	case c.op == "remove" && known:
		return detail(http.StatusForbidden, "Property %s may not be removed.", c.name)
	case c.op == "remove" && !there, c.op == "replace" && !known && !there:
		return detail(http.StatusConflict, "Property %s does not exist.", c.name)
	case c.op == "add" && c.strict && (known || there):
		return detail(http.StatusConflict, "Property %s already present.", c.name)
	case c.op == "remove":
		delete(i.Properties, c.name)
	case !known:
		if len(c.name) > 255 {
			return invalid("Custom property should not be greater than 255 characters.")
		}
		i.Properties[c.name], _ = c.value.(string)
	default:
		if c.name == "visibility" {
			v, _ := c.value.(string)
			if err := mayShow(who, v); err != nil {
				return err
			}
		}
		if (c.name == "disk_format" || c.name == "container_format") && i.Status != "queued" && i.Status != "saving" {
			return forbidden("Attribute %s can be only replaced for a queued image.", c.name)
		}
		a.set(i, c.value)
	}
	return nil
}

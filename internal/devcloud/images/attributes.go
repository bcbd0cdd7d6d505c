package images

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gantry-project/gantry/internal/devcloud/lazyregexp"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// The names of attributes, by what a caller may do with them
// (glance.api.v2.images.RequestDeserializer).
var (
	disallowed = []string{"direct_url", "self", "file", "schema", "stores"}
	readOnly   = []string{"created_at", "updated_at", "status", "checksum", "size", "virtual_size", "direct_url", "self", "file", "schema", "id", "os_hash_algo", "os_hash_value"}
	reserved   = []string{"location", "deleted", "deleted_at"}
)

// reservedPrefix is of properties that are the service's own.
const reservedPrefix = "os_glance"

func isReserved(name string) bool {
	return slices.Contains(reserved, name) || strings.HasPrefix(name, reservedPrefix)
}

var (
	idShape   = lazyregexp.New(`^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$`)
	diskKinds = []string{"ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop"}
	// containers are what an image's data may be wrapped in.
	containers = []string{"ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"}
	shownTo    = []string{"community", "public", "private", "shared"}
)

// attribute says what values an attribute may have.
type attribute struct {
	types []string // as JSON schema names them, in the order of the schema
	most  int      // length of a string; 0 is any
	one   []string // of strings
	set   func(i *Image, v any)
}

func stringPointer(v any) *string {
	if s, ok := v.(string); ok {
		return &s
	}
	return nil
}

func number(v any) int64 {
	n, _ := v.(json.Number)
	i, _ := n.Int64() // check saw to it
	return i
}

// attributes are the settable ones of the schema, and those that are refused
// only after their values were looked at.
var attributes = map[string]attribute{
	"id":               {types: []string{"string"}},
	"name":             {[]string{"null", "string"}, 255, nil, func(i *Image, v any) { i.Name = stringPointer(v) }},
	"owner":            {[]string{"null", "string"}, 255, nil, func(i *Image, v any) { i.Owner = stringPointer(v) }},
	"visibility":       {[]string{"string"}, 0, shownTo, func(i *Image, v any) { i.Visibility, _ = v.(string) }},
	"protected":        {[]string{"boolean"}, 0, nil, func(i *Image, v any) { i.Protected, _ = v.(bool) }},
	"os_hidden":        {[]string{"boolean"}, 0, nil, func(i *Image, v any) { i.Hidden, _ = v.(bool) }},
	"container_format": {[]string{"null", "string"}, 0, containers, func(i *Image, v any) { i.ContainerFormat = stringPointer(v) }},
	"disk_format":      {[]string{"null", "string"}, 0, diskKinds, func(i *Image, v any) { i.DiskFormat = stringPointer(v) }},
	"min_ram":          {[]string{"integer"}, 0, nil, func(i *Image, v any) { i.MinRAM = number(v) }},
	"min_disk":         {[]string{"integer"}, 0, nil, func(i *Image, v any) { i.MinDisk = number(v) }},
	"tags": {[]string{"array"}, 0, nil, func(i *Image, v any) {
		i.Tags = []string{}
		list, _ := v.([]any)
		for _, t := range list {
			s, _ := t.(string)
			i.Tags = append(i.Tags, s)
		}
	}},
	"status":        {types: []string{"string"}, one: []string{"queued", "saving", "active", "killed", "deleted", "uploading", "importing", "pending_delete", "deactivated"}},
	"checksum":      {types: []string{"null", "string"}, most: 32},
	"os_hash_algo":  {types: []string{"null", "string"}, most: 64},
	"os_hash_value": {types: []string{"null", "string"}, most: 128},
	"size":          {types: []string{"null", "integer"}},
	"virtual_size":  {types: []string{"null", "integer"}},
	"created_at":    {types: []string{"string"}},
	"updated_at":    {types: []string{"string"}},
	"locations":     {types: []string{"array"}},
}

// check returns an error in Glance's words if the attributes are not as its
// schema says. All unknown ones are properties, which are strings.
func check(all map[string]any) error {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if what := problem(name, all[name]); what != "" {
			return invalid("Provided object does not match schema 'image': %s", what)
		}
	}
	return nil
}

func problem(name string, v any) string {
	a, known := attributes[name]
	if !known {
		a.types = []string{"string"}
	}
	if !slices.Contains(a.types, typeOf(v)) {
		return fmt.Sprintf("%s is not of type '%s'", rest.Repr(v), strings.Join(a.types, "', '"))
	}
	switch v := v.(type) {
	case string:
		if a.one != nil && !slices.Contains(a.one, v) {
			null := ""
			if slices.Contains(a.types, "null") {
				null = "None, "
			}
			return fmt.Sprintf("%s is not one of [%s'%s']", rest.Repr(v), null, strings.Join(a.one, "', '"))
		}
		if a.most > 0 && utf8.RuneCountInString(v) > a.most {
			return rest.Repr(v) + " is too long"
		}
		if name == "id" && !idShape.MatchString(v) {
			return rest.Repr(v) + " does not match " + rest.Repr(idShape.String())
		}
	case []any:
		for _, item := range v {
			if name != "tags" {
				break
			}
			s, ok := item.(string)
			if !ok {
				return rest.Repr(item) + " is not of type 'string'"
			}
			if utf8.RuneCountInString(s) > 255 {
				return rest.Repr(item) + " is too long"
			}
		}
	}
	return ""
}

// typeOf is the type in JSON schema's words; an integer has 64 bits.
func typeOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		return "string"
	case bool:
		return "boolean"
	case []any:
		return "array"
	case json.Number:
		if _, err := v.Int64(); err == nil {
			return "integer"
		}
		return "number"
	}
	return "object"
}

// checkValues refuses what the schema lets pass and the domain model does not.
func checkValues(i *Image) error {
	for name, n := range map[string]int64{"min_disk": i.MinDisk, "min_ram": i.MinRAM} {
		if n < 0 {
			return invalid("Invalid value '%d' for parameter '%s': Cannot be a negative value", n, name)
		}
		if n > math.MaxInt32 {
			return invalid("'%s' value out of range, must not exceed %d.", name, math.MaxInt32)
		}
	}
	return nil
}

// mayShow refuses a visibility that the caller may not give.
func mayShow(who *rest.Caller, visibility string) error {
	if visibility == "public" && !who.Admin() {
		return denied("publicize_image")
	}
	return nil
}

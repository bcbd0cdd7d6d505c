package placement

import (
	"database/sql"
	_ "embed" // the standard names
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// Standard names, one a line: os_traits 2.9 and os_resource_classes 1.1, the
// releases that go with Zed.
var (
	//go:embed traits.txt
	traitsText string
	//go:embed classes.txt
	classesText string
)

func standardTraits() []string  { return strings.Fields(traitsText) }
func standardClasses() []string { return strings.Fields(classesText) }

// custom reports whether name is "CUSTOM_" and then A-Z, 0-9 and _, at most 255
// characters.
func custom(name string) bool {
	rest, ok := strings.CutPrefix(name, "CUSTOM_")
	return ok && rest != "" && plain(name)
}

// plain reports whether name could be one of a class or trait.
func plain(name string) bool {
	return name != "" && len(name) <= 255 && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_'
	})
}

// unknownTraits returns those that do not exist.
func (o operation) unknownTraits(names []string) ([]string, error) {
	return o.unknown(names, standardTraits(), "traits")
}

func (o operation) unknownClasses(names []string) ([]string, error) {
	return o.unknown(names, standardClasses(), "classes")
}

func (o operation) unknown(names, standard []string, table string) ([]string, error) {
	var unknown []string
	for _, n := range names {
		if slices.Contains(standard, n) {
			continue
		}
		known, err := o.has("SELECT 1 FROM "+table+" WHERE name = ?", n)
		if err != nil {
			return nil, err
		}
		if !known {
			unknown = append(unknown, n)
		}
	}
	return unknown, nil
}

func listTraits(o operation) (*rest.Response, error) {
	own, err := o.column("SELECT name FROM traits ORDER BY name")
	if err != nil {
		return nil, err
	}
	names := append(standardTraits(), own...)
	if filter := o.Params().Get("name"); o.Params().Has("name") {
		op, value, ok := strings.Cut(filter, ":")
		if !ok {
			return nil, badRequest(`Badly formatted name parameter. Expected name query string parameter in form: ?name=[in|startswith]:[name1,name2|prefix]. Got: "%s"`, filter)
		}
		wanted := strings.Split(value, ",")
		names = slices.DeleteFunc(names, func(n string) bool {
			return op == "in" && !slices.Contains(wanted, n) || op == "startswith" && !strings.HasPrefix(n, value)
		})
	}
	if o.Params().Has("associated") {
		asked := strings.ToLower(o.Params().Get("associated"))
		if asked != "true" && asked != "false" {
			return nil, badRequest(`The query parameter "associated" only accepts "true" or "false"`)
		}
		used, err := o.column("SELECT DISTINCT trait FROM provider_traits")
		if err != nil {
			return nil, err
		}
		names = slices.DeleteFunc(names, func(n string) bool { return slices.Contains(used, n) != (asked == "true") })
	}
	return rest.OK(map[string]any{"traits": names})
}

func showTrait(o operation) (*rest.Response, error) {
	if err := o.traitExists(); err != nil {
		return nil, err
	}
	return rest.NoContent()
}

func (o operation) traitExists() error {
	name := o.PathValue("name")
	missing, err := o.unknownTraits([]string{name})
	if err == nil && len(missing) > 0 {
		err = notFound("No such trait(s): %s.", name)
	}
	return err
}

func createTrait(o operation) (*rest.Response, error) {
	name := o.PathValue("name")
	if !custom(name) {
		return nil, badRequest(`The trait is invalid. A valid trait must be no longer than 255 characters, start with the prefix "CUSTOM_" and use following characters: "A"-"Z", "0"-"9" and "_"`)
	}
	n, err := o.exec("INSERT INTO traits VALUES (?) ON CONFLICT DO NOTHING", name)
	return made(n, o.Base()+"/traits/"+name), err
}

// made is 201 for something new and 204 for what was there.
func made(n int64, path string) *rest.Response {
	res := &rest.Response{Status: http.StatusNoContent, Header: http.Header{"Location": {path}}}
	if n > 0 {
		res.Status = http.StatusCreated
	}
	return res
}

func deleteTrait(o operation) (*rest.Response, error) {
	name := o.PathValue("name")
	if slices.Contains(standardTraits(), name) {
		return nil, badRequest("Cannot delete standard trait %s.", name)
	}
	if err := o.traitExists(); err != nil {
		return nil, err
	}
	if used, err := o.has("SELECT 1 FROM provider_traits WHERE trait = ?", name); err != nil {
		return nil, err
	} else if used {
		return nil, conflict("", "The trait %s is in use by a resource provider.", name)
	}
	if _, err := o.exec("DELETE FROM traits WHERE name = ?", name); err != nil {
		return nil, err
	}
	return rest.NoContent()
}

func (o operation) classView(name string) any {
	return map[string]any{"name": name, "links": []any{map[string]string{"rel": "self", "href": o.Prefix() + "/resource_classes/" + name}}}
}

func listClasses(o operation) (*rest.Response, error) {
	own, err := o.column("SELECT name FROM classes ORDER BY name")
	if err != nil {
		return nil, err
	}
	list := []any{}
	for _, n := range append(standardClasses(), own...) {
		list = append(list, o.classView(n))
	}
	return rest.OK(map[string]any{"resource_classes": list})
}

func (o operation) classExists(name string) error {
	missing, err := o.unknownClasses([]string{name})
	if err == nil && len(missing) > 0 {
		err = notFound("No such resource class %s.", name)
	}
	return err
}

// className reads the body of the requests that carry one.
func (o operation) className() (string, error) {
	var in struct {
		Name *string `json:"name"`
	}
	if err := o.strict(&in); err != nil {
		return "", err
	}
	if in.Name == nil {
		return "", badRequest("JSON does not validate: 'name' is a required property")
	}
	if !custom(*in.Name) {
		return "", badRequest("JSON does not validate: '%s' does not match '^CUSTOM_[A-Z0-9_]+$'", *in.Name)
	}
	return *in.Name, nil
}

func createClass(o operation) (*rest.Response, error) {
	name, err := o.className()
	if err != nil {
		return nil, err
	}
	n, err := o.exec("INSERT INTO classes VALUES (?) ON CONFLICT DO NOTHING", name)
	if err == nil && n == 0 {
		err = conflict("", "Conflicting resource class already exists: %s", name)
	}
	return made(n, o.Base()+"/resource_classes/"+name), err
}

func showClass(o operation) (*rest.Response, error) {
	name := o.PathValue("name")
	if err := o.classExists(name); err != nil {
		return nil, err
	}
	return rest.OK(o.classView(name))
}

// updateClass renames up to 1.6, and makes sure of the name from 1.7 on.
func updateClass(o operation) (*rest.Response, error) {
	name := o.PathValue("name")
	if o.Version.AtLeast(1, 7) {
		if !custom(name) {
			return nil, badRequest("JSON does not validate: '%s' does not match '^CUSTOM_[A-Z0-9_]+$'", name)
		}
		n, err := o.exec("INSERT INTO classes VALUES (?) ON CONFLICT DO NOTHING", name)
		return made(n, o.Base()+"/resource_classes/"+name), err
	}
	next, err := o.className()
	if err != nil {
		return nil, err
	}
	if slices.Contains(standardClasses(), name) {
		return nil, badRequest("Cannot update standard resource class %s", name)
	}
	if err := o.classExists(name); err != nil {
		return nil, err
	}
	if err := o.classExists(next); err == nil && next != name {
		return nil, conflict("", "Resource class already exists: %s", next)
	}
	for _, statement := range []string{
		"UPDATE classes SET name = ? WHERE name = ?",
		"UPDATE inventories SET class = ? WHERE class = ?",
		"UPDATE allocations SET class = ? WHERE class = ?",
	} {
		if _, err := o.exec(statement, next, name); err != nil {
			return nil, err
		}
	}
	return rest.OK(o.classView(next))
}

func deleteClass(o operation) (*rest.Response, error) {
	name := o.PathValue("name")
	if slices.Contains(standardClasses(), name) {
		return nil, badRequest("Error in delete resource class: Cannot delete standard resource class %s.", name)
	}
	if err := o.classExists(name); err != nil {
		return nil, err
	}
	if used, err := o.has("SELECT 1 FROM inventories WHERE class = ?", name); err != nil {
		return nil, err
	} else if used {
		return nil, conflict("", "Error in delete resource class: Cannot delete resource class %s. Class is in use in inventory.", name)
	}
	if _, err := o.exec("DELETE FROM classes WHERE name = ?", name); err != nil {
		return nil, err
	}
	return rest.NoContent()
}

// strict reads the body into a struct that knows all keys that may be there.
func (o operation) strict(v any) error {
	data, err := o.Bytes()
	if err != nil {
		return err
	}
	if !json.Valid(data) {
		return badRequest("Malformed JSON: the body is not a JSON document")
	}
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return badRequest("JSON does not validate: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// scanPairs collects rows of a key and a value into a map of lists.
func scanPairs(into map[string][]string) func(rows *sql.Rows) error {
	return func(rows *sql.Rows) error {
		var key, value string
		err := rows.Scan(&key, &value)
		into[key] = append(into[key], value)
		return err
	}
}

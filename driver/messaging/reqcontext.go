package messaging

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"
)

// RequestContext is Nova's request context in its dict form, as it rides in
// the _context_ keys (nova/context.py). Values are immutable: the With methods
// return changed copies. Unknown fields are carried along.
type RequestContext struct {
	fields map[string]json.RawMessage
}

// NewRequestContext makes a context of the given fields.
func NewRequestContext(fields map[string]json.RawMessage) RequestContext {
	return RequestContext{fields: maps.Clone(fields)}
}

// AdminContext returns a context for work that the service starts by itself,
// with a fresh request id and no user.
func AdminContext() RequestContext {
	return RequestContext{fields: map[string]json.RawMessage{
		"is_admin":         json.RawMessage("true"),
		"is_admin_project": json.RawMessage("true"),
		"read_deleted":     json.RawMessage(`"no"`),
		"request_id":       encode("req-" + uuid.NewString()),
		"roles":            json.RawMessage("[]"),
		"user_id":          json.RawMessage("null"),
		"project_id":       json.RawMessage("null"),
		"auth_token":       json.RawMessage("null"),
		"service_catalog":  json.RawMessage("[]"),
	}}
}

// Fields returns a copy of all fields.
func (c RequestContext) Fields() map[string]json.RawMessage { return maps.Clone(c.fields) }

// String returns a string field, "" when null or absent.
func (c RequestContext) String(field string) string {
	var s string
	_ = json.Unmarshal(c.fields[field], &s)
	return s
}

// RequestID, ProjectID, UserID and AuthToken return the fields of that name.
func (c RequestContext) RequestID() string { return c.String("request_id") }

// ProjectID is the project that the work is done for.
func (c RequestContext) ProjectID() string { return c.String("project_id") }

// UserID is the user who asked.
func (c RequestContext) UserID() string { return c.String("user_id") }

// AuthToken is the user's token; it may be empty or expired.
func (c RequestContext) AuthToken() string { return c.String("auth_token") }

// GlobalRequestID is the id that the first caller of a chain chose.
func (c RequestContext) GlobalRequestID() string { return c.String("global_request_id") }

// Roles returns the role names.
func (c RequestContext) Roles() []string {
	var r []string
	_ = json.Unmarshal(c.fields["roles"], &r)
	return r
}

// Elevated returns a copy with administrator rights, as Nova's elevated().
func (c RequestContext) Elevated() RequestContext {
	roles := c.Roles()
	if !slices.Contains(roles, "admin") {
		roles = append(slices.Clone(roles), "admin")
	}
	return c.with("is_admin", true).with("roles", roles)
}

// WithReadDeleted returns a copy with read_deleted set to "no", "yes" or "only".
func (c RequestContext) WithReadDeleted(value string) RequestContext {
	return c.with("read_deleted", value)
}

// Format prints the request id and nothing else, whatever the verb: a context
// holds a token and must not get into logs by accident.
func (c RequestContext) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(c.RequestID())) }

func (c RequestContext) with(field string, v any) RequestContext {
	out := RequestContext{fields: maps.Clone(c.fields)}
	if out.fields == nil {
		out.fields = map[string]json.RawMessage{}
	}
	out.fields[field] = encode(v)
	return out
}

func encode(v any) json.RawMessage {
	raw, err := json.Marshal(v)
	if err != nil {
		return json.RawMessage("null")
	}
	return raw
}

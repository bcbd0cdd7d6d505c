package objects

// ConsoleAuthToken lets a proxy connect to a console. Follows
// nova/objects/console_auth_token.py, ConsoleAuthToken 1.1.
type ConsoleAuthToken struct{ *Object }

// Console is where a token leads.
type Console struct {
	// Type is novnc, spice-html5, serial …
	Type string
	// Host and Port are where the proxy connects to; Path may be empty.
	Host string
	Port int
	Path string
	// InstanceUUID is the instance.
	InstanceUUID string
	// BaseURL is the proxy's address as the user sees it.
	BaseURL string
}

// NewConsoleAuthToken returns a token to authorize.
func NewConsoleAuthToken(c Console) ConsoleAuthToken {
	t := ConsoleAuthToken{New("ConsoleAuthToken")}
	t.Set("console_type", c.Type)
	t.Set("host", c.Host)
	t.Set("port", c.Port)
	t.Set("internal_access_path", orNull(c.Path))
	t.Set("instance_uuid", c.InstanceUUID)
	t.Set("access_url_base", orNull(c.BaseURL))
	return t
}

// Wire returns the object.
func (t ConsoleAuthToken) Wire() *Object { return t.Object }

// UnmarshalJSON reads a ConsoleAuthToken primitive.
func (t *ConsoleAuthToken) UnmarshalJSON(raw []byte) error {
	return read(raw, "ConsoleAuthToken", &t.Object)
}

package config

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"
)

// field is one option: where it stands and where its value goes.
type field struct {
	section, key, def, doc string
	// choices are the texts that are allowed; nil allows all.
	choices          []string
	required, secret bool
	value            reflect.Value
}

func (f field) path() string { return path(f.section, f.key) }

// path is the name of an option inside the loader. Names are lower case, as
// viper keeps them.
func path(section, key string) string {
	return strings.ToLower(section) + delim + strings.ToLower(key)
}

// fieldsOf lists all options of cfg in the order of the struct.
func fieldsOf(cfg *Config) []field {
	var out []field
	root := reflect.ValueOf(cfg).Elem()
	for i := range root.NumField() {
		out = append(out, sectionFields(root.Type().Field(i).Tag.Get("section"), root.Field(i))...)
	}
	return out
}

func sectionFields(section string, v reflect.Value) []field {
	var out []field
	for i := range v.NumField() {
		t := v.Type().Field(i)
		if t.Anonymous {
			out = append(out, sectionFields(section, v.Field(i))...)
			continue
		}
		f := field{
			section: section, key: t.Tag.Get("key"), def: t.Tag.Get("default"), doc: t.Tag.Get("doc"),
			required: t.Tag.Get("required") == "true", secret: t.Tag.Get("secret") == "true", value: v.Field(i),
		}
		if list := t.Tag.Get("choices"); list != "" {
			f.choices = strings.Split(list, "|")
		}
		if s := t.Tag.Get("section"); s != "" {
			f.section = s
		}
		out = append(out, f)
	}
	return out
}

// complete derives what has no constant default and checks what belongs together.
func (c *Config) complete() error {
	if c.Default.Host == "" {
		name, err := os.Hostname()
		if err != nil {
			return &Error{Section: "DEFAULT", Key: "host", Problem: "missing, and the machine has no host name"}
		}
		c.Default.Host = name
	}
	if c.Default.MyIP == "" {
		c.Default.MyIP = outboundAddress()
	}
	if net.ParseIP(c.Default.MyIP) == nil {
		return &Error{Section: "DEFAULT", Key: "my_ip", Problem: fmt.Sprintf("%q is not an IP address", c.Default.MyIP)}
	}
	if !filepath.IsAbs(c.Default.StatePath) {
		return &Error{Section: "DEFAULT", Key: "state_path", Problem: fmt.Sprintf("%q is not an absolute path", c.Default.StatePath)}
	}
	if c.Gantry.StorePath == "" {
		c.Gantry.StorePath = filepath.Join(c.Default.StatePath, "engine")
	}
	var errs []error
	need := func(section string, a Auth) {
		if a.AuthURL == "" && a.EndpointOverride == "" {
			errs = append(errs, &Error{Section: section, Key: "auth_url", Problem: "missing; expected the address of the identity service"})
		}
	}
	c.Glance.Auth = inherit(c.Glance.Auth, c.ServiceUser.Auth, c.Keystone)
	c.Neutron.Auth = inherit(c.Neutron.Auth, c.Keystone)
	c.Placement = inherit(c.Placement, c.Keystone)
	need("placement", c.Placement)
	need("neutron", c.Neutron.Auth)
	need("glance", c.Glance.Auth)
	return errors.Join(errs...)
}

// inherit fills the credentials of a section that names no identity service
// from the first one that does. Nova reads images with the user's token and so
// often has no credentials in [glance].
func inherit(a Auth, from ...Auth) Auth {
	for _, b := range from {
		if a.AuthURL != "" {
			break
		}
		if b.AuthURL == "" {
			continue
		}
		own := a
		a = b
		a.EndpointOverride = own.EndpointOverride
		if own.RegionName != "" {
			a.RegionName = own.RegionName
		}
		a.ValidInterfaces, a.Timeout, a.ConnectRetries = own.ValidInterfaces, own.Timeout, own.ConnectRetries
	}
	return a
}

// outboundAddress is the address that the default route would use; no packet
// is sent. Without a route it is the loopback address.
func outboundAddress() string {
	conn, err := net.Dial("udp", "192.0.2.1:9")
	if err != nil {
		return "127.0.0.1"
	}
	defer conn.Close()
	host, _, err := net.SplitHostPort(conn.LocalAddr().String())
	if err != nil {
		return "127.0.0.1"
	}
	return host
}

// Write prints the effective configuration in the format that Load reads, with
// secrets left out.
func (c *Config) Write(w io.Writer) error {
	section := ""
	for _, f := range fieldsOf(c) {
		if f.section != section {
			section = f.section
			if _, err := fmt.Fprintf(w, "\n[%s]\n", section); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(w, "# %s\n%s = %s\n", f.doc, f.key, f.render()); err != nil {
			return err
		}
	}
	return nil
}

func (f field) render() string {
	if f.secret {
		return "***"
	}
	switch v := f.value.Interface().(type) {
	case time.Duration:
		return fmt.Sprint(v.Seconds())
	case []string:
		return strings.Join(v, ",")
	case string:
		if f.key == "transport_url" {
			return "***"
		}
		return v
	default:
		return fmt.Sprint(v)
	}
}

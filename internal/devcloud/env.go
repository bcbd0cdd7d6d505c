package devcloud

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"text/template"

	"github.com/gantry-project/gantry/internal/atomicfile"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Region is the name of the cloud's only region.
const Region = "RegionOne"

// Passwords of the users that a new cloud has. They are made once, and kept in
// a file that only root reads.
type passwords struct {
	Admin   string `json:"admin"`
	Demo    string `json:"demo"`
	Service string `json:"service"`
}

// Owns reports whether the directory is the state of a cloud.
func Owns(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, passwordFile))
	return err == nil
}

const passwordFile = "passwords.json"

func loadPasswords(state string) (p passwords, err error) {
	path := filepath.Join(state, passwordFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		p = passwords{rand.Text(), rand.Text(), rand.Text()}
		if text, err = json.Marshal(p); err == nil {
			err = atomicfile.Write(path, text, 0o600)
		}
		return p, err
	}
	if err == nil {
		if err = json.Unmarshal(text, &p); err != nil || p.Admin == "" || p.Demo == "" || p.Service == "" {
			err = errors.Join(err, errdefs.ErrCorrupt)
		}
	}
	if err != nil {
		return p, fmt.Errorf("read %s: %w", path, err)
	}
	return p, nil
}

// account is one way into the cloud.
type account struct {
	User, Project, Password, URL, CAFile, Region, State string
}

func (c *Cloud) accounts() []account {
	return []account{
		{"admin", "admin", c.passwords.Admin, c.o.URL, c.o.CAFile, Region, c.o.State},
		{"demo", "demo", c.passwords.Demo, c.o.URL, c.o.CAFile, Region, c.o.State},
	}
}

// The names of the variables are python-openstackclient's; what other clouds may
// have set is taken away.
const openrc = `unset OS_CACERT OS_CLOUD OS_TOKEN OS_SYSTEM_SCOPE OS_DOMAIN_ID OS_DOMAIN_NAME OS_PROJECT_ID OS_USER_ID OS_USER_DOMAIN_NAME OS_PROJECT_DOMAIN_NAME
export OS_AUTH_URL={{.URL}}/identity/v3
export OS_IDENTITY_API_VERSION=3
export OS_USERNAME={{.User}}
export OS_PASSWORD={{.Password}}
export OS_PROJECT_NAME={{.Project}}
export OS_USER_DOMAIN_ID=default
export OS_PROJECT_DOMAIN_ID=default
export OS_REGION_NAME={{.Region}}
export OS_AUTH_TYPE=password
{{if .CAFile}}export OS_CACERT={{.CAFile}}
{{end}}`

const cloudsYAML = `clouds:
{{- range .}}
  gantry{{if ne .User "admin"}}-{{.User}}{{end}}:
    auth:
      auth_url: {{.URL}}/identity/v3
      username: {{.User}}
      password: {{.Password}}
      project_name: {{.Project}}
      user_domain_id: default
      project_domain_id: default
    region_name: {{.Region}}
{{- if .CAFile}}
    cacert: {{.CAFile}}
{{- end}}
    identity_api_version: 3
{{- end}}
`

// writeEnv writes how clients reach the cloud: openrc files and clouds.yaml.
func (c *Cloud) writeEnv() error {
	accounts := c.accounts()
	errs := []error{writeText(filepath.Join(c.o.State, "clouds.yaml"), cloudsYAML, accounts)}
	for _, a := range accounts {
		errs = append(errs, writeText(envFile(c.o.State, a.User), openrc, a))
	}
	return errors.Join(errs...)
}

// writeText writes what a template makes of data.
func writeText(file, text string, data any) error {
	t, err := template.New(filepath.Base(file)).Parse(text)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, data); err != nil {
		return err
	}
	return atomicfile.Write(file, out.Bytes(), 0o600)
}

func envFile(state, user string) string { return filepath.Join(state, "openrc-"+user) }

// Env returns the settings of a user, "admin" or "demo", of the cloud with that
// state, for a shell. errors.Is(err, os.ErrNotExist) where none has run.
func Env(state, user string) ([]byte, error) {
	if user != "admin" && user != "demo" {
		return nil, fmt.Errorf("settings of user %q: there are those of admin and demo: %w", user, errdefs.ErrInvalid)
	}
	return os.ReadFile(envFile(state, user))
}

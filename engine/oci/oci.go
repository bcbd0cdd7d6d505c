// Package oci turns the configuration of a bundle, config.json of the OCI
// runtime specification 1.0 to 1.3, into what the engine's parts take: a
// process.Spec, cgroup.Limits, a compiled system call filter and the hooks that
// the caller has to run.
//
// It decides nothing and touches nothing: Parse takes bytes, Convert is a pure
// function of the configuration and a few facts of the host. What is wrong is
// an error that names the field, of class errdefs.ErrInvalid, or
// errdefs.ErrUnsupported for what this engine or host does not have. What the
// specification lets a runtime pass over (unknown properties, capabilities that
// cannot be granted) becomes a warning at most.
//
// Source: opencontainers/runtime-spec config.md, config-linux.md; where those
// leave a choice, the behaviour of runc, which callers rely on.
package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Version returns the newest version of the specification that is understood.
func Version() string { return specs.Version }

// Limits of a configuration.
const (
	// MaxSize in bytes: the arguments and environment of a command alone may
	// be 6 MiB.
	MaxSize = 8 << 20
	// maxDepth of nested objects and lists; the specification needs 7.
	maxDepth = 64
)

// Host is what Convert has to know of the host.
type Host struct {
	// Arch is the host's architecture, by its name in Go.
	Arch string
	// Capabilities are the names that the caller can grant to a container
	// without a user namespace of its own.
	Capabilities []string
	// SELinux: the kernel runs it.
	SELinux bool
}

// Container is a converted configuration.
type Container struct {
	// Process lacks what only a caller knows: CgroupFiles, Stdio,
	// ConsoleSocket, Preserve, Gate, SeccompListener and Hooks.State.
	Process process.Spec
	// CgroupsPath is linux.cgroupsPath as written, "" for the caller's choice.
	CgroupsPath string
	Limits      cgroup.Limits
	// ListenerPath is the socket for the filter's notification descriptor, ""
	// for none; ListenerMetadata goes with it.
	ListenerPath, ListenerMetadata string
	// Poststart and Poststop hooks are for the caller to run.
	Poststart, Poststop []process.Hook
	// Warnings are for the log, one line each.
	Warnings []string
}

// Read reads a file that Parse takes; errdefs.ErrInvalid when it has more than
// MaxSize bytes.
func Read(r io.Reader) ([]byte, error) { return read(r, "configuration") }

func read(r io.Reader, what string) ([]byte, error) {
	var b bytes.Buffer
	const usual = 16 << 10
	b.Grow(usual)
	if _, err := b.ReadFrom(io.LimitReader(r, MaxSize+1)); err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	if b.Len() > MaxSize {
		return nil, fmt.Errorf("read %s: more than %d bytes: %w", what, MaxSize, errdefs.ErrInvalid)
	}
	return b.Bytes(), nil
}

// Parse takes the text of a configuration apart.
func Parse(text []byte) (*specs.Spec, error) {
	var w wire
	if err := decode(text, "configuration", &w); err != nil {
		return nil, err
	}
	return w.spec(), nil
}

// ParseProcess reads a process object, as exec takes it.
func ParseProcess(r io.Reader) (*specs.Process, error) {
	var p specs.Process
	text, err := read(r, "process")
	if err == nil {
		err = decode(text, "process", &p)
	}
	if err != nil {
		return nil, err
	}
	return &p, nil
}

// ParseResources reads a resources object, as update takes it.
func ParseResources(r io.Reader) (*specs.LinuxResources, error) {
	var res specs.LinuxResources
	text, err := read(r, "resources")
	if err == nil {
		err = decode(text, "resources", &res)
	}
	if err != nil {
		return nil, err
	}
	return &res, nil
}

func decode(data []byte, what string, into any) error {
	if err := checkDepth(data); err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	if bytes.Equal(bytes.TrimSpace(data), []byte("null")) {
		return fmt.Errorf("read %s: null: %w", what, errdefs.ErrInvalid)
	}
	err := json.Unmarshal(data, into)
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &kind) && kind.Field != "":
		return fmt.Errorf("read %s: %s: a %s does not fit: %w", what, fieldOf(kind), kind.Value, errdefs.ErrInvalid)
	case err != nil:
		return fmt.Errorf("read %s: %w: %w", what, err, errdefs.ErrInvalid)
	}
	return nil
}

// fieldOf names the field without the types that wire embeds, whose names the
// decoder puts between: "process.Process.args".
func fieldOf(err *json.UnmarshalTypeError) string {
	parts := strings.Split(err.Field, ".")
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p != "" && p[0] >= 'A' && p[0] <= 'Z' }), ".")
}

// checkDepth looks at brackets outside of strings; the decoder does the rest.
func checkDepth(data []byte) error {
	depth, quoted, escaped := 0, false, false
	for _, b := range data {
		switch {
		case escaped:
			escaped = false
		case quoted:
			escaped = b == '\\'
			quoted = b != '"'
		case b == '"':
			quoted = true
		case b == '{', b == '[':
			if depth++; depth > maxDepth {
				return fmt.Errorf("nested more than %d deep: %w", maxDepth, errdefs.ErrInvalid)
			}
		case b == '}', b == ']':
			depth--
		}
	}
	return nil
}

// invalid is the error of a field that no host takes.
func invalid(field, format string, a ...any) error {
	return fmt.Errorf("config: %s: %s: %w", field, fmt.Sprintf(format, a...), errdefs.ErrInvalid)
}

// unsupported is the error of a field that another host or runtime may take.
func unsupported(field, format string, a ...any) error {
	return fmt.Errorf("config: %s: %s: %w", field, fmt.Sprintf(format, a...), errdefs.ErrUnsupported)
}

// Convert turns a configuration into the engine's terms. Relative paths of the
// configuration are below bundle, an absolute path.
func Convert(spec *specs.Spec, bundle string, host Host) (*Container, error) {
	c := &converter{spec: spec, linux: spec.Linux, bundle: bundle, host: host, out: &Container{}}
	if c.linux == nil {
		c.linux = &specs.Linux{}
	}
	for _, step := range []func() error{
		c.version, c.platform, c.namespaces, c.userMaps, c.root, c.names, c.mounts, c.devices, c.paths, c.sysctls,
		c.kernel, c.process, c.resources, c.filter, c.hooks, c.annotations,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return c.out, nil
}

// converter holds what the steps of Convert share.
type converter struct {
	spec   *specs.Spec
	linux  *specs.Linux // never nil
	bundle string
	host   Host
	out    *Container
	has    map[specs.LinuxNamespaceType]specs.LinuxNamespace
}

func (c *converter) warn(field, format string, a ...any) {
	c.out.Warnings = append(c.out.Warnings, field+": "+fmt.Sprintf(format, a...))
}

// version takes all of the specification's first major version.
func (c *converter) version() error {
	v := c.spec.Version
	core, _, _ := strings.Cut(v, "-")
	core, _, _ = strings.Cut(core, "+")
	parts := strings.Split(core, ".")
	ok := len(parts) == 3
	for _, p := range parts {
		ok = ok && p != "" && len(p) < 10 && strings.Trim(p, "0123456789") == "" && (p == "0" || p[0] != '0')
	}
	switch {
	case v == "":
		return invalid("ociVersion", "missing")
	case !ok:
		return invalid("ociVersion", "%q is no version", clip(v))
	case parts[0] != "1":
		return unsupported("ociVersion", "%s, known is %s", clip(v), Version())
	}
	return nil
}

func (c *converter) platform() error {
	switch {
	case c.spec.VM != nil:
		return unsupported("vm", "containers have no machine of their own")
	case c.spec.Linux == nil && (c.spec.Windows != nil || c.spec.Solaris != nil || c.spec.ZOS != nil || c.spec.FreeBSD != nil):
		return unsupported("linux", "missing: the configuration is for another platform")
	}
	return nil
}

func (c *converter) annotations() error {
	for key := range c.spec.Annotations {
		if key == "" {
			return invalid("annotations", "empty key")
		}
	}
	return nil
}

// clip shortens a foreign text for an error.
func clip(s string) string {
	const most = 128
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

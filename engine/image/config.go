package image

import (
	"encoding/json"
	"path"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Config is what is read of an image's configuration: an allow list. All else
// (volumes, labels, health checks, hooks) is ignored. It may be stored as JSON.
type Config struct {
	Architecture string `json:"architecture,omitempty"` // in Go's words
	// Env holds KEY=VALUE entries.
	Env        []string `json:"env,omitempty"`
	Entrypoint []string `json:"entrypoint,omitempty"`
	Cmd        []string `json:"cmd,omitempty"`
	// WorkingDir is absolute and clean, or empty.
	WorkingDir string `json:"working_dir,omitempty"`
	// User is "user", "uid", "user:group" and so on, unresolved.
	User string `json:"user,omitempty"`
	// StopSignal is a name or number as the image gives it, known to be valid,
	// or empty. See Signal.
	StopSignal string `json:"stop_signal,omitempty"`
}

// maxArgs bounds command and environment together, in bytes: the kernel takes
// no more than a quarter of the stack's limit.
const maxArgs = 1 << 20

// configDoc is the configuration document, OCI config.md; docker's is a
// superset of it.
type configDoc struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Config       struct {
		Env        []string
		Entrypoint strSlice
		Cmd        strSlice
		WorkingDir string
		User       string
		StopSignal string
	} `json:"config"`
	RootFS struct {
		DiffIDs []digest.Digest `json:"diff_ids"`
	} `json:"rootfs"`
	History []struct {
		Created    time.Time `json:"created"`
		CreatedBy  string    `json:"created_by"`
		EmptyLayer bool      `json:"empty_layer"`
	} `json:"history"`
}

// Step says how a layer came about, as far as its image tells. It may be stored
// as JSON.
type Step struct {
	Created time.Time `json:"created,omitzero"`
	// CreatedBy is the command or tool that made it, at most 1,024 bytes of it.
	CreatedBy string `json:"created_by,omitempty"`
}

const maxCreatedBy = 1024

// steps are those of the layers, or nil when the history does not tell.
func (d *configDoc) steps() []Step {
	var out []Step
	for _, h := range d.History {
		if !h.EmptyLayer {
			out = append(out, Step{h.Created, strings.ToValidUTF8(h.CreatedBy[:min(len(h.CreatedBy), maxCreatedBy)], "")})
		}
	}
	if len(out) != len(d.RootFS.DiffIDs) {
		return nil
	}
	return out
}

// parsed is what a configuration document says.
type parsed struct {
	Config
	diffIDs []digest.Digest
	steps   []Step
}

// strSlice is a list that very old images give as one string.
type strSlice []string

// UnmarshalJSON implements json.Unmarshaler.
func (s *strSlice) UnmarshalJSON(data []byte) error {
	var list []string
	if err := json.Unmarshal(data, &list); err == nil {
		*s = list
		return nil
	}
	var one string
	if err := json.Unmarshal(data, &one); err != nil {
		return err
	}
	*s = []string{one}
	return nil
}

// parseConfig reads a configuration document for the wanted architecture.
func parseConfig(data []byte, arch string, lim Limits) (parsed, error) {
	var doc configDoc
	if err := decodeJSON(data, lim.JSONDepth, &doc); err != nil {
		return parsed{}, damaged("its configuration cannot be read: %w", err)
	}
	if err := doc.runsOn(arch); err != nil {
		return parsed{}, err
	}
	if n := len(doc.RootFS.DiffIDs); n == 0 || n > lim.Layers {
		return parsed{}, refuse(errdefs.ErrInvalid, "the image has %d layers; 1 to %d are possible", n, lim.Layers)
	}
	for _, d := range doc.RootFS.DiffIDs {
		if !isSHA256(d) {
			return parsed{}, refuse(errdefs.ErrInvalid, "the image names a layer by %.80q, which is no sha256 digest", string(d))
		}
	}
	return doc.parse()
}

// runsOn refuses what is for other machines.
func (d *configDoc) runsOn(arch string) error {
	if d.OS != "" && d.OS != "linux" {
		return refuse(errdefs.ErrUnsupported, "the image is for the operating system %.20q, not for linux", d.OS)
	}
	if d.Architecture != "" && !archRuns(d.Architecture, arch) {
		return refuse(errdefs.ErrUnsupported, "the image is for the architecture %.20q, the host has %s", d.Architecture, arch)
	}
	return nil
}

// parse takes over what is used of the document.
func (d *configDoc) parse() (parsed, error) {
	c := Config{
		Architecture: d.Architecture,
		Entrypoint:   d.Config.Entrypoint,
		Cmd:          d.Config.Cmd,
		WorkingDir:   d.Config.WorkingDir,
		User:         d.Config.User,
		StopSignal:   d.Config.StopSignal,
	}
	for _, e := range d.Config.Env {
		if strings.Index(e, "=") > 0 {
			c.Env = append(c.Env, e)
		}
	}
	if c.WorkingDir != "" {
		c.WorkingDir = path.Clean("/" + c.WorkingDir)
	}
	return parsed{c, d.RootFS.DiffIDs, d.steps()}, c.check()
}

// check refuses values that no process can be given.
func (c Config) check() error {
	total := 0
	for _, list := range [][]string{c.Env, c.Entrypoint, c.Cmd, {c.WorkingDir, c.User}} {
		for _, s := range list {
			total += len(s) + 1
			if strings.IndexByte(s, 0) >= 0 {
				return refuse(errdefs.ErrInvalid, "the image's configuration holds a NUL byte")
			}
		}
	}
	switch {
	case total > maxArgs:
		return refuse(errdefs.ErrInvalid, "the image's command and environment are longer than %d bytes", maxArgs)
	case len(c.WorkingDir) > 4095:
		return refuse(errdefs.ErrInvalid, "the image's working directory is too long")
	case len(c.User) > 256 || strings.ContainsAny(c.User, "\n\r"):
		return refuse(errdefs.ErrInvalid, "the image's user is not a name")
	}
	_, err := c.Signal()
	return err
}

// archRuns says whether a host of architecture host runs programs for arch.
func archRuns(arch, host string) bool {
	return arch == host || host == "amd64" && arch == "386"
}

func hostArch(opts OpenOptions) string {
	if opts.Arch != "" {
		return opts.Arch
	}
	return runtime.GOARCH
}

func isSHA256(d digest.Digest) bool {
	return d.Validate() == nil && d.Algorithm() == digest.SHA256
}

// signals are the numbers of signal(7) on amd64 and arm64.
var signals = map[string]int{
	"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "IOT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "USR1": 10,
	"SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "STKFLT": 16, "CHLD": 17, "CLD": 17, "CONT": 18, "STOP": 19,
	"TSTP": 20, "TTIN": 21, "TTOU": 22, "URG": 23, "XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27, "WINCH": 28, "IO": 29,
	"POLL": 29, "PWR": 30, "SYS": 31,
}

// Signal returns the number of StopSignal, 1 to 64, and 15 (TERM) if it is
// empty. Names come with or without SIG; RTMIN+n and RTMAX-n count from 34
// and 64.
func (c Config) Signal() (int, error) {
	s := strings.TrimPrefix(strings.ToUpper(c.StopSignal), "SIG")
	if s == "" && c.StopSignal == "" {
		return signals["TERM"], nil
	}
	n, known := signals[s]
	switch {
	case known:
	case strings.HasPrefix(s, "RTMIN"):
		n = 34 + offset(s[5:], '+')
	case strings.HasPrefix(s, "RTMAX"):
		n = 64 - offset(s[5:], '-')
	default:
		n = offset("+"+s, '+')
	}
	if n < 1 || n > 64 || strings.HasPrefix(s, "RT") && n < 34 {
		return 0, refuse(errdefs.ErrInvalid, "the image's stop signal %.20q does not exist", c.StopSignal)
	}
	return n, nil
}

// offset reads "", or sign and a number; anything else is far out of range.
func offset(s string, sign byte) int {
	if s == "" {
		return 0
	}
	n, err := strconv.ParseUint(s[1:], 10, 16)
	if s[0] != sign || err != nil {
		return 1 << 20
	}
	return int(n)
}

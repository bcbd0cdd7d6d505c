package local

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
)

const (
	// commandProperty is Glance's documented property for the start command.
	commandProperty = "os_command_line"
	defaultPath     = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// inits are looked for, in this order, in a bare root file system; the last is
// the fallback that puts a shell on the console.
var inits = [][]string{
	{"/sbin/init"},
	{"/usr/lib/systemd/systemd"},
	{"/lib/systemd/systemd"},
	{"/usr/sbin/init"},
	{"/init"},
	{"/bin/sh"},
}

// guestFor decides what runs. It is pure: image configuration and properties
// in, command out. An image that says nothing to run is errdefs.ErrInvalid.
func guestFor(req driver.SpawnRequest, img engine.ImageInfo) (guest, error) {
	g := guest{
		Hostname: hostname(req.Hostname, string(req.UUID)),
		Cwd:      img.Config.WorkingDir,
		User:     img.Config.User,
		VCPUs:    req.Flavor.VCPUs,
		MemoryMB: req.Flavor.MemoryMB,
		Image:    imageRef(req.Image),
		Drive:    req.Drive != nil,

		Processors: req.Flavor.Processors,
	}
	var err error
	if g.Env, err = environment(img, req.Metadata); err != nil {
		return g, err
	}
	if g.Profile, g.Nesting, err = profileOf(req.Flavor); err != nil {
		return g, err
	}
	if g.Traffic, err = trafficOf(req.Flavor); err != nil {
		return g, err
	}
	switch {
	case req.Image.Properties[commandProperty] != "":
		args, err := splitCommand(req.Image.Properties[commandProperty])
		if err != nil {
			return g, errdefs.WithPublic(fmt.Errorf("%s: %w", commandProperty, err),
				"The image property "+commandProperty+" is malformed: "+err.Error())
		}
		g.Args = args
	case img.RootFS:
		g.Candidates = inits
	case len(img.Config.Entrypoint)+len(img.Config.Cmd) > 0:
		g.Args = slices.Concat(img.Config.Entrypoint, img.Config.Cmd)
	default:
		return g, errdefs.WithPublic(fmt.Errorf("image %s: no command: %w", req.Image.ID, errdefs.ErrInvalid),
			"The image names no command to run; set its property "+commandProperty+".")
	}
	if img.Config.StopSignal == "" {
		return g, nil // chosen by what runs
	}
	sig, err := img.Config.Signal()
	if err != nil {
		return g, errdefs.WithPublic(err, "The image's stop signal "+strconv.Quote(img.Config.StopSignal)+" is unknown.")
	}
	g.StopSignal = sig
	return g, nil
}

// Extra specs of flavors that name the profile of their instances; without them
// the program decides (engine.ProfileAuto). Properties of images have no say in it.
const (
	profileProperty = "gantry:profile"
	// nestingProperty is engine.StartRequest.Nesting.
	nestingProperty = "gantry:nesting"
)

// profileOf is what a flavor asks for; errdefs.ErrInvalid for a profile that does
// not exist, and for nesting in one that cannot have it.
func profileOf(f driver.Flavor) (p engine.Profile, nesting bool, err error) {
	spec := specs{flavor: f}
	p = engine.Profile(f.ExtraSpecs[profileProperty])
	if !p.Valid() {
		spec.refuse(profileProperty, "instance or system")
	}
	switch strings.ToLower(f.ExtraSpecs[nestingProperty]) {
	case "", "false":
	case "true":
		if nesting = true; p == engine.ProfileInstance {
			spec.refuse(profileProperty, "system, or absent, where "+nestingProperty+" is true")
		}
	default:
		spec.refuse(nestingProperty, "true or false")
	}
	return p, nesting, spec.err
}

// hostname is the instance's name made safe: letters, digits, '-' and '.', at
// most 63 long, with a letter or digit at both ends. A name of which nothing is
// left gives the fallback.
func hostname(name, fallback string) string {
	var b strings.Builder
	for _, r := range name {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '.':
			b.WriteRune(r)
		}
	}
	out := strings.TrimLeft(b.String(), "-.")
	if out = strings.TrimRight(out[:min(len(out), 63)], "-."); out == "" {
		return fallback
	}
	return out
}

// networkFiles are written at each start: they follow Neutron. A network
// without name servers leaves the image's own.
func networkFiles(vifs objects.NetworkInfo) []process.File {
	data := resolvConf(vifs)
	if len(data) == 0 {
		return nil
	}
	return []process.File{{Path: "/etc/resolv.conf", Data: data, Mode: 0o644}}
}

// firstFiles are written at the first start only; from then on they are the
// guest's. A path with "..", with a zero byte or that names a directory is
// errdefs.ErrInvalid.
func firstFiles(req driver.SpawnRequest, g guest, vifs objects.NetworkInfo) ([]process.File, error) {
	files := []process.File{
		{Path: "/etc/hostname", Data: []byte(g.Hostname + "\n"), Mode: 0o644},
		{Path: "/etc/hosts", Data: hostsFile(g.Hostname, vifs), Mode: 0o644},
	}
	if key := strings.TrimSpace(req.PublicKey); key != "" {
		files = append(files, process.File{Path: "/root/.ssh/authorized_keys", Data: []byte(key + "\n"), Mode: 0o600})
	}
	for _, f := range req.Files {
		clean := path.Clean("/" + f.Path)
		if clean == "/" || strings.ContainsRune(f.Path, 0) || strings.HasSuffix(f.Path, "/") ||
			slices.Contains(strings.Split(f.Path, "/"), "..") {
			return nil, errdefs.WithPublic(fmt.Errorf("inject %q: %w", f.Path, errdefs.ErrInvalid),
				"The injected file "+strconv.Quote(f.Path)+" has no usable path.")
		}
		files = append(files, process.File{Path: clean, Data: f.Content, Mode: 0o644})
	}
	return files, nil
}

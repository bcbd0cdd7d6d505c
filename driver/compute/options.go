package compute

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/gantry-project/gantry/driver/objects"
)

// Options are the manager's settings, named after Nova's.
type Options struct {
	// Host is the name of this compute service ([DEFAULT] host).
	Host string
	// Observe is told how each operation has ended, by its RPC method or "build",
	// and how long it took. It must not block; nil for nobody.
	Observe func(method, outcome string, took time.Duration)
	// MyIP is the address by which other hosts know this one (my_ip).
	MyIP string
	// MaxConcurrentBuilds bounds builds and MaxConcurrentSnapshots uploads at
	// the same time; 0 means no bound.
	MaxConcurrentBuilds    int
	MaxConcurrentSnapshots int
	// VIFPluggingTimeout bounds the wait for network-vif-plugged; 0 means not
	// to wait at all. VIFPluggingFatal says that a wait in vain fails the build.
	VIFPluggingTimeout time.Duration
	VIFPluggingFatal   bool
	// ShutdownTimeout is how long a guest may take to stop by itself, unless
	// its image says otherwise; it is asked again each ShutdownRetry.
	ShutdownTimeout, ShutdownRetry time.Duration
	// ShelvedOffloadTime is how long a shelved instance keeps its place on the
	// host: 0 not at all, negative for ever.
	ShelvedOffloadTime time.Duration
	// InstanceNameTemplate makes the internal name from the instance's id.
	InstanceNameTemplate string
	// BlockDevicesInNotifications puts the list of volumes, which is empty,
	// into versioned notifications.
	BlockDevicesInNotifications bool
	// VNCBaseURL and SerialBaseURL are where users find the proxies of consoles
	// ([vnc] novncproxy_base_url, [serial_console] base_url); "" is a kind that is
	// not enabled.
	VNCBaseURL, SerialBaseURL string
	// ConsoleTokenTTL is how long a user's token of a console is good.
	ConsoleTokenTTL time.Duration
	// ConductorPatience is how long a save that got no answer is tried again.
	ConductorPatience time.Duration
	// QuiesceTimeout is how long a guest's files are held still when nobody lets
	// them go.
	QuiesceTimeout time.Duration
	// ForceConfigDrive gives every new instance a config drive.
	ForceConfigDrive bool
}

// DefaultOptions returns Nova's defaults for the given host.
func DefaultOptions(host string) Options {
	return Options{
		Host:                   host,
		MaxConcurrentBuilds:    10,
		MaxConcurrentSnapshots: 5,
		VIFPluggingTimeout:     300 * time.Second,
		VIFPluggingFatal:       true,
		ShutdownTimeout:        60 * time.Second,
		ShutdownRetry:          10 * time.Second,
		InstanceNameTemplate:   "instance-%08x",
		ConsoleTokenTTL:        10 * time.Minute,
		ConductorPatience:      10 * time.Minute,
		QuiesceTimeout:         time.Minute,
	}
}

var (
	namedVerb = regexp.MustCompile(`%\((\w+)\)[-+ #0]*\d*s`)
	idVerb    = regexp.MustCompile(`%(0?\d*)([dxXi])`)
)

// instanceName computes the internal name as Nova's Instance.name does: the
// template is a Python format of the id, or of named fields of the instance.
func instanceName(template string, inst *objects.Object) string {
	if strings.Contains(template, "%(") {
		return namedVerb.ReplaceAllStringFunc(template, func(verb string) string {
			field := namedVerb.FindStringSubmatch(verb)[1]
			if field == "id" {
				return fmt.Sprint(inst.Int("id"))
			}
			return inst.String(field)
		})
	}
	return idVerb.ReplaceAllStringFunc(template, func(verb string) string {
		return fmt.Sprintf(strings.Replace(verb, "i", "d", 1), inst.Int("id"))
	})
}

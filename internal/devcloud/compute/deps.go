package compute

import (
	"context"
	"net/netip"
	"time"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// Identity is what is asked of the identity service.
type Identity interface {
	// ProjectExists reports whether there is a project of that id.
	ProjectExists(ctx context.Context, id string) (bool, error)
}

// Placement is what the placement service is told.
type Placement interface {
	// SetAggregate makes a resource provider (a compute node's UUID) a member of
	// an aggregate, or ends that; errdefs.ErrNotFound without such a provider.
	SetAggregate(ctx context.Context, provider, aggregate string, member bool) error
}

// Image is what is known of an image. Sizes are in bytes, MinDisk in GiB,
// MinRAM in MiB.
type Image struct {
	ID, Name, Status, Owner     string
	ContainerFormat, DiskFormat string
	Checksum                    string
	HashAlgo, HashValue         string
	Size                        int64
	MinDisk, MinRAM             int64
	Public                      bool
	Properties                  map[string]string
	CreatedAt, UpdatedAt        time.Time
}

// Images is what is asked of the image service.
type Images interface {
	// Image finds an image that the caller may see; errdefs.ErrNotFound
	// otherwise.
	Image(ctx context.Context, caller *rest.Caller, id string) (Image, error)
	// Images are those that the caller sees, in the order of the image service:
	// at most limit of them, after the one named marker.
	Images(ctx context.Context, caller *rest.Caller, limit int, marker string) ([]Image, error)
	// CreateImage makes the record of an image that a compute host will fill,
	// in the state queued, private, owned by the caller's project, and returns
	// its id. Of i the name, formats, least sizes and properties count.
	CreateImage(ctx context.Context, caller *rest.Caller, i Image) (string, error)
	// DeleteImage removes an image; errdefs.ErrNotFound if the caller sees none.
	DeleteImage(ctx context.Context, caller *rest.Caller, id string) error
}

// Network is one network.
type Network struct {
	ID, Name, ProjectID string
	Shared, External    bool
	// Subnets are how many it has.
	Subnets int
}

// Port is one port.
type Port struct {
	ID, NetworkID, ProjectID, MAC, Status string
	// DeviceID is the server that has it, or "".
	DeviceID string
	FixedIPs []FixedIP
	Groups   []SecurityGroup
}

// FixedIP is an address of a port.
type FixedIP struct {
	SubnetID string
	Address  netip.Addr
}

// SecurityGroup is a security group.
type SecurityGroup struct {
	ID, Name, Description, ProjectID string
	// Rules are those for traffic to servers; lists of ports leave them out.
	Rules []SecurityGroupRule
}

// SecurityGroupRule lets traffic to servers in.
type SecurityGroupRule struct {
	ID string
	// Protocol is tcp, udp, icmp or "" for any.
	Protocol string
	// First and Last are ports of the destination; -1 is any.
	First, Last int
	// CIDR or GroupName say from where; both empty is from anywhere.
	CIDR, GroupName string
}

// PortQuery selects ports: those with one of the ids, or of one of the servers.
type PortQuery struct{ IDs, Servers []string }

// Networks is what is asked of the network service. Ids that are not there or
// not for the caller to see are left out of lists.
type Networks interface {
	// Networks are those of the ids, or with no ids all that a server of the
	// caller's project gets when it asks for none in particular: its own and the
	// shared ones that are not external.
	Networks(ctx context.Context, caller *rest.Caller, ids ...string) ([]Network, error)
	Ports(ctx context.Context, caller *rest.Caller, q PortQuery) ([]Port, error)
	// SecurityGroups are those of the caller's project.
	SecurityGroups(ctx context.Context, caller *rest.Caller) ([]SecurityGroup, error)
	// SetPortGroups replaces the security groups of a port.
	SetPortGroups(ctx context.Context, caller *rest.Caller, port string, groups []string) error
	// Ask sends the caller's request to the network API, for what the compute API
	// passes on: path is below its version ("/floatingips"), in the body or nil;
	// out, unless nil, gets an answer of success. Any other is a *rest.Error with
	// the status and the words of the network service, Type its exception.
	Ask(ctx context.Context, caller *rest.Caller, method, path string, in, out any) error
}

package neutron

import (
	"errors"
	"fmt"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/openstack"
)

// Name is the name of an exception of Nova (nova/exception.py).
type Name string

// The exceptions that allocation ends in.
const (
	PortInUse                      Name = "PortInUse"
	PortNotUsable                  Name = "PortNotUsable"
	PortNotUsableDNS               Name = "PortNotUsableDNS"
	PortNotFound                   Name = "PortNotFound"
	PortBindingFailed              Name = "PortBindingFailed"
	PortLimitExceeded              Name = "PortLimitExceeded"
	PortUpdateFailed               Name = "PortUpdateFailed"
	NetworkNotFound                Name = "NetworkNotFound"
	NetworkAmbiguous               Name = "NetworkAmbiguous"
	NoMoreFixedIps                 Name = "NoMoreFixedIps"
	FixedIPAlreadyInUse            Name = "FixedIpAlreadyInUse"
	SecurityGroupNotFound          Name = "SecurityGroupNotFound"
	SecurityGroupCannotBeApplied   Name = "SecurityGroupCannotBeApplied"
	NoUniqueMatch                  Name = "NoUniqueMatch"
	ExternalNetworkAttachForbidden Name = "ExternalNetworkAttachForbidden"
	UnableToAutoAllocateNetwork    Name = "UnableToAutoAllocateNetwork"
	InvalidInput                   Name = "InvalidInput"
	AttachNoNetwork                Name = "InterfaceAttachFailedNoNetwork"
	NetworkNotFoundForInstance     Name = "NetworkNotFoundForInstance"
	FixedIPNotFoundForInstance     Name = "FixedIpNotFoundForInstance"
)

// Error is a failure that Nova has a name for. Its chain holds an
// errdefs.Public with Nova's text, the class, and the cause if there is one.
type Error struct {
	// Name of the exception.
	Name Name
	// Code is the HTTP status that Nova gives it.
	Code int

	err error
}

// Error returns the name and the whole story.
func (e *Error) Error() string { return string(e.Name) + ": " + e.err.Error() }

// Text is Nova's text of the exception.
func (e *Error) Text() string { return errdefs.PublicText(e.err, string(e.Name)) }

// Unwrap returns the public text and what is behind it.
func (e *Error) Unwrap() error { return e.err }

// Is reports whether err's chain holds the exception of that name.
func Is(err error, name Name) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Name == name
}

// fail makes an error of a name and a text for the tenant.
func fail(name Name, format string, args ...any) error { return failBy(nil, name, format, args...) }

// failBy is fail with a cause for the log.
func failBy(cause error, name Name, format string, args ...any) error {
	code, class := meaning(name)
	if cause == nil {
		cause = class
	} else if !errors.Is(cause, class) {
		// The name decides the class; the cause remains as text.
		cause = fmt.Errorf("%w: %s", class, cause.Error())
	}
	return &Error{Name: name, Code: code, err: errdefs.WithPublic(cause, fmt.Sprintf(format, args...))}
}

func meaning(name Name) (code int, class error) {
	switch name {
	case PortInUse, FixedIPAlreadyInUse:
		return 409, errdefs.ErrConflict
	case NetworkAmbiguous, NoUniqueMatch:
		return 409, errdefs.ErrInvalid
	case PortNotFound, NetworkNotFound, SecurityGroupNotFound, NetworkNotFoundForInstance, FixedIPNotFoundForInstance:
		return 404, errdefs.ErrNotFound
	case PortLimitExceeded:
		return 403, errdefs.ErrExhausted
	case NoMoreFixedIps:
		return 400, errdefs.ErrExhausted
	case ExternalNetworkAttachForbidden:
		return 403, errdefs.ErrForbidden
	case PortBindingFailed, PortUpdateFailed, UnableToAutoAllocateNetwork:
		return 500, errdefs.ErrUnavailable
	case PortNotUsable, PortNotUsableDNS, SecurityGroupCannotBeApplied, InvalidInput, AttachNoNetwork:
		return 400, errdefs.ErrInvalid
	}
	return 500, errdefs.ErrUnavailable
}

// ofCreate translates what Neutron says to the creation of a port.
func ofCreate(err error, r NetworkRequest, instance string) error {
	var status openstack.StatusError
	if e, ok := errors.AsType[*openstack.StatusError](err); ok {
		status = *e
	}
	switch status.Type {
	case "OverQuota":
		return failBy(err, PortLimitExceeded, "Maximum number of ports exceeded")
	case "IpAddressGenerationFailure", "NoMoreFixedIps":
		return failBy(err, NoMoreFixedIps, "No fixed IP addresses available for network: %s", r.NetworkID)
	case "IpAddressInUse", "IpAddressAlreadyAllocated":
		return failBy(err, FixedIPAlreadyInUse, "Fixed IP address %s is already in use on instance %s.", r.Address, instance)
	case "InvalidIpForNetwork", "InvalidIpForSubnet":
		return failBy(err, InvalidInput, "Invalid input received: Fixed IP %s is not a valid ip address for network %s.", r.Address, r.NetworkID)
	case "NetworkNotFound":
		return failBy(err, NetworkNotFound, "Network %s could not be found.", r.NetworkID)
	case "SecurityGroupNotFound":
		return failBy(err, SecurityGroupNotFound, "Security group not found.")
	case "MacAddressInUse":
		return failBy(err, PortInUse, "MAC address is still in use on network %s.", r.NetworkID)
	}
	return fmt.Errorf("create port on network %s: %w", r.NetworkID, err)
}

// ofUpdate translates what Neutron says to the binding of a port.
func ofUpdate(err error, portID string) error {
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		return failBy(err, PortNotFound, "Port id %s could not be found.", portID)
	case errors.Is(err, errdefs.ErrInvalid), errors.Is(err, errdefs.ErrConflict):
		return failBy(err, PortUpdateFailed, "Port update failed for port %s.", portID)
	}
	return fmt.Errorf("bind port %s: %w", portID, err)
}

package compute

import (
	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/lazyregexp"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// Lengths of what a tenant sends.
const (
	maxUserData    = 65535
	maxDescription = 255
	maxTags        = 50
)

var (
	deviceName = lazyregexp.New(`^[a-zA-Z0-9._-r/]*$`)
	deviceUUID = lazyregexp.New(`^[a-zA-Z0-9._-]*$`)
	hintCIDR   = lazyregexp.New(`^/[0-9a-f.:]+$`)
)

func short(name string) schema.Field {
	return schema.Opt(name, schema.Type("string"), schema.MaxLen(255))
}

// personality are files to put into a server, up to 2.56.
func personality() schema.Schema {
	return schema.Schema{schema.Type("array"), schema.Items(schema.Object(
		schema.Opt("path", schema.String()...), schema.Opt("contents", schema.Type("string"), schema.Base64()))...)}
}

func diskConfigField() schema.Field {
	return schema.Opt("OS-DCF:diskConfig", schema.Type("string"), schema.Enum("AUTO", "MANUAL"))
}

func accessFields() []schema.Field {
	return []schema.Field{
		schema.Opt("accessIPv4", schema.Type("string"), schema.IPv4()), schema.Opt("accessIPv6", schema.Type("string"), schema.IPv6()),
	}
}

func legacyDevice() []schema.Field {
	return []schema.Field{
		short("virtual_name"), schema.Opt("volume_id", schema.ID()...), schema.Opt("snapshot_id", schema.ID()...),
		schema.Opt("volume_size", schema.Size(1)...),
		schema.Opt("device_name", schema.Type("string"), schema.MinLen(1), schema.MaxLen(255), schema.Pattern(deviceName, deviceName.String())),
		schema.Opt("delete_on_termination", schema.Boolean()...), schema.Opt("no_device"),
		schema.Opt("connection_info", schema.Type("string"), schema.MaxLen(16777215)),
	}
}

func device(v rest.Version) schema.Schema {
	fields := append(legacyDevice(),
		schema.Opt("source_type", schema.Type("string"), schema.Enum("volume", "image", "snapshot", "blank")),
		schema.Opt("uuid", schema.Type("string"), schema.MinLen(1), schema.MaxLen(255), schema.Pattern(deviceUUID, deviceUUID.String())),
		schema.Opt("image_id", schema.ID()...),
		schema.Opt("destination_type", schema.Type("string"), schema.Enum("local", "volume")),
		short("guest_format"), short("device_type"), short("disk_bus"), schema.Opt("boot_index", schema.BootIndex()...))
	if v == (rest.Version{Major: 2, Minor: 32}) || v.AtLeast(2, 42) {
		fields = append(fields, schema.Opt("tag", schema.Tag()...))
	}
	if v.AtLeast(2, 67) {
		fields = append(fields, schema.Opt("volume_type", schema.Type("string", "null"), schema.MaxLen(255)))
	}
	return schema.Object(fields...)
}

func networksField(v rest.Version) schema.Field {
	port := schema.Opt("port", schema.OneOf(schema.ID(), schema.Null()))
	fields := []schema.Field{schema.Opt("fixed_ip", schema.Address()...), port}
	if !v.AtLeast(2, 37) {
		fields = append(fields, schema.Opt("uuid", schema.String()...))
		if v.AtLeast(2, 32) {
			fields = append(fields, schema.Opt("tag", schema.Tag()...))
		}
		return schema.Opt("networks", schema.Type("array"), schema.Items(schema.Object(fields...)...))
	}
	fields = append(fields, schema.Opt("uuid", schema.ID()...))
	if v.AtLeast(2, 42) {
		fields = append(fields, schema.Opt("tag", schema.Tag()...))
	}
	return schema.Req("networks", schema.OneOf(
		schema.Schema{schema.Type("array"), schema.Items(schema.Object(fields...)...)},
		schema.Schema{schema.Type("string"), schema.Enum("none", "auto")}))
}

func trustedField() schema.Field {
	return schema.Opt("trusted_image_certificates", schema.Type("array", "null"), schema.MinItems(1), schema.MaxItems(50), schema.Unique(),
		schema.Items(schema.Type("string"), schema.MinLen(1)))
}

// createSchema is the body of POST /servers.
func createSchema(v rest.Version) schema.Schema {
	fields := []schema.Field{
		schema.Req("name", schema.Name()...),
		schema.Opt("imageRef", schema.OneOf(schema.ID(), schema.Schema{schema.Type("string"), schema.MaxLen(0)})),
		schema.Req("flavorRef", schema.Type("string", "integer"), schema.MinLen(1)),
		schema.Opt("adminPass", schema.String()...), schema.Opt("metadata", schema.Metadata()...), networksField(v), diskConfigField(),
	}
	fields = append(fields, accessFields()...)
	if !v.AtLeast(2, 57) {
		fields = append(fields, schema.Opt("personality", personality()...))
	}
	fields = append(fields,
		schema.Opt("availability_zone", schema.Name()...),
		schema.Opt("block_device_mapping", schema.Type("array"), schema.Items(schema.Object(legacyDevice()...)...)),
		schema.Opt("block_device_mapping_v2", schema.Type("array"), schema.Items(device(v)...)),
		schema.Opt("config_drive", schema.Boolean()...), schema.Opt("key_name", schema.Name()...),
		schema.Opt("min_count", schema.Positive()...), schema.Opt("max_count", schema.Positive()...),
		schema.Opt("return_reservation_id", schema.Boolean()...),
		schema.Opt("security_groups", schema.Type("array"), schema.Items(schema.Object(schema.Opt("name", schema.Name()...))...)),
		schema.Opt("user_data", schema.Type("string"), schema.Base64(), schema.MaxLen(maxUserData)))
	if v.AtLeast(2, 19) {
		fields = append(fields, schema.Opt("description", schema.Description(maxDescription)...))
	}
	if v.AtLeast(2, 52) {
		fields = append(fields, schema.Opt("tags", schema.Type("array"), schema.Items(schema.Tag()...), schema.MaxItems(maxTags)))
	}
	if v.AtLeast(2, 63) {
		fields = append(fields, trustedField())
	}
	if v.AtLeast(2, 74) {
		fields = append(fields, schema.Opt("host", schema.FQDN()...), schema.Opt("hypervisor_hostname", schema.FQDN()...))
	}
	if v.AtLeast(2, 90) {
		fields = append(fields, schema.Opt("hostname", schema.Hostname()...))
	}
	return schema.Object(schema.Req("server", schema.Object(fields...)...),
		schema.Opt("os:scheduler_hints", hints()...), schema.Opt("OS-SCH-HNT:scheduler_hints", hints()...))
}

func hints() schema.Schema {
	servers := schema.Schema{schema.Type("string", "array"), schema.Items(schema.ID()...)}
	return schema.Open(
		schema.Opt("group", schema.ID()...),
		schema.Opt("different_host", schema.OneOf(schema.ID(), schema.Schema{schema.Type("array"), schema.Items(schema.ID()...)})),
		schema.Opt("same_host", servers...), schema.Opt("query", schema.Type("string", "object")),
		schema.Opt("target_cell", schema.Name()...), schema.Opt("different_cell", schema.Type("string", "array"), schema.Items(schema.String()...)),
		schema.Opt("build_near_host_ip", schema.Address()...),
		schema.Opt("cidr", schema.Type("string"), schema.Pattern(hintCIDR, hintCIDR.String())))
}

// updateSchema is the body of PUT /servers/{id}.
func updateSchema(v rest.Version) schema.Schema {
	fields := append([]schema.Field{schema.Opt("name", schema.Name()...), diskConfigField()}, accessFields()...)
	if v.AtLeast(2, 19) {
		fields = append(fields, schema.Opt("description", schema.Description(maxDescription)...))
	}
	if v.AtLeast(2, 90) {
		fields = append(fields, schema.Opt("hostname", schema.Hostname()...))
	}
	return schema.Object(schema.Req("server", schema.Object(fields...)...))
}

package compute

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// refused is the status that some exceptions of compute hosts have.
type refused struct {
	status  int
	classes []string
}

// hostAnswer makes an answer of a compute host's exception: NotImplementedError
// is 501 with those words, others have the status that goes with their class.
func hostAnswer(err error, unsupported string, cases ...refused) error {
	remote, ok := errors.AsType[*messaging.RemoteError](err)
	if !ok {
		if errors.Is(err, messaging.ErrTimeout) {
			return rest.Errorf(http.StatusServiceUnavailable, "The compute host does not answer.").Because(err)
		}
		return err
	}
	cases = append(cases,
		refused{http.StatusNotFound, []string{"InstanceNotFound"}},
		refused{http.StatusConflict, []string{"InstanceNotReady", "InstanceInvalidState", "InstanceIsLocked"}})
	if remote.Class == "NotImplementedError" {
		return rest.Errorf(http.StatusNotImplemented, "%s", unsupported).Because(err)
	}
	for _, c := range cases {
		if slices.Contains(c.classes, remote.Class) {
			return rest.Errorf(c.status, "%s", remote.Message).Because(err)
		}
	}
	return err
}

// consoleKind is a protocol of consoles with the RPC that asks for it.
type consoleKind struct{ protocol, method, action string }

func consoleKinds() []consoleKind {
	return []consoleKind{
		{"vnc", "get_vnc_console", "os-getVNCConsole"},
		{"spice", "get_spice_console", "os-getSPICEConsole"},
		{"rdp", "get_rdp_console", "os-getRDPConsole"},
		{"serial", "get_serial_console", "os-getSerialConsole"},
		{"mks", "get_mks_console", ""},
	}
}

func (s *Service) consoleRoutes() {
	s.handle("POST /v2.1/servers/{id}/remote-consoles", s.remoteConsole)
	s.handle("GET /v2.1/os-console-auth-tokens/{id}", s.consoleToken)
	s.handle("GET /v2.1/servers/{id}/diagnostics", s.diagnostics)
}

// consoleVerbs are the actions that are about a server's consoles.
func (s *Service) consoleVerbs() []verb {
	types := map[string][]any{
		"vnc": {"novnc", "xvpvnc"}, "spice": {"spice-html5"}, "rdp": {"rdp-html5"}, "serial": {"serial"},
	}
	length := schema.Schema{schema.Type("integer", "string", "null"), schema.Digits(), schema.Min(-1)}
	out := []verb{{
		name: "os-getConsoleOutput", policy: "os-console-output", anyTask: true, unlaunched: true, ignoresLock: true,
		rules: only("os-getConsoleOutput", schema.Object(schema.Opt("length", length...))...), run: s.consoleOutput,
	}}
	for _, k := range consoleKinds() {
		if k.action == "" {
			continue
		}
		out = append(out, verb{
			name: k.action, policy: "os-remote-consoles", until: 5, anyTask: true, unlaunched: true, ignoresLock: true,
			rules: only(k.action, schema.Object(schema.Req("type", schema.Type("string"), schema.Enum(types[k.protocol]...)))...),
			run: func(ctx context.Context, r *rest.Request, i objects.Instance, d *schema.Dict) (*rest.Response, error) {
				url, err := s.console(ctx, r, i, k, d.String("type"))
				if err != nil {
					return nil, err
				}
				return rest.OK(map[string]any{"console": map[string]string{"type": d.String("type"), "url": url}})
			},
		})
	}
	return out
}

func (s *Service) consoleOutput(ctx context.Context, r *rest.Request, i objects.Instance, d *schema.Dict) (*rest.Response, error) {
	if i.Host() == "" {
		return nil, conflict("Instance %s is not ready", i.UUID())
	}
	var lines any
	if n := d.Int("length", -1); n >= 0 {
		lines = n
	}
	var out string
	err := s.call(ctx, r, i.Host(), "get_console_output", "6.0", map[string]any{"instance": i, "tail_length": lines}, &out)
	if err != nil {
		return nil, hostAnswer(err, "", refused{404, []string{"ConsoleNotAvailable"}})
	}
	return rest.OK(map[string]string{"output": out})
}

func (s *Service) remoteConsole(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if !r.Version.AtLeast(2, 6) {
		return nil, notFound("")
	}
	protocols, types := []any{"vnc", "spice", "rdp", "serial"}, []any{"novnc", "xvpvnc", "rdp-html5", "spice-html5", "serial"}
	if r.Version.AtLeast(2, 8) {
		protocols, types = append(protocols, "mks"), append(types, "webmks")
	}
	d, err := body(r, schema.Object(schema.Req("remote_console", schema.Object(
		schema.Req("protocol", schema.Type("string"), schema.Enum(protocols...)),
		schema.Req("type", schema.Type("string"), schema.Enum(types...)))...)))
	if err != nil {
		return nil, err
	}
	i, err := s.ownServer(ctx, r, "os-remote-consoles")
	if err != nil {
		return nil, err
	}
	d = d.Dict("remote_console")
	for _, k := range consoleKinds() {
		if k.protocol != d.String("protocol") {
			continue
		}
		url, err := s.console(ctx, r, i, k, d.String("type"))
		if err != nil {
			return nil, err
		}
		return rest.OK(map[string]any{"remote_console": map[string]string{"protocol": k.protocol, "type": d.String("type"), "url": url}})
	}
	return nil, notFound("") // the schema knows no other
}

// console asks an instance's host for a console and returns the URL of it.
func (s *Service) console(ctx context.Context, r *rest.Request, i objects.Instance, k consoleKind, kind string) (string, error) {
	if i.Host() == "" {
		return "", conflict("Instance %s is not ready", i.UUID())
	}
	if i.TaskState() == taskDeleting {
		return "", wrongState("get_"+k.protocol+"_console", i, "task_state", taskDeleting)
	}
	var info struct {
		AccessURL string `json:"access_url"`
	}
	err := s.call(ctx, r, i.Host(), k.method, "6.0", map[string]any{"instance": i, "console_type": kind}, &info)
	if err != nil {
		return "", hostAnswer(err, "", refused{400, []string{"ConsoleTypeUnavailable", "ConsoleTypeInvalid"}})
	}
	return info.AccessURL, nil
}

// consoleToken tells a console proxy where a token leads.
func (s *Service) consoleToken(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := allow(r.Caller.Admin(), "os-console-auth-tokens"); err != nil {
		return nil, err
	}
	o, err := s.o.Cell.Console(ctx, r.PathValue("id"))
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, notFound("Token not found")
	}
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"console": map[string]any{
		"instance_uuid": o.Get("instance_uuid"), "host": o.Get("host"), "port": o.Get("port"), "internal_access_path": o.Get("internal_access_path"),
	}})
}

func (s *Service) diagnostics(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	i, err := s.server(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := allow(r.Caller.Admin(), "os-server-diagnostics"); err != nil {
		return nil, err
	}
	if i.Host() == "" {
		return nil, conflict("Instance %s is not ready", i.UUID())
	}
	if !r.Version.AtLeast(2, 48) {
		var free map[string]any
		if err := s.call(ctx, r, i.Host(), "get_diagnostics", "6.0", map[string]any{"instance": i}, &free); err != nil {
			return nil, hostAnswer(err, "")
		}
		return rest.OK(free)
	}
	var d objects.Diagnostics
	if err := s.call(ctx, r, i.Host(), "get_instance_diagnostics", "6.0", map[string]any{"instance": i}, &d); err != nil {
		return nil, hostAnswer(err, "")
	}
	return rest.OK(diagnosticsView(d.Object))
}

// diagnosticsView is the object with its children as plain objects.
func diagnosticsView(o *objects.Object) map[string]any {
	pick := func(o *objects.Object, fields ...string) map[string]any {
		out := make(map[string]any, len(fields))
		for _, f := range fields {
			out[f] = o.Get(f)
		}
		return out
	}
	all := func(list string, fields ...string) []any {
		out := []any{}
		for _, one := range o.Objects(list) {
			out = append(out, pick(one, fields...))
		}
		return out
	}
	out := pick(o, "state", "driver", "hypervisor", "hypervisor_os", "uptime", "config_drive", "num_cpus", "num_nics", "num_disks")
	out["memory_details"] = pick(o.Object("memory_details"), "maximum", "used")
	out["cpu_details"] = all("cpu_details", "id", "time", "utilisation")
	out["nic_details"] = all("nic_details", "mac_address", "rx_octets", "rx_errors", "rx_drop", "rx_packets", "rx_rate",
		"tx_octets", "tx_errors", "tx_drop", "tx_packets", "tx_rate")
	out["disk_details"] = all("disk_details", "read_bytes", "read_requests", "write_bytes", "write_requests", "errors_count")
	return out
}

package compute

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/conductor"
	"github.com/gantry-project/gantry/internal/devcloud/lazyregexp"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// order is what a tenant wants of a new server, checked.
type order struct {
	name, password    string
	description       *string
	hostname, keyName string
	userData          *string
	least, most       int
	reservation       string
	wantsReservation  bool
	autoDisk          bool
	configDrive       string
	accessV4          any
	accessV6          any
	metadata          map[string]string
	tags              []string
	files             [][2]string
	hints             map[string]any

	flavor   *Flavor
	image    Image
	key      *keyPair
	group    *Group
	place    placement
	networks *objects.Object
	// secgroups are ids, shownGroups what the answer shows.
	secgroups   []string
	shownGroups any
}

func (s *Service) serverCreate(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	d, err := body(r, createSchema(r.Version))
	if err != nil {
		return nil, err
	}
	o, err := s.order(ctx, r, d)
	if err != nil {
		return nil, err
	}
	made, err := s.accept(ctx, r, o)
	if err != nil {
		return nil, err
	}
	if err := s.o.Tasks.Build(ctx, requestContext(r), conductor.BuildRequest{
		Instances: made, Image: o.image.wire(), AdminPassword: o.password, Files: o.files,
		Networks: o.networks, SecurityGroups: o.secgroups,
	}); err != nil {
		return nil, fmt.Errorf("build: %w", err)
	}
	if o.wantsReservation {
		return rest.Accepted(map[string]string{"reservation_id": o.reservation})
	}
	first := made[0]
	links := at(r, "servers").links(first.UUID())
	return &rest.Response{
		Status: http.StatusAccepted, Header: http.Header{"Location": {links[0].Href}},
		Body: map[string]any{"server": map[string]any{
			"id": first.UUID(), "links": links, "OS-DCF:diskConfig": diskConfig(o.autoDisk),
			"security_groups": o.shownGroups, "adminPass": o.password,
		}},
	}, nil
}

// order checks a request, in the order in which Nova does.
func (s *Service) order(ctx context.Context, r *rest.Request, d *schema.Dict) (*order, error) {
	hints := d.Dict("os:scheduler_hints")
	if hints == nil {
		hints = d.Dict("OS-SCH-HNT:scheduler_hints")
	}
	d = d.Dict("server")
	o, err := plainOrder(r, d)
	if err != nil {
		return nil, err
	}
	if err := allow(r.Caller.Member() && r.Caller.ProjectID != "", "servers:create"); err != nil {
		return nil, err
	}
	if o.place, err = s.placeOf(ctx, r, d); err != nil {
		return nil, err
	}
	if err := checkDevices(d); err != nil {
		return nil, err
	}
	if d.String("imageRef") == "" {
		return nil, badRequest("Missing imageRef attribute")
	}
	requests, err := requestedNetworks(d)
	if err != nil {
		return nil, err
	}
	if o.flavor, err = s.flavor(ctx, d.String("flavorRef")); err != nil || !o.flavor.open(r.Caller) {
		return nil, orderError(err, badRequest("Flavor %s could not be found.", d.String("flavorRef")))
	}
	if err := s.imageOf(ctx, r, d.String("imageRef"), o); err != nil {
		return nil, err
	}
	if err := s.checkAmounts(ctx, r, o); err != nil {
		return nil, err
	}
	if o.keyName != "" {
		if o.key, err = s.keypair(ctx, r.Caller.UserID, o.keyName); err != nil {
			return nil, orderError(err, badRequest("Invalid key_name provided."))
		}
	}
	if err := s.checkZone(ctx, o); err != nil {
		return nil, err
	}
	if o.secgroups, err = s.requestedGroups(ctx, r, d); err != nil {
		return nil, err
	}
	o.shownGroups = any([]map[string]string{{"name": "default"}})
	if d.Has("security_groups") {
		o.shownGroups = groupNames(d)
	}
	if o.networks, err = s.checkNetworks(ctx, r, requests, o.most); err != nil {
		return nil, err
	}
	return o, s.groupHint(ctx, r, hints, o)
}

// orderError is an answer in other words when the error is a 404.
func orderError(err, words error) error {
	if err == nil {
		return words
	}
	if e, ok := errors.AsType[*rest.Error](err); ok && e.Status == http.StatusNotFound {
		return words
	}
	return err
}

// plainOrder reads what needs nobody else's word.
func plainOrder(r *rest.Request, d *schema.Dict) (*order, error) {
	o := &order{
		name: strings.TrimSpace(d.String("name")), password: d.String("adminPass"), keyName: d.String("key_name"),
		hostname: d.String("hostname"), userData: d.Optional("user_data"), wantsReservation: d.Bool("return_reservation_id", false),
		autoDisk: d.String("OS-DCF:diskConfig") == "AUTO", metadata: d.Dict("metadata").Strings(), reservation: "r-" + randomWord(8),
	}
	o.description = &o.name
	if r.Version.AtLeast(2, 19) {
		o.description = d.Optional("description")
	}
	if !d.Has("adminPass") {
		o.password = password()
	}
	if d.Bool("config_drive", false) {
		o.configDrive = "True"
	}
	for name, at := range map[string]*any{"accessIPv4": &o.accessV4, "accessIPv6": &o.accessV6} {
		if a := d.String(name); a != "" {
			*at = a
		}
	}
	o.least = d.Int("min_count", 1)
	o.most = d.Int("max_count", o.least)
	if o.least > o.most {
		return nil, badRequest("min_count must be <= max_count")
	}
	if o.hostname != "" && o.most > 1 {
		return nil, badRequest("Unable to allocate a single hostname to multiple instances")
	}
	for _, t := range d.List("tags") {
		if tag, ok := t.(string); ok && !slices.Contains(o.tags, tag) {
			o.tags = append(o.tags, tag)
		}
	}
	o.files = files(d)
	if len(d.List("trusted_image_certificates")) > 0 {
		return nil, badRequest("trusted_image_certificates are not supported by this cloud.")
	}
	return o, nil
}

// files are those to put into the disk, as they came.
func files(d *schema.Dict) [][2]string {
	out := [][2]string{}
	for _, p := range d.List("personality") {
		if f, ok := p.(*schema.Dict); ok {
			out = append(out, [2]string{f.String("path"), f.String("contents")})
		}
	}
	return out
}

// checkDevices refuses what is no disk of the image: this cloud has no volumes.
func checkDevices(d *schema.Dict) error {
	legacy, v2 := d.List("block_device_mapping"), d.List("block_device_mapping_v2")
	if len(legacy) > 0 && len(v2) > 0 {
		return badRequest("Using different block_device_mapping syntaxes is not allowed in the same request.")
	}
	if len(legacy) > 0 {
		return badRequest("Block Device Mapping is Invalid: volumes are not supported by this cloud.")
	}
	for _, one := range v2 {
		bdm, _ := one.(*schema.Dict) // the schema says so
		source, dest := bdm.String("source_type"), bdm.String("destination_type")
		switch {
		case source == "volume" || source == "snapshot" || dest == "volume" || bdm.Has("volume_id") || bdm.Has("snapshot_id"):
			return badRequest("Block Device Mapping is Invalid: volumes are not supported by this cloud.")
		case source == "image" && (d.String("imageRef") == "" || bdm.String("boot_index") != "0"):
			return badRequest("Block Device Mapping is Invalid: Mapping image to local is not supported.")
		case source == "image" && bdm.String("uuid") != d.String("imageRef"):
			return badRequest("Block Device Mapping is Invalid: Boot sequence for the instance and image/block device mapping combination is not valid.")
		case source != "image":
			return badRequest("Block Device Mapping is Invalid: only the disk of the image and the flavor's disks are supported by this cloud.")
		}
	}
	return nil
}

// checkAmounts holds what is sent against the quotas that are of one request.
func (s *Service) checkAmounts(ctx context.Context, r *rest.Request, o *order) error {
	limits, err := s.limitsOf(ctx, scopes(r.Caller.ProjectID, r.Caller.UserID)...)
	if err != nil {
		return err
	}
	if over(limits["metadata_items"], 0, len(o.metadata)) {
		return forbidden("Maximum number of metadata items exceeds %d", limits["metadata_items"])
	}
	if over(limits["injected_files"], 0, len(o.files)) {
		return forbidden("Personality file limit exceeded")
	}
	for _, f := range o.files {
		if over(limits["injected_file_path_bytes"], 0, len(f[0])) {
			return forbidden("Personality file path exceeds maximum %d", limits["injected_file_path_bytes"])
		}
		if over(limits["injected_file_content_bytes"], 0, base64.StdEncoding.DecodedLen(len(f[1]))) {
			return forbidden("Personality file content exceeds maximum %d", limits["injected_file_content_bytes"])
		}
	}
	return nil
}

// accept writes the rows of an order: as many instances as it may have, at least
// the least. Quotas are held against usage in the same transaction.
func (s *Service) accept(ctx context.Context, r *rest.Request, o *order) ([]objects.Instance, error) {
	limits, err := s.limitsOf(ctx, scopes(r.Caller.ProjectID, "")...)
	if err != nil {
		return nil, err
	}
	personal, err := s.limitsOf(ctx, scopes(r.Caller.ProjectID, r.Caller.UserID)...)
	if err != nil {
		return nil, err
	}
	for n := o.most; ; {
		rows := s.rowsFor(r, o, n)
		leave, err := s.join(ctx, r, o.group, rows, personal["server_group_members"])
		if err != nil {
			return nil, err
		}
		var refused *overQuota
		made, err := s.o.Cell.CreateInstances(ctx, cell.Create{
			Instances: rows,
			Action:    cell.Actor{Action: "create", RequestID: r.ID, UserID: r.Caller.UserID, ProjectID: r.Caller.ProjectID},
			Admit: func(project, user cell.Usage) error {
				refused = o.flavor.over(n, limits, project)
				if refused == nil {
					refused = o.flavor.over(n, personal, user)
				}
				if refused == nil {
					return nil
				}
				return refused.answer()
			},
		})
		if err == nil {
			return made, nil
		}
		if undo := leave(); undo != nil || refused == nil || refused.room < o.least || refused.room < 1 {
			return nil, errors.Join(err, undo)
		}
		n = refused.room
	}
}

// overQuota says which quotas n instances would exceed.
type overQuota struct {
	names, requested, used, limits []string
	// room is how many would fit.
	room int
}

// over holds n instances of a flavor against limits.
func (f *Flavor) over(n int, limits map[string]int, u cell.Usage) *overQuota {
	out := &overQuota{room: n}
	for _, q := range []struct {
		name      string
		each, has int
	}{{"cores", f.VCPUs, int(u.VCPUs)}, {"instances", 1, int(u.Instances)}, {"ram", f.MemoryMB, int(u.MemoryMB)}} {
		limit := limits[q.name]
		if q.each == 0 || !over(limit, q.has, n*q.each) {
			continue
		}
		out.names = append(out.names, q.name)
		out.requested = append(out.requested, fmt.Sprint(n*q.each))
		out.used = append(out.used, fmt.Sprint(q.has))
		out.limits = append(out.limits, fmt.Sprint(limit))
		out.room = min(out.room, max(0, limit-q.has)/q.each)
	}
	if len(out.names) == 0 {
		return nil
	}
	return out
}

func (o *overQuota) answer() error {
	join := func(l []string) string { return strings.Join(l, ", ") }
	return forbidden("Quota exceeded for %s: Requested %s, but already used %s of %s %s",
		join(o.names), join(o.requested), join(o.used), join(o.limits), join(o.names))
}

// Words for passwords and reservations, without letters that look alike.
const (
	passwordLetters = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
	wordLetters     = "0123456789abcdefghijklmnopqrstuvwxyz"
	passwordLength  = 12
)

func random(letters string, n int) string {
	b := make([]byte, n)
	for i := range b {
		k, err := rand.Int(rand.Reader, big.NewInt(int64(len(letters))))
		if err != nil { // crypto/rand never fails
			panic(err)
		}
		b[i] = letters[k.Int64()]
	}
	return string(b)
}

func password() string        { return random(passwordLetters, passwordLength) }
func randomWord(n int) string { return random(wordLetters, n) }

var (
	hostDashes = lazyregexp.New(`[ _.]`)
	hostOthers = lazyregexp.New(`[^\p{L}\p{N}_.-]+`)
)

// hostname makes a host name of a server's name (nova.utils.sanitize_hostname).
func hostname(name string) string {
	latin := strings.Map(func(r rune) rune {
		if r > 0xFF {
			return -1
		}
		return r
	}, name)
	if runes := []rune(latin); len(runes) > 63 {
		latin = string(runes[:63])
	}
	out := hostOthers.ReplaceAllString(hostDashes.ReplaceAllString(latin, "-"), "")
	return strings.Trim(strings.ToLower(out), ".-")
}

package compute

import (
	"context"
	"errors"
	"net/http"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

const resizePrep = "resize_prep"

// resizeVerbs give servers another flavor, and end that.
func (s *Service) resizeVerbs() []verb {
	flavor := []schema.Keyword{schema.Type("string", "integer"), schema.MinLen(1)}
	return []verb{
		{
			name: "resize", needs: "prep_resize", policy: "servers:resize", vm: []string{vmActive, vmStopped},
			rules: only("resize", schema.Object(schema.Req("flavorRef", flavor...), diskConfigField())...), run: s.resize,
		},
		{name: "confirmResize", needs: "confirm_resize", policy: "servers:confirm_resize", vm: []string{vmResized}, run: s.confirmResize},
		{name: "revertResize", needs: "revert_resize", policy: "servers:revert_resize", vm: []string{vmResized}, run: s.revertResize},
	}
}

// resize checks what is asked for and has the conductor find a host, as
// nova/compute/api.py does (resize).
func (s *Service) resize(ctx context.Context, r *rest.Request, i objects.Instance, d *schema.Dict) (*rest.Response, error) {
	if i.Host() == "" {
		return nil, conflict("Instance %s is not ready", i.UUID())
	}
	f, err := s.newFlavor(ctx, r, i, schema.Text(d.Get("flavorRef")))
	if err != nil {
		return nil, err
	}
	if err := s.admitSize(ctx, r, i, f); err != nil {
		return nil, err
	}
	change := map[string]any{"task_state": resizePrep, "progress": 0}
	if d.Has("OS-DCF:diskConfig") {
		change["auto_disk_config"] = d.String("OS-DCF:diskConfig") == "AUTO"
	}
	if i, err = s.begin(ctx, i, "resize", []string{""}, change); err != nil {
		return nil, err
	}
	if err = s.record(ctx, r, i, "resize"); err == nil {
		err = s.o.Tasks.Resize(ctx, requestContext(r), i.UUID(), f.object())
	}
	if err != nil {
		return nil, s.abandon(ctx, i, resizePrep, err)
	}
	return empty(http.StatusAccepted)
}

func (s *Service) newFlavor(ctx context.Context, r *rest.Request, i objects.Instance, id string) (*Flavor, error) {
	f, err := s.flavor(ctx, id)
	if e, ok := errors.AsType[*rest.Error](err); ok && e.Status == http.StatusNotFound || err == nil && (!f.open(r.Caller) || f.Disabled) {
		return nil, badRequest("Flavor %s could not be found.", id)
	}
	switch {
	case err != nil:
		return nil, err
	case f.FlavorID == i.Flavor().String("flavorid"):
		return nil, badRequest("When resizing, instances must change flavor!")
	case f.RootGB == 0 && i.RootGB() != 0:
		return nil, badRequest("Server disk was unable to be resized because: Resize to zero disk flavor is not allowed.")
	}
	return f, nil
}

// admitSize holds what the flavor has more than the present one against the quotas.
func (s *Service) admitSize(ctx context.Context, r *rest.Request, i objects.Instance, f *Flavor) error {
	more := &Flavor{VCPUs: max(0, f.VCPUs-int(i.VCPUs())), MemoryMB: max(0, f.MemoryMB-int(i.MemoryMB()))}
	limits, err := s.limitsOf(ctx, scopes(i.ProjectID(), "")...)
	if err != nil {
		return err
	}
	limits["instances"] = -1
	use, err := s.o.Cell.Usage(ctx, i.ProjectID(), "")
	if err != nil {
		return err
	}
	if refused := more.over(1, limits, use); refused != nil {
		return refused.answer()
	}
	return nil
}

// finished is the move of a resized server.
func (s *Service) finished(ctx context.Context, i objects.Instance) (*objects.Object, error) {
	all, err := s.o.Cell.Migrations(ctx, cell.MigrationQuery{InstanceUUID: i.UUID(), Statuses: []string{"finished"}, Newest: true, Limit: 1})
	if err == nil && len(all) == 0 {
		err = badRequest("Instance has not been resized.")
	}
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// endMove sets the status of the server's move and tells the host that ends it.
func (s *Service) endMove(ctx context.Context, r *rest.Request, i objects.Instance, mig *objects.Object, status, action, method, host string) error {
	saved, err := s.o.Cell.SaveMigration(ctx, mig.Int("id"), map[string]any{"status": status})
	if err != nil {
		return err
	}
	spec, err := s.o.Cell.RequestSpec(ctx, i.UUID())
	if err != nil {
		return err
	}
	spec.SetClean("flavor", i.Flavor().Object)
	if status == "reverting" && i.OldFlavor().Object != nil {
		spec.SetClean("flavor", i.OldFlavor().Object)
	}
	if err := s.o.Cell.SaveRequestSpec(ctx, spec); err != nil {
		return err
	}
	if err := s.record(ctx, r, i, action); err != nil {
		return err
	}
	to := objects.Instance{Object: i.Clone()}
	to.SetClean("host", host) // whom the cast is for
	args := map[string]any{"migration": saved}
	if status == "reverting" {
		args["request_spec"] = spec
	}
	err = s.cast(ctx, r, to, method, "6.0", args)
	if err != nil {
		_, undo := s.o.Cell.SaveMigration(context.WithoutCancel(ctx), mig.Int("id"), map[string]any{"status": "finished"})
		err = errors.Join(err, undo)
	}
	return err
}

func (s *Service) confirmResize(ctx context.Context, r *rest.Request, i objects.Instance, _ *schema.Dict) (*rest.Response, error) {
	mig, err := s.finished(ctx, i)
	if err != nil {
		return nil, err
	}
	if err := s.endMove(ctx, r, i, mig, "confirming", "confirmResize", "confirm_resize", mig.String("source_compute")); err != nil {
		return nil, err
	}
	return empty(http.StatusNoContent)
}

func (s *Service) revertResize(ctx context.Context, r *rest.Request, i objects.Instance, _ *schema.Dict) (*rest.Response, error) {
	mig, err := s.finished(ctx, i)
	if err != nil {
		return nil, err
	}
	if err := s.admitSize(ctx, r, i, &Flavor{VCPUs: int(i.OldFlavor().VCPUs()), MemoryMB: int(i.OldFlavor().MemoryMB())}); err != nil {
		return nil, err
	}
	if i, err = s.begin(ctx, i, "revertResize", []string{""}, map[string]any{"task_state": "resize_reverting"}); err != nil {
		return nil, err
	}
	if err := s.endMove(ctx, r, i, mig, "reverting", "revertResize", "revert_resize", mig.String("dest_compute")); err != nil {
		return nil, s.abandon(ctx, i, "resize_reverting", err)
	}
	return empty(http.StatusAccepted)
}

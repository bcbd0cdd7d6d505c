package local

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/transfer"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// maxShadow (bytes) is far more than the accounts of a guest take.
const maxShadow = 1 << 20

// SetPassword writes /etc/shadow anew, in one step and with the attributes that
// it had: no program of the guest takes part. A change that the guest makes to
// the file at the same moment can be lost, as between two editors.
func (d *Driver) SetPassword(ctx context.Context, uuid driver.InstanceUUID, user, password string) error {
	user = cmp.Or(user, "root")
	if err := driver.CheckPassword(user, password); err != nil {
		return err
	}
	info, err := d.Info(ctx, uuid)
	if err != nil {
		return fmt.Errorf("set password of %s: %w", uuid, err)
	}
	if info.State != driver.PowerRunning {
		return fmt.Errorf("set password of %s: it is %s: %w", uuid, info.State, errdefs.ErrConflict)
	}
	if err := d.setPassword(ctx, engine.ContainerID(uuid), user, password); err != nil {
		return fmt.Errorf("set password of %s: %w", uuid, err)
	}
	return nil
}

// injectPassword gives root the password of the request. An image that has no
// place for one boots without.
func (d *Driver) injectPassword(ctx context.Context, id engine.ContainerID, req driver.SpawnRequest) error {
	if !d.opts.InjectPassword || req.AdminPassword == "" {
		return nil
	}
	err := driver.CheckPassword("root", req.AdminPassword)
	if err == nil {
		err = d.setPassword(ctx, id, "root", req.AdminPassword)
	}
	if errors.Is(err, errdefs.ErrUnsupported) {
		d.opts.Log.Debug().Err(err).Str(logging.Instance, string(req.UUID)).Msg("the image has no place for a password")
		return nil
	}
	if err == nil && req.PasswordSet != nil {
		req.PasswordSet()
	}
	return err
}

func (d *Driver) setPassword(ctx context.Context, id engine.ContainerID, user, password string) error {
	hdr, file, err := d.shadow(ctx, id)
	if err != nil {
		return err
	}
	hash, err := crypt(password)
	if err != nil {
		return err
	}
	file, err = reshadow(file, user, hash, time.Now())
	if errors.Is(err, errdefs.ErrNotFound) {
		return noPasswords(err, "The guest has no user "+user+".")
	}
	if err != nil {
		return err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	hdr.Size, hdr.ModTime = int64(len(file)), time.Now()
	if err = w.WriteHeader(hdr); err == nil {
		_, err = w.Write(file)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("write %s: %w", shadowPath, err)
	}
	_, err = d.opts.Engine.CopyIn(ctx, id, engine.CopyRequest{Path: path.Dir(shadowPath), Limits: transfer.Limits{Bytes: maxShadow}}, &b)
	return err
}

// shadow reads the file and its attributes.
func (d *Driver) shadow(ctx context.Context, id engine.ContainerID) (*tar.Header, []byte, error) {
	const cause = "The guest keeps no passwords in " + shadowPath + "."
	r, err := d.opts.Engine.CopyOut(ctx, id, engine.CopyRequest{Path: shadowPath, Limits: transfer.Limits{Bytes: maxShadow}})
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	tr := tar.NewReader(r)
	hdr, err := tr.Next()
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, nil, noPasswords(err, cause)
	}
	if err != nil {
		return nil, nil, err
	}
	if hdr.Typeflag != tar.TypeReg {
		return nil, nil, noPasswords(fmt.Errorf("%s is no file: %w", shadowPath, errdefs.ErrInvalid), cause)
	}
	file, err := io.ReadAll(tr)
	return hdr, file, err
}

// noPasswords says that the guest is made in a way that has no passwords to set.
func noPasswords(err error, cause string) error {
	return errdefs.WithPublic(fmt.Errorf("%w: %w", errdefs.ErrUnsupported, err), cause)
}

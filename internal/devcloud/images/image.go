package images

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// Image is an image as the service knows it; a copy that is the caller's.
type Image struct {
	ID   string
	Name *string
	// Status is queued, saving, uploading (staged, or being so), active or
	// deactivated.
	Status string
	// Visibility is public, private, shared or community.
	Visibility string
	// Owner is a project; nil is nobody.
	Owner             *string
	Protected, Hidden bool
	// DiskFormat and ContainerFormat are needed before there is data.
	DiskFormat, ContainerFormat *string
	MinDisk, MinRAM             int64 // GiB, MiB
	// Size and VirtualSize in bytes; nil is unknown.
	Size, VirtualSize *int64
	// Checksum (MD5), HashAlgo ("sha512") and HashValue are of the data.
	Checksum, HashAlgo, HashValue *string
	Created, Updated              time.Time
	Tags                          []string
	Properties                    map[string]string
}

const columns = `id, name, status, visibility, owner, protected, os_hidden, disk_format, container_format, min_disk, min_ram,
	size, virtual_size, checksum, os_hash_algo, os_hash_value, created_at, updated_at`

func (i *Image) fields(created, updated *int64) []any {
	return []any{
		&i.ID, &i.Name, &i.Status, &i.Visibility, &i.Owner, &i.Protected, &i.Hidden, &i.DiskFormat, &i.ContainerFormat, &i.MinDisk, &i.MinRAM,
		&i.Size, &i.VirtualSize, &i.Checksum, &i.HashAlgo, &i.HashValue, created, updated,
	}
}

// query reads images of a condition in an order, without tags and properties.
func query(ctx context.Context, tx *sql.Tx, condition, order string, args ...any) (all []*Image, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT `+columns+` FROM images WHERE `+condition+` ORDER BY `+order, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		i, created, updated := &Image{}, int64(0), int64(0)
		if err := rows.Scan(i.fields(&created, &updated)...); err != nil {
			return nil, err
		}
		i.Created, i.Updated = time.UnixMicro(created).UTC(), time.UnixMicro(updated).UTC()
		all = append(all, i)
	}
	return all, rows.Err()
}

// complete reads tags and properties of images.
func complete(ctx context.Context, tx *sql.Tx, all []*Image) error {
	byID := make(map[string]*Image, len(all))
	ids := make([]any, 0, len(all))
	for _, i := range all {
		i.Tags, i.Properties = []string{}, map[string]string{}
		byID[i.ID] = i
		ids = append(ids, i.ID)
	}
	for len(ids) > 0 {
		some := ids[:min(500, len(ids))]
		ids = ids[len(some):]
		in := ` WHERE image_id IN (?` + strings.Repeat(", ?", len(some)-1) + `)`
		if err := pairs(ctx, tx, `SELECT image_id, value, '' FROM tags`+in, some, func(id, value, _ string) {
			byID[id].Tags = append(byID[id].Tags, value)
		}); err != nil {
			return err
		}
		if err := pairs(ctx, tx, `SELECT image_id, name, value FROM properties`+in, some, func(id, name, value string) {
			byID[id].Properties[name] = value
		}); err != nil {
			return err
		}
	}
	return nil
}

func pairs(ctx context.Context, tx *sql.Tx, q string, args []any, add func(id, a, b string)) (err error) {
	rows, err := tx.QueryContext(ctx, q, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var id, a, b string
		if err := rows.Scan(&id, &a, &b); err != nil {
			return err
		}
		add(id, a, b)
	}
	return rows.Err()
}

// get reads an image that the caller may see; 404 otherwise.
func get(ctx context.Context, tx *sql.Tx, who *rest.Caller, id string) (*Image, error) {
	condition, args := `id = ?1`, []any{id}
	if !who.Admin() {
		condition += ` AND (owner = ?2 OR visibility IN ('public', 'community')
			OR visibility = 'shared' AND id IN (SELECT image_id FROM members WHERE member_id = ?2))`
		args = append(args, who.ProjectID)
	}
	all, err := query(ctx, tx, condition, "id", args...)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, notFound(id)
	}
	return all[0], complete(ctx, tx, all)
}

// getOwn reads an image that the caller may change.
func getOwn(ctx context.Context, tx *sql.Tx, who *rest.Caller, id, action string) (*Image, error) {
	i, err := get(ctx, tx, who, id)
	if err != nil {
		return nil, err
	}
	return i, mayChange(who, i, action)
}

func mayChange(who *rest.Caller, i *Image, action string) error {
	if who.Admin() || who.Member() && i.Owner != nil && *i.Owner == who.ProjectID {
		return nil
	}
	if who.Member() {
		return forbidden("You do not own this image")
	}
	return denied(action)
}

// insert writes a new image.
func (i *Image) insert(ctx context.Context, tx *sql.Tx) error {
	created, updated := i.Created.UnixMicro(), i.Updated.UnixMicro()
	_, err := tx.ExecContext(ctx, `INSERT INTO images (`+columns+`) VALUES (?`+strings.Repeat(", ?", 17)+`)`, i.fields(&created, &updated)...)
	if err != nil {
		return err
	}
	return i.replaceLists(ctx, tx)
}

// save writes what a caller may change of an image, and that it was changed.
func (i *Image) save(ctx context.Context, tx *sql.Tx, now int64) error {
	i.Updated = time.UnixMicro(now).UTC()
	_, err := tx.ExecContext(ctx, `UPDATE images SET name = ?, visibility = ?, owner = ?, protected = ?, os_hidden = ?, disk_format = ?,
		container_format = ?, min_disk = ?, min_ram = ?, updated_at = ? WHERE id = ?`,
		i.Name, i.Visibility, i.Owner, i.Protected, i.Hidden, i.DiskFormat, i.ContainerFormat, i.MinDisk, i.MinRAM, now, i.ID)
	if err != nil {
		return err
	}
	return i.replaceLists(ctx, tx)
}

// replaceLists writes tags and properties.
func (i *Image) replaceLists(ctx context.Context, tx *sql.Tx) error {
	for _, table := range []string{"tags", "properties"} {
		if _, err := tx.ExecContext(ctx, `DELETE FROM `+table+` WHERE image_id = ?`, i.ID); err != nil {
			return err
		}
	}
	slices.Sort(i.Tags)
	i.Tags = slices.Compact(i.Tags)
	if n := len(i.Tags); n > tagQuota {
		return tooMuch("tags", n, tagQuota)
	}
	if n := len(i.Properties); n > propertyQuota {
		return tooMuch("properties", n, propertyQuota)
	}
	for _, t := range i.Tags {
		if _, err := tx.ExecContext(ctx, `INSERT INTO tags (image_id, value) VALUES (?, ?)`, i.ID, t); err != nil {
			return err
		}
	}
	for name, value := range i.Properties {
		if _, err := tx.ExecContext(ctx, `INSERT INTO properties (image_id, name, value) VALUES (?, ?, ?)`, i.ID, name, value); err != nil {
			return err
		}
	}
	return nil
}

// view is an image as the API shows it (glance.api.v2.images).
func (i *Image) view() map[string]any {
	v := make(map[string]any, 24+len(i.Properties))
	for name, value := range i.Properties {
		v[name] = value
	}
	at := "/v2/images/" + i.ID
	for name, value := range map[string]any{
		"id": i.ID, "name": i.Name, "status": i.Status, "visibility": i.Visibility, "owner": i.Owner, "protected": i.Protected,
		"os_hidden": i.Hidden, "disk_format": i.DiskFormat, "container_format": i.ContainerFormat, "min_disk": i.MinDisk, "min_ram": i.MinRAM,
		"size": i.Size, "virtual_size": i.VirtualSize, "checksum": i.Checksum, "os_hash_algo": i.HashAlgo, "os_hash_value": i.HashValue,
		"created_at": stamp(i.Created), "updated_at": stamp(i.Updated), "tags": i.Tags, "self": at, "file": at + "/file", "schema": "/v2/schemas/image",
	} {
		v[name] = value
	}
	return v
}

func stamp(t time.Time) string { return t.Format("2006-01-02T15:04:05Z") }

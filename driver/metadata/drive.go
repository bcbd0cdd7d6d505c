package metadata

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"

	"github.com/gantry-project/gantry/driver/objects"
)

// File is a file of a config drive, by its path from the top.
type File struct {
	Path string
	Data []byte
}

// DriveFacts are what an instance's row does not say.
type DriveFacts struct {
	EC2Facts
	// AdminPassword is told as admin_pass, "" for none.
	AdminPassword string
	// Personality are the files that the user wants in the guest; the drive has
	// them as content, and who reads it puts them in their places.
	Personality []File
}

// Drive is a config drive (nova/api/metadata/base.py, metadata_for_config_drive;
// nova/virt/configdrive.py): the documents of each version.
func Drive(i objects.Instance, info objects.NetworkInfo, facts DriveFacts) ([]File, error) {
	user, err := UserData(i)
	if err != nil {
		return nil, err
	}
	d := drive{}
	for _, at := range append(EC2Versions(), Latest) {
		version := resolve(EC2Versions(), at)
		if user != nil && i.UserData() != "" {
			d.add(path.Join("ec2", at, "user-data"), user)
		}
		d.json(path.Join("ec2", at, "meta-data.json"), EC2(i, info, version, facts.EC2Facts))
	}
	files := []map[string]string{}
	for n, f := range facts.Personality {
		content := fmt.Sprintf("/content/%04d", n)
		d.add("openstack"+content, f.Data)
		files = append(files, map[string]string{"path": f.Path, "content_path": content})
	}
	for _, at := range append(Versions(), Latest) {
		version, dir := resolve(Versions(), at), path.Join("openstack", at)
		md := MetaData(version, i)
		if len(files) > 0 {
			md["files"] = files
		}
		if facts.AdminPassword != "" {
			md["admin_pass"] = facts.AdminPassword
		}
		d.json(path.Join(dir, NameMetadata), md)
		if i.UserData() != "" {
			d.add(path.Join(dir, NameUserData), user)
		}
		if Since(Versions(), version, Havana) {
			d.json(path.Join(dir, NameVendorData), map[string]any{})
		}
		if Since(Versions(), version, Liberty) {
			d.json(path.Join(dir, NameNetwork), NetworkData(info))
		}
		if Since(Versions(), version, NewtonTwo) {
			d.json(path.Join(dir, NameVendorData2), map[string]any{"static": map[string]any{}})
		}
	}
	return d.files, d.err
}

func resolve(versions []string, version string) string {
	if version == Latest {
		return versions[len(versions)-1]
	}
	return version
}

type drive struct {
	files []File
	err   error
}

func (d *drive) add(name string, data []byte) { d.files = append(d.files, File{name, data}) }

func (d *drive) json(name string, v any) {
	var w bytes.Buffer
	e := json.NewEncoder(&w)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil && d.err == nil {
		d.err = fmt.Errorf("%s: %w", name, err)
	}
	d.add(name, bytes.TrimSpace(w.Bytes()))
}

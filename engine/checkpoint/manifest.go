package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gantry-project/gantry/internal/atomicfile"
	"github.com/gantry-project/gantry/internal/errdefs"
)

const (
	manifestName    = "gantry.json"
	imagesName      = "images"
	manifestVersion = 1
	maxManifest     = 1 << 20
)

// Manifest is what a checkpoint holds beside criu's images, as JSON in the file
// gantry.json.
type Manifest struct {
	// Version of this document.
	Version int `json:"version"`
	// Criu is the version that wrote the images, Arch what it ran on, in the
	// words of GOARCH.
	Criu    string    `json:"criu"`
	Arch    string    `json:"arch"`
	Created time.Time `json:"created"`
	Mounts  []Mount   `json:"mounts"`
	// Caller is DumpRequest.Caller.
	Caller json.RawMessage `json:"caller,omitempty"`
}

// Read reads the manifest of the checkpoint in dir. errdefs.ErrNotFound: there is
// none; errdefs.ErrUnsupported: one of another version or architecture;
// errdefs.ErrCorrupt.
func Read(dir string) (Manifest, error) {
	m, err := read(dir)
	if err != nil {
		return Manifest{}, fmt.Errorf("checkpoint %s: %w", dir, err)
	}
	return m, nil
}

func read(dir string) (Manifest, error) {
	name := filepath.Join(dir, manifestName)
	info, err := os.Stat(name)
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxManifest) {
		return Manifest{}, fmt.Errorf("%s of %d bytes: %w", manifestName, info.Size(), errdefs.ErrCorrupt)
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(name)
	}
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
		}
		return Manifest{}, err
	}
	return parseManifest(data)
}

func parseManifest(data []byte) (m Manifest, err error) {
	if err := json.Unmarshal(data, &m); err != nil {
		return Manifest{}, fmt.Errorf("%s: %w: %w", manifestName, err, errdefs.ErrCorrupt)
	}
	if m.Version != manifestVersion || m.Arch != runtime.GOARCH {
		return Manifest{}, fmt.Errorf("%s of version %d for %.32q: %w", manifestName, m.Version, m.Arch, errdefs.ErrUnsupported)
	}
	for _, mount := range m.Mounts {
		if err := mount.check(); err != nil {
			return Manifest{}, fmt.Errorf("%s: %w", manifestName, err)
		}
	}
	return m, nil
}

func (m Manifest) write(dir string) error {
	data, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return fmt.Errorf("%s: %w: %w", manifestName, err, errdefs.ErrInvalid)
	}
	return atomicfile.Write(filepath.Join(dir, manifestName), append(data, '\n'), 0o600)
}

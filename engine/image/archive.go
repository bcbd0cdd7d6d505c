package image

import (
	"archive/tar"
	"errors"
	"io"
	"path"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// blob is a stretch of a file: the content of one entry of an archive.
type blob struct {
	src      io.ReaderAt
	off, len int64
}

func (b blob) open() *io.SectionReader { return io.NewSectionReader(b.src, b.off, b.len) }

// index is the table of contents of an archive's outer tar.
type index struct {
	files map[string]blob
	links map[string]string
	// rootfs is set when a top-level name belongs to a root file system.
	rootfs bool
}

// control are the documents that steer the reading of an archive; two of one
// name would be read differently by different tools.
var control = map[string]bool{"manifest.json": true, "index.json": true, "oci-layout": true}

// rootNames are top-level directories that no image archive has.
var rootNames = map[string]bool{"bin": true, "dev": true, "etc": true, "lib": true, "proc": true, "sbin": true, "usr": true, "var": true}

// readIndex scans the headers of a plain tar. It stops at the first name that
// shows a root file system, and beyond the limit of entries, which no archive
// reaches.
func readIndex(src io.ReaderAt, size int64, lim Limits) (*index, error) {
	idx := &index{files: map[string]blob{}, links: map[string]string{}}
	section := io.NewSectionReader(src, 0, size)
	tr := tar.NewReader(section) // seeks over content
	for n := 0; ; n++ {
		hdr, err := tr.Next()
		if err == io.EOF {
			idx.enter()
			return idx, nil
		}
		if err != nil {
			return nil, tarError(err)
		}
		if n > lim.Entries {
			idx.rootfs = true
			return idx, nil
		}
		name := strings.TrimPrefix(path.Clean("/"+hdr.Name), "/")
		top, _, _ := strings.Cut(name, "/")
		if rootNames[top] {
			idx.rootfs = true
			return idx, nil
		}
		switch hdr.Typeflag {
		case tar.TypeReg:
			if _, twice := idx.files[name]; twice && control[path.Base(name)] {
				return nil, refuse(errdefs.ErrInvalid, "the image archive holds %s twice", name)
			}
			off, err := section.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, tarError(err)
			}
			if isSparse(hdr) || off+hdr.Size > size {
				continue // cannot be addressed; whoever needs it finds it absent
			}
			idx.files[name] = blob{src, off, hdr.Size}
		case tar.TypeSymlink:
			idx.links[name] = path.Join(path.Dir(name), hdr.Linkname)
		case tar.TypeLink:
			idx.links[name] = strings.TrimPrefix(path.Clean("/"+hdr.Linkname), "/")
		}
	}
}

func isSparse(hdr *tar.Header) bool {
	for k := range hdr.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// tarError classifies an error of the outer tar.
func tarError(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) || errors.Is(err, io.ErrUnexpectedEOF) {
		return damaged("it is not a whole tar archive: %w", err)
	}
	return err
}

// kind says what the archive is.
func (x *index) kind() Kind {
	_, layout := x.files["oci-layout"]
	_, idx := x.files["index.json"]
	_, manifest := x.files["manifest.json"]
	_, repositories := x.files["repositories"]
	switch {
	case x.rootfs:
		return Rootfs
	case layout && idx:
		return OCIArchive
	case manifest || repositories:
		return DockerArchive
	}
	return Rootfs
}

// enter makes the one directory at the top that is an OCI layout the top: what
// "tar c DIRECTORY" makes.
func (x *index) enter() {
	if _, ok := x.files["oci-layout"]; ok || x.rootfs {
		return
	}
	top := ""
	for name := range x.files {
		dir, base := path.Split(name)
		if base != "oci-layout" || strings.Count(dir, "/") != 1 {
			continue
		}
		if top != "" {
			return
		}
		top = dir
	}
	if top == "" {
		return
	}
	files, links := map[string]blob{}, map[string]string{}
	for name, b := range x.files {
		if rest, ok := strings.CutPrefix(name, top); ok {
			files[rest] = b
		}
	}
	for name, to := range x.links {
		if rest, ok := strings.CutPrefix(name, top); ok {
			links[rest] = strings.TrimPrefix(to, top)
		}
	}
	x.files, x.links = files, links
}

// find returns a file of the archive; old docker archives hold one layer under
// several names by symbolic links.
func (x *index) find(name string) (blob, bool) {
	name = path.Clean(name)
	for range 4 {
		if b, ok := x.files[name]; ok {
			return b, true
		}
		next, ok := x.links[name]
		if !ok {
			break
		}
		name = next
	}
	return blob{}, false
}

// document reads a small file of the archive.
func (x *index) document(name, what string, most int64) ([]byte, error) {
	b, ok := x.find(name)
	if !ok {
		return nil, damaged("%s is missing", what)
	}
	if b.len > most {
		return nil, refuse(errdefs.ErrInvalid, "%s of the image is longer than %d bytes", what, most)
	}
	data := make([]byte, b.len)
	if _, err := io.ReadFull(b.open(), data); err != nil {
		return nil, damaged("%s cannot be read: %w", what, err)
	}
	return data, nil
}

// looksLikeArchive judges by the name of the first entry of a compressed tar
// whether it is an image archive and has to be unpacked to be read at random.
func looksLikeArchive(name string) bool {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	top, _, _ := strings.Cut(name, "/")
	return control[name] || name == "repositories" || top == "blobs" || len(hexStem(top)) == 64
}

// hexStem returns the digest in hexadecimal that a file of an archive is named
// by, or nothing: tools write HEX.json, HEX.tar, sha256:HEX and HEX.tar.gz.
func hexStem(base string) string {
	stem, _, _ := strings.Cut(strings.TrimPrefix(base, "sha256:"), ".")
	if len(stem) != 64 || !isHex(stem) {
		return ""
	}
	return stem
}

func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdef") == ""
}

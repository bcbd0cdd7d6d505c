package layer

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// A recipe is a layer's tar stream without the contents of its files: with it
// and the unpacked directory Rebuild makes the very stream again, so that a
// layer keeps its digest although nobody keeps its archive. It takes about one
// hundredth of the layer.
//
// Format: zstd over the line recipeMagic and records of a kind (one byte), a
// length (uvarint) and that many bytes. Kind raw is a piece of the stream. Kind
// content is the clean path of a file, after which its size in bytes (uvarint)
// says how much of the stream it is. Kind part is the clean path of a sparse
// file, after which come the offset of what is next of it in the stream, the
// length of that, and the size of the file (uvarints). In the recipe of a packed
// layer (Stage.Pack) all contents are parts of the one file "pack".
const (
	recipeMagic   = "gantry layer recipe 1\n"
	recipeRaw     = 'r'
	recipeContent = 'c'
	recipePart    = 's'
)

// Limits of a recipe: what is beyond them is a layer without one.
const (
	recipeMeta  = 2 << 20   // bytes of the headers of one entry
	recipeMax   = 512 << 20 // bytes of all records
	recipePiece = 64 << 10  // bytes after which a record is written
)

// Recorder writes the recipe of the tar stream that is written to it. A stream
// that it cannot record (two entries of one name, sparse files of older formats
// than GNU's 1.0, what archive/tar does not read) is nothing that stops Write: Close tells. Not safe
// for concurrent use.
type Recorder struct {
	out  *bufio.Writer
	zip  *zstd.Encoder
	lim  Limits
	seed maphash.Seed
	// seen are hashes of the names of files.
	seen  map[uint64]struct{}
	total int64
	// whole: without the recipe there is no layer, so it may be of any size.
	whole bool

	// raw is what has come of the stream and is in no record yet; entry is where
	// in it the headers of the entry begin, and need what the next step takes.
	raw   []byte
	entry int
	need  int
	step  func(*Recorder) error
	skip  int64 // bytes of content still to come
	// sparse is the map of the entry, if it has one.
	sparse sparseMap
	err    error
}

// NewRecorder begins a recipe on w.
func NewRecorder(w io.Writer, lim Limits) (*Recorder, error) {
	zip, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	if err != nil {
		return nil, fmt.Errorf("record layer: %w", err)
	}
	r := &Recorder{
		zip: zip, out: bufio.NewWriter(zip), lim: lim.withDefaults(), seed: maphash.MakeSeed(), seen: map[uint64]struct{}{},
		need: tarBlock, step: (*Recorder).header,
	}
	_, r.err = r.out.WriteString(recipeMagic)
	return r, nil
}

const tarBlock = 512

// Write implements io.Writer. It takes everything and never fails.
func (r *Recorder) Write(p []byte) (int, error) {
	all := len(p)
	for len(p) > 0 && r.err == nil {
		if r.skip > 0 {
			n := min(r.skip, int64(len(p)))
			r.skip -= n
			p = p[n:]
			continue
		}
		n := min(r.need, len(p))
		r.raw = append(r.raw, p[:n]...)
		p = p[n:]
		if r.need -= n; r.need == 0 {
			r.err = r.step(r)
		}
	}
	return all, nil
}

// Close ends the recipe, of a stream that was written whole. An error says why
// there is none; of class errdefs.ErrUnsupported when the stream is such that
// it cannot be recorded.
func (r *Recorder) Close() error {
	if r.err == nil && (r.skip > 0 || len(r.raw) > r.entry) {
		r.err = unrecorded("the stream is cut off")
	}
	if r.err == nil {
		r.err = r.flush()
	}
	err := errors.Join(r.out.Flush(), r.zip.Close())
	if err = errors.Join(r.err, err); err != nil {
		return fmt.Errorf("record layer: %w", err)
	}
	return nil
}

func unrecorded(why string) error { return fmt.Errorf("%w: %s", errdefs.ErrUnsupported, why) }

// then says what comes after the next n bytes.
func (r *Recorder) then(n int, step func(*Recorder) error) error {
	if n == 0 {
		return step(r)
	}
	r.need, r.step = n, step
	return nil
}

// header has a block that begins an entry, or the end.
func (r *Recorder) header() error {
	block := r.raw[len(r.raw)-tarBlock:]
	if len(bytes.TrimLeft(block, "\x00")) == 0 {
		return r.tail()
	}
	switch block[156] {
	case tar.TypeXHeader, tar.TypeXGlobalHeader, 'L', 'K': // the last two are GNU's long names
		size, err := strconv.ParseInt(strings.Trim(string(block[124:136]), " \x00"), 8, 64)
		if err != nil || size < 0 || size+int64(len(r.raw)-r.entry) > recipeMeta {
			return unrecorded("an entry has too large headers")
		}
		after := func(r *Recorder) error { return r.then(tarBlock, (*Recorder).header) }
		if block[156] == tar.TypeXGlobalHeader { // an entry of its own
			after = (*Recorder).between
		}
		return r.then(int(size+padding(size)), after)
	}
	return r.item()
}

func padding(size int64) int64 { return -size & (tarBlock - 1) }

// item has all headers of an entry. What they say is what archive/tar reads in
// them, as Apply does.
func (r *Recorder) item() error {
	hdr, err := tar.NewReader(bytes.NewReader(r.raw[r.entry:])).Next()
	if errors.Is(err, io.ErrUnexpectedEOF) && r.sparse.at == 0 {
		// archive/tar wants the map, which is the beginning of the content
		r.sparse = sparseMap{at: len(r.raw)}
		return r.then(tarBlock, (*Recorder).mapBlock)
	}
	if err != nil {
		return unrecorded("an entry cannot be read")
	}
	if isSparse(hdr) && r.sparse.at == 0 {
		return unrecorded("a sparse file is of an old format")
	}
	switch hdr.Typeflag {
	case tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo: // no content, whatever the size
		return r.between()
	case tar.TypeReg:
	default:
		if hdr.Size != 0 {
			return unrecorded("an entry of a type of its own has content")
		}
	}
	name, err := cleanName(hdr.Name, r.lim)
	if err != nil {
		return unrecorded("an entry has a bad name")
	}
	h := maphash.String(r.seed, name)
	if _, twice := r.seen[h]; twice {
		return unrecorded("a file is there twice")
	}
	r.seen[h] = struct{}{}
	if isSparse(hdr) {
		return r.parts(name, hdr)
	}
	if hdr.Size == 0 {
		return r.between()
	}
	if err := r.content(name, hdr.Size); err != nil {
		return err
	}
	r.skip = hdr.Size
	return r.then(int(padding(hdr.Size)), (*Recorder).between)
}

// between is behind one entry and before the next.
func (r *Recorder) between() error { return r.after((*Recorder).header) }

// tail has a block behind the first that is all zeros: there may be many.
func (r *Recorder) tail() error { return r.after((*Recorder).tail) }

// after has something whole, and takes another block.
func (r *Recorder) after(step func(*Recorder) error) error {
	r.entry, r.sparse = len(r.raw), sparseMap{}
	if len(r.raw) >= recipePiece {
		if err := r.flush(); err != nil {
			return err
		}
	}
	return r.then(tarBlock, step)
}

func (r *Recorder) content(name string, size int64) error {
	if err := r.flush(); err != nil {
		return err
	}
	if err := r.record(recipeContent, []byte(name)); err != nil {
		return err
	}
	return r.number(uint64(size))
}

// flush puts the raw bytes so far into a record.
func (r *Recorder) flush() error {
	if len(r.raw) == 0 {
		return nil
	}
	err := r.record(recipeRaw, r.raw)
	r.raw, r.entry = r.raw[:0], 0
	return err
}

func (r *Recorder) record(kind byte, data []byte) error {
	if r.total += int64(len(data)); r.total > recipeMax && !r.whole {
		return unrecorded("the layer has too many entries")
	}
	err := errors.Join(r.out.WriteByte(kind), r.number(uint64(len(data))))
	_, werr := r.out.Write(data)
	return errors.Join(err, werr)
}

// part says that what is next is length bytes at offset of the file name, which
// has size bytes.
func (r *Recorder) part(name string, offset, length, size int64) error {
	err := errors.Join(r.flush(), r.record(recipePart, []byte(name)))
	for _, n := range []int64{offset, length, size} {
		err = errors.Join(err, r.number(uint64(n)))
	}
	return err
}

func (r *Recorder) number(v uint64) error {
	_, err := r.out.Write(binary.AppendUvarint(nil, v))
	return err
}

// recipeReader reads records.
type recipeReader struct {
	in  *bufio.Reader
	zip *zstd.Decoder
	buf []byte
}

func newRecipeReader(r io.Reader) (*recipeReader, error) {
	zip, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return nil, fmt.Errorf("%w: recipe: %w", errdefs.ErrCorrupt, err)
	}
	rr := &recipeReader{in: bufio.NewReader(zip), zip: zip}
	magic := make([]byte, len(recipeMagic))
	if _, err := io.ReadFull(rr.in, magic); err != nil || string(magic) != recipeMagic {
		zip.Close()
		return nil, fmt.Errorf("%w: no recipe of a layer", errdefs.ErrCorrupt)
	}
	return rr, nil
}

func (r *recipeReader) close() { r.zip.Close() }

// piece is what comes next: raw bytes of the stream, or length bytes at offset
// of the file name, which has size bytes.
type piece struct {
	raw                  []byte
	name                 string
	offset, length, size int64
}

// next returns a record. io.EOF after the last.
func (r *recipeReader) next() (piece, error) {
	kind, err := r.in.ReadByte()
	if err == io.EOF {
		return piece{}, io.EOF
	}
	var n uint64
	if err == nil {
		n, err = binary.ReadUvarint(r.in)
	}
	if err == nil && n > recipeMeta+recipePiece+2*tarBlock {
		err = errors.New("a record is too long")
	}
	if err != nil {
		return piece{}, corruptRecipe(err)
	}
	if uint64(cap(r.buf)) < n {
		r.buf = make([]byte, n)
	}
	r.buf = r.buf[:n]
	if _, err := io.ReadFull(r.in, r.buf); err != nil {
		return piece{}, corruptRecipe(err)
	}
	p := piece{name: string(r.buf)}
	switch kind {
	case recipeRaw:
		return piece{raw: r.buf}, nil
	case recipeContent:
		err = r.numbers(&p.length)
		p.size = p.length
	case recipePart:
		err = r.numbers(&p.offset, &p.length, &p.size)
	default:
		err = fmt.Errorf("a record is of kind %d", kind)
	}
	if err == nil && (p.length <= 0 || p.length > p.size-p.offset || p.name != path.Clean(p.name) || path.IsAbs(p.name)) {
		err = errors.New("a record is not plausible")
	}
	return p, corruptRecipe(err)
}

func (r *recipeReader) numbers(into ...*int64) error {
	for _, n := range into {
		v, err := binary.ReadUvarint(r.in)
		if err != nil {
			return err
		}
		if *n = int64(v); *n < 0 {
			return errors.New("a number is too large")
		}
	}
	return nil
}

func corruptRecipe(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: recipe: %w", errdefs.ErrCorrupt, err)
}

// CheckRecipe reads a recipe to its end. errdefs.ErrCorrupt: it is none, or
// damaged.
func CheckRecipe(r io.Reader) error {
	rr, err := newRecipeReader(r)
	if err != nil {
		return err
	}
	defer rr.close()
	for {
		if _, err := rr.next(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

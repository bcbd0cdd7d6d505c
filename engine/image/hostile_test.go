package image

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// TestTarIsNoDisk has the weak marks of disks inside the content of a tar.
func TestTarIsNoDisk(t *testing.T) {
	data := makeTar(t, entry{"etc/a", strings.Repeat("\x53\xef", 40<<10)})
	data[510], data[511] = 0, 0
	if _, err := open(t, data, OpenOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestUnknownContentIsRefused(t *testing.T) {
	for name, data := range map[string][]byte{
		"empty": nil, "text": []byte("hello"), "zeros": make([]byte, 10240), "random": bytes.Repeat([]byte{0xde, 0xad}, 4096),
		"short": []byte("\x1f"),
	} {
		if _, err := open(t, data, OpenOptions{}); !errors.Is(err, errdefs.ErrInvalid) || errdefs.PublicText(err, "") == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDamagedArchives changes one thing in a good archive (IM-6).
func TestDamagedArchives(t *testing.T) {
	img := sample(t)
	docker, oci := dockerArchive(t, img), ociArchive(t, img)
	flip := func(s string) string { b := []byte(s); b[len(b)/2] ^= 1; return string(b) }
	isLayer := func(name, data string) bool {
		return strings.HasPrefix(data, "\x1f\x8b") || strings.HasSuffix(name, ".tar.gz")
	}
	swapped := ""
	for name, c := range map[string]struct {
		archive []byte
		change  func(name, data string) string
		class   error
		text    string
	}{
		"docker: layer flipped": {docker, func(n, d string) string {
			if isLayer(n, d) {
				return flip(d)
			}
			return d
		}, errdefs.ErrCorrupt, "damaged"},
		"docker: layers swapped": {docker, func(n, d string) string {
			if isLayer(n, d) && swapped == "" {
				swapped = string(gzipped(t, makeTar(t, entry{"x", "y"})))
				return swapped
			}
			return d
		}, errdefs.ErrCorrupt, "does not match"},
		"docker: layer cut": {docker, func(n, d string) string {
			if isLayer(n, d) {
				return d[:len(d)-20]
			}
			return d
		}, errdefs.ErrCorrupt, "damaged"},
		"docker: trailing garbage": {docker, func(n, d string) string {
			if isLayer(n, d) {
				return d + "garbage"
			}
			return d
		}, errdefs.ErrCorrupt, "damaged"},
		"docker: second member": {docker, func(n, d string) string {
			if isLayer(n, d) {
				return d + string(gzipped(t, []byte("more")))
			}
			return d
		}, errdefs.ErrCorrupt, "does not match"},
		"docker: layer missing": {docker, func(n, d string) string {
			if isLayer(n, d) {
				return ""
			}
			return d
		}, errdefs.ErrCorrupt, "missing"},
		"docker: two images": {docker, func(n, d string) string {
			if n == "manifest.json" {
				return "[" + strings.Trim(d, "[]") + "," + strings.Trim(d, "[]") + "]"
			}
			return d
		}, errdefs.ErrInvalid, "holds 2 images"},
		"oci: layer flipped": {oci, func(n, d string) string {
			if isLayer(n, d) {
				return flip(d)
			}
			return d
		}, errdefs.ErrCorrupt, "damaged"},
		"oci: config flipped": {oci, func(n, d string) string {
			if strings.Contains(d, `"rootfs"`) {
				return strings.Replace(d, "SIGQUIT", "SIGKILL", 1)
			}
			return d
		}, errdefs.ErrCorrupt, "does not match"},
		"oci: config longer": {oci, func(n, d string) string {
			if strings.Contains(d, `"rootfs"`) {
				return d + " "
			}
			return d
		}, errdefs.ErrCorrupt, "bytes instead of"},
		"oci: manifest flipped": {oci, func(n, d string) string {
			if strings.Contains(d, `"layers":[`) {
				return strings.Replace(d, `"schemaVersion":2`, `"schemaVersion":3`, 1)
			}
			return d
		}, errdefs.ErrCorrupt, "does not match"},
		"oci: digest as path": {oci, func(n, d string) string {
			if n == "./index.json" || n == "index.json" {
				i := strings.Index(d, "sha256:")
				return d[:i] + "../../../etc/passwd" + d[i+71:]
			}
			return d
		}, errdefs.ErrInvalid, "no sha256 digest"},
		"oci: uppercase digest": {oci, func(n, d string) string {
			if strings.HasSuffix(n, "index.json") {
				i := strings.Index(d, "sha256:") + 7
				return d[:i] + strings.ToUpper(d[i:i+64]) + d[i+64:]
			}
			return d
		}, errdefs.ErrInvalid, "no sha256 digest"},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := open(t, replace(t, c.archive, c.change), OpenOptions{})
			if err == nil {
				err = Validate(t.Context(), a)
			}
			wantRefusal(t, err, c.class, c.text)
		})
	}
}

// TestHostileDocuments builds archives from documents alone.
func TestHostileDocuments(t *testing.T) {
	layer := string(makeTar(t, entry{"x", "y"}))
	config := func(change string) string {
		s := fmt.Sprintf(`{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[%q]}}`, digestOf(layer))
		if old, to, ok := strings.Cut(change, "=>"); ok {
			s = strings.Replace(s, old, to, 1)
		}
		return s
	}
	docker := func(manifest, config string) []byte {
		return makeTar(t, entry{"manifest.json", manifest}, entry{"c.json", config}, entry{"l.tar", layer})
	}
	good := `[{"Config":"c.json","Layers":["l.tar"]}]`
	if _, err := open(t, docker(good, config("")), OpenOptions{}); err != nil {
		t.Fatal(err)
	}
	desc := func(media, doc string) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, media, digestOf(doc), len(doc))
	}
	oci := func(index string, docs ...string) []byte {
		entries := []entry{{"oci-layout", "{}"}, {"index.json", index}}
		for _, d := range docs {
			entries = append(entries, entry{"blobs/sha256/" + strings.TrimPrefix(digestOf(d), "sha256:"), d})
		}
		return makeTar(t, entries...)
	}
	const manifestType, indexType = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
	manifest := func(layerType, extra string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"config":%s,"layers":[%s]%s}`,
			desc("application/vnd.oci.image.config.v1+json", config("")), desc(layerType, layer), extra)
	}
	image := func(m, media string) []byte {
		return oci(`{"manifests":[`+desc(media, m)+`]}`, m, config(""), layer)
	}
	plainLayer := "application/vnd.oci.image.layer.v1.tar"
	if _, err := open(t, image(manifest(plainLayer, ""), manifestType), OpenOptions{}); err != nil {
		t.Fatal(err)
	}
	loop := `{"manifests":[]}`
	for range 5 {
		loop = `{"manifests":[` + desc(indexType, loop) + `]}`
	}
	deep := strings.Repeat(`{"x":`, 100) + "1" + strings.Repeat("}", 100)
	for name, c := range map[string]struct {
		data  []byte
		class error
		text  string
	}{
		"null image":         {docker(`[null]`, config("")), errdefs.ErrCorrupt, "names no configuration"},
		"no image":           {docker(`[]`, config("")), errdefs.ErrInvalid, "holds 0 images"},
		"null layer":         {docker(`[{"Config":"c.json","Layers":[null]}]`, config("")), errdefs.ErrCorrupt, "missing"},
		"manifest no JSON":   {docker(`[{`, config("")), errdefs.ErrCorrupt, "manifest"},
		"JSON depth 1e6":     {docker(strings.Repeat("[", 1e6), config("")), errdefs.ErrCorrupt, "nests deeper"},
		"deep config":        {docker(good, config(`"config":{}=>"config":`+deep)), errdefs.ErrCorrupt, "nests deeper"},
		"huge manifest":      {docker(good+strings.Repeat(" ", 5<<20), config("")), errdefs.ErrInvalid, "longer than"},
		"huge config":        {docker(good, config("")+strings.Repeat(" ", 9<<20)), errdefs.ErrInvalid, "longer than"},
		"config outside":     {docker(`[{"Config":"../../etc/passwd","Layers":["l.tar"]}]`, ""), errdefs.ErrCorrupt, "missing"},
		"wrong name":         {makeTar(t, entry{"manifest.json", `[{"Config":"` + strings.Repeat("a", 64) + `.json","Layers":["l"]}]`}, entry{strings.Repeat("a", 64) + ".json", config("")}, entry{"l", layer}), errdefs.ErrCorrupt, "does not match its name"},
		"fewer layers":       {docker(`[{"Config":"c.json","Layers":[]}]`, config("")), errdefs.ErrCorrupt, "layers"},
		"no diff ids":        {docker(good, `{"os":"linux"}`), errdefs.ErrInvalid, "0 layers"},
		"201 layers":         {docker(good, `{"rootfs":{"diff_ids":[`+strings.TrimSuffix(strings.Repeat(`"x",`, 201), ",")+`]}}`), errdefs.ErrInvalid, "201 layers"},
		"bad diff id":        {docker(good, config(`"sha256:=>"sha512:`)), errdefs.ErrInvalid, "no sha256 digest"},
		"windows":            {docker(good, config(`linux=>windows`)), errdefs.ErrUnsupported, "windows"},
		"other architecture": {docker(good, config(`amd64=>riscv64`)), errdefs.ErrUnsupported, "riscv64"},
		"NUL in command":     {docker(good, config(`"config":{}=>"config":{"Cmd":["a\u0000b"]}`)), errdefs.ErrInvalid, "NUL"},
		"1 MB argument":      {docker(good, config(`"config":{}=>"config":{"Cmd":["`+strings.Repeat("a", 1<<20)+`"]}`)), errdefs.ErrInvalid, "longer than"},
		"100000 variables":   {docker(good, config(`"config":{}=>"config":{"Env":[`+strings.Repeat(`"AAAAAAAAAA=B",`, 100000)+`"A=B"]}`)), errdefs.ErrInvalid, "longer than"},
		"stop signal":        {docker(good, config(`"config":{}=>"config":{"StopSignal":"65"}`)), errdefs.ErrInvalid, "stop signal"},
		"user with newline":  {docker(good, config(`"config":{}=>"config":{"User":"a\nb"}`)), errdefs.ErrInvalid, "user"},
		"command as object":  {docker(good, config(`"config":{}=>"config":{"Cmd":{"a":1}}`)), errdefs.ErrCorrupt, "configuration"},
		"key twice":          {docker(good, config(`"os":=>"OS":"windows","os":`)), errdefs.ErrCorrupt, "twice"},
		"document twice":     {makeTar(t, entry{"manifest.json", good}, entry{"manifest.json", "[]"}), errdefs.ErrInvalid, "twice"},
		"both kinds":         {image(manifest(plainLayer, `,"manifests":[]`), manifestType), errdefs.ErrInvalid, "at once"},
		"index as manifest":  {image(`{"manifests":[]}`, manifestType), errdefs.ErrCorrupt, "type"},
		"manifest as index":  {image(manifest(plainLayer, ""), indexType), errdefs.ErrCorrupt, "type"},
		"lying media type":   {image(manifest(plainLayer, `,"mediaType":"`+indexType+`"`), manifestType), errdefs.ErrCorrupt, "type"},
		"unknown media type": {image(manifest(plainLayer, ""), "text/plain"), errdefs.ErrUnsupported, "text/plain"},
		"foreign layer":      {image(manifest("application/vnd.oci.image.layer.nondistributable.v1.tar", ""), manifestType), errdefs.ErrUnsupported, "nondistributable"},
		"encrypted layer":    {image(manifest(plainLayer+"+gzip+encrypted", ""), manifestType), errdefs.ErrUnsupported, "encrypted"},
		"null manifest":      {oci(`{"manifests":[null]}`), errdefs.ErrInvalid, "no sha256 digest"},
		"no manifest":        {oci(`{"manifests":[]}`), errdefs.ErrUnsupported, "no image for linux/amd64"},
		"absent manifests":   {oci(`{}`), errdefs.ErrUnsupported, "no image"},
		"index loop":         {oci(loop), errdefs.ErrCorrupt, "missing"},
		"artifact":           {image(strings.Replace(manifest(plainLayer, ""), "image.config", "helm.config", 1), manifestType), errdefs.ErrUnsupported, "artifact"},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := open(t, c.data, OpenOptions{})
			if err == nil {
				err = Validate(t.Context(), a)
			}
			wantRefusal(t, err, c.class, c.text)
		})
	}
}

// TestBombs expands far beyond the stored size (IM-5).
func TestBombs(t *testing.T) {
	bomb := func(w io.WriteCloser) {
		_, _ = w.Write(makeTar(t, entry{"etc/a", "b"})[:1024])
		block := make([]byte, 1<<20)
		for range 70 {
			_, _ = w.Write(block)
		}
		_ = w.Close()
	}
	var gzBuf, zstdBuf bytes.Buffer
	bomb(gzip.NewWriter(&gzBuf))
	z, err := zstd.NewWriter(&zstdBuf)
	if err != nil {
		t.Fatal(err)
	}
	bomb(z)
	for name, data := range map[string][]byte{"gzip": gzBuf.Bytes(), "zstd": zstdBuf.Bytes()} {
		t.Run(name, func(t *testing.T) {
			a, err := open(t, data, OpenOptions{})
			if err == nil {
				err = Validate(t.Context(), a)
			}
			wantRefusal(t, err, errdefs.ErrInvalid, "expands to more than 200 times")
			a, err = open(t, data, OpenOptions{Limits: Limits{LayerBytes: 1 << 20}})
			if err == nil {
				err = Validate(t.Context(), a)
			}
			wantRefusal(t, err, errdefs.ErrInvalid, "too large")
		})
	}
}

// TestDecompressorMemory asks for more memory than a stream may have.
func TestDecompressorMemory(t *testing.T) {
	// A zstd frame with a window of 2 GiB, and an xz block with a dictionary
	// of 4 GiB (its checksums are right).
	zstdBomb := []byte("\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00\x00")
	xzBomb := []byte("\xfd7zXZ\x00\x00\x00\xff\x12\xd9\x41\x02\x00\x21\x01\x28\x00\x00\x00")
	xzBomb = append(xzBomb, crc32le(xzBomb[12:])...)
	xzBomb = append(xzBomb, bytes.Repeat([]byte("\x01\x00\x00x"), 200)...)
	for name, data := range map[string][]byte{"zstd": zstdBomb, "xz": xzBomb} {
		if _, err := open(t, data, OpenOptions{}); !errors.Is(err, errdefs.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		} else if !strings.Contains(err.Error(), "window") && !strings.Contains(err.Error(), "dictionary size") {
			t.Errorf("%s is refused for another reason: %v", name, err)
		}
	}
}

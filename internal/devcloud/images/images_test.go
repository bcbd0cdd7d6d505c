package images

import (
	"context"
	"crypto/md5"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// people are callers, and their names their tokens.
type people map[string]*rest.Caller

func (p people) Caller(_ context.Context, token string) (*rest.Caller, error) {
	if c := p[token]; c != nil {
		return c, nil
	}
	return nil, errdefs.ErrNotFound
}

var everybody = people{
	"admin":  {UserID: "u1", ProjectID: "p-admin", Roles: []string{"admin", "member", "reader"}},
	"demo":   {UserID: "u2", ProjectID: "p-demo", Roles: []string{"member", "reader"}},
	"other":  {UserID: "u3", ProjectID: "p-other", Roles: []string{"member", "reader"}},
	"reader": {UserID: "u4", ProjectID: "p-demo", Roles: []string{"reader"}},
}

// store is a service and where it keeps everything.
type store struct {
	*Service
	t   testing.TB
	dir string
	now atomic.Int64 // seconds
}

func newStore(t testing.TB) *store {
	t.Helper()
	st := &store{t: t, dir: t.TempDir()}
	st.open()
	t.Cleanup(func() { _ = st.Close() })
	return st
}

func (st *store) open() {
	st.t.Helper()
	s, err := New(st.t.Context(), Options{
		Path: filepath.Join(st.dir, "db"), Dir: filepath.Join(st.dir, "images"), Auth: everybody, Log: zerolog.Nop(),
		Now: func() time.Time {
			return time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC).Add(time.Duration(st.now.Load()) * time.Second)
		},
	})
	if err != nil {
		st.t.Fatal(err)
	}
	st.Service = s
}

// restart is the death of the process and its next start.
func (st *store) restart() {
	st.t.Helper()
	if err := st.Close(); err != nil {
		st.t.Fatal(err)
	}
	st.open()
}

type answer struct {
	status int
	header http.Header
	raw    string
	body   map[string]any
}

func (a answer) text(name string) string { s, _ := a.body[name].(string); return s }

func (st *store) do(who, method, path string, body any, header ...string) answer {
	st.t.Helper()
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(b)
	case io.Reader:
		reader = b
	}
	r := httptest.NewRequestWithContext(st.t.Context(), method, "http://cloud:9292"+path, reader)
	r.Header.Set("X-Auth-Token", who)
	switch {
	case method == "PATCH":
		r.Header.Set("Content-Type", patchV21)
	case strings.HasSuffix(path, "/file"), strings.HasSuffix(path, "/stage"):
		r.Header.Set("Content-Type", "application/octet-stream")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	st.Handler().ServeHTTP(w, r)
	a := answer{status: w.Code, header: w.Header(), raw: w.Body.String()}
	if strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") && a.raw != "" {
		if err := json.Unmarshal([]byte(a.raw), &a.body); err != nil {
			st.t.Fatalf("%s %s: %v in %s", method, path, err, a.raw)
		}
	}
	return a
}

func (st *store) want(status int, who, method, path string, body any, header ...string) answer {
	st.t.Helper()
	a := st.do(who, method, path, body, header...)
	if a.status != status {
		st.t.Fatalf("%s: %s %s %v: %d %s, want %d", who, method, path, body, a.status, a.raw, status)
	}
	return a
}

// image makes one of demo's and returns its path.
func (st *store) image(more string) string {
	st.t.Helper()
	return "/v2/images/" + st.want(201, "demo", "POST", "/v2/images", `{"disk_format":"raw","container_format":"bare"`+more+`}`).text("id")
}

func (st *store) files() (all []string) {
	st.t.Helper()
	err := filepath.WalkDir(filepath.Join(st.dir, "images"), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		st.t.Fatal(err)
	}
	return all
}

func TestAnImageFromNothingToData(t *testing.T) {
	st := newStore(t)
	a := st.want(201, "demo", "POST", "/v2/images", `{"name":"i","disk_format":"raw","container_format":"bare","tags":["b","a","a"],"os_distro":"debian","min_disk":1}`)
	at := "/v2/images/" + a.text("id")
	if a.header.Get("Location") != "http://cloud:9292"+at || a.header.Get("OpenStack-image-import-methods") != "glance-direct" {
		t.Errorf("%v", a.header)
	}
	for name, want := range map[string]any{
		"name": "i", "status": "queued", "visibility": "shared", "owner": "p-demo", "size": nil, "checksum": nil, "os_distro": "debian", "min_disk": 1.0,
		"tags": []any{"a", "b"}, "self": at, "file": at + "/file", "schema": "/v2/schemas/image", "created_at": "2026-01-02T03:04:00Z", "protected": false,
	} {
		if got, ok := a.body[name]; !ok || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	st.want(204, "demo", "GET", at+"/file", nil)
	data := strings.Repeat("0123456789", 100_000)
	st.want(204, "demo", "PUT", at+"/file", data)
	sum, hash := md5.Sum([]byte(data)), sha512.Sum512([]byte(data))
	b := st.want(200, "demo", "GET", at, nil)
	for name, want := range map[string]any{
		"status": "active", "size": 1e6, "virtual_size": 1e6, "checksum": hex.EncodeToString(sum[:]), "os_hash_algo": "sha512", "os_hash_value": hex.EncodeToString(hash[:]),
	} {
		if got := b.body[name]; got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	c := st.want(200, "demo", "GET", at+"/file", nil)
	if c.raw != data || c.header.Get("Content-Md5") != hex.EncodeToString(sum[:]) || c.header.Get("Content-Length") != "1000000" {
		t.Errorf("%d bytes, %v", len(c.raw), c.header)
	}
	st.want(409, "demo", "PUT", at+"/file", "again")
	st.restart()
	if c := st.want(200, "demo", "GET", at+"/file", nil); c.raw != data {
		t.Error("the data is another after a restart")
	}
	st.want(204, "demo", "DELETE", at, nil)
	st.want(404, "demo", "GET", at, nil)
	st.want(404, "demo", "DELETE", at, nil)
	if f := st.files(); len(f) != 0 {
		t.Errorf("left: %v", f)
	}
}

func TestRanges(t *testing.T) {
	st := newStore(t)
	at := st.image("")
	st.want(204, "demo", "PUT", at+"/file", "hello world")
	for asked, want := range map[string]struct {
		status       int
		body, range_ string
	}{
		"bytes=0-4":    {206, "hello", "bytes 0-4/11"},
		"bytes=6-":     {206, "world", "bytes 6-10/11"},
		"bytes=-5":     {206, "world", "bytes 6-10/11"},
		"bytes=0-100":  {206, "hello world", "bytes 0-10/11"},
		"bytes=11-":    {416, "", ""},
		"bytes=5-2":    {416, "", ""},
		"x":            {416, "", ""},
		"bytes=0-1,3-": {416, "", ""},
	} {
		a := st.do("demo", "GET", at+"/file", nil, "Range", asked)
		if a.status != want.status || want.status == 206 && (a.raw != want.body || a.header.Get("Content-Range") != want.range_) {
			t.Errorf("%s: %d %q %s", asked, a.status, a.raw, a.header.Get("Content-Range"))
		}
	}
}

// broken gives some bytes and then an error.
type broken struct{ err error }

func (b *broken) Read(p []byte) (int, error) {
	if len(p) > 0 && b.err != nil {
		p[0] = 'x'
		err := b.err
		b.err = nil
		return 1, err
	}
	return 0, io.ErrUnexpectedEOF
}

func TestAFailedUploadLeavesNothing(t *testing.T) {
	st := newStore(t)
	for name, x := range map[string]struct {
		err    error
		status int
	}{
		"connection lost": {io.ErrUnexpectedEOF, 400},
		"disk full":       {fmt.Errorf("write: %w", errdefs.ErrExhausted), 413},
		"too large":       {errTooLarge, 413},
	} {
		for _, end := range []string{"/file", "/stage"} {
			at := st.image("")
			st.want(x.status, "demo", "PUT", at+end, &broken{x.err})
			if a := st.want(200, "demo", "GET", at, nil); a.text("status") != "queued" || a.body["size"] != nil {
				t.Errorf("%s%s: %s", name, end, a.raw)
			}
			if f := st.files(); len(f) != 0 {
				t.Errorf("%s%s: left %v", name, end, f)
			}
			st.want(204, "demo", "PUT", at+"/file", "now")
			st.want(204, "demo", "DELETE", at, nil)
		}
	}
	at := st.image(`,"name":"no format"`)
	st.want(200, "demo", "PATCH", at, `[{"op":"replace","path":"/disk_format","value":null}]`)
	if a := st.want(400, "demo", "PUT", at+"/file", "x", "Accept", "*/*"); !strings.Contains(a.raw, "Property disk_format must be set prior to saving data.") {
		t.Errorf("%s", a.raw)
	}
	st.want(415, "demo", "PUT", at+"/file", "x", "Content-Type", "text/plain")
}

// gate lets a test in while an upload runs.
type gate struct {
	reached, open chan struct{}
	done          bool
}

func (g *gate) Read(p []byte) (int, error) {
	if g.done {
		return 0, io.EOF
	}
	g.done = true
	close(g.reached)
	<-g.open
	return copy(p, "late"), nil
}

func TestDuringAnUpload(t *testing.T) {
	st := newStore(t)
	at := st.image("")
	id := strings.TrimPrefix(at, "/v2/images/")
	g := &gate{reached: make(chan struct{}), open: make(chan struct{})}
	done := make(chan answer)
	go func() { done <- st.do("demo", "PUT", at+"/file", g) }()
	<-g.reached
	if a := st.want(200, "demo", "GET", at, nil); a.text("status") != "saving" {
		t.Errorf("%s", a.raw)
	}
	st.want(204, "demo", "GET", at+"/file", nil)
	if a := st.want(409, "demo", "PUT", at+"/file", "second"); !strings.Contains(a.raw, "Image status transition from saving to saving is not allowed") {
		t.Errorf("%s", a.raw)
	}
	st.want(204, "demo", "DELETE", at, nil)
	st.want(409, "demo", "POST", "/v2/images", `{"id":"`+id+`"}`)
	close(g.open)
	if a := <-done; a.status != 410 {
		t.Errorf("%d %s", a.status, a.raw)
	}
	if f := st.files(); len(f) != 0 {
		t.Errorf("left: %v", f)
	}
	st.want(201, "demo", "POST", "/v2/images", `{"id":"`+id+`"}`)
}

func TestAStartSweepsWhatWasCutOff(t *testing.T) {
	st := newStore(t)
	kept, cut, staged, staging := st.image(""), st.image(""), st.image(""), st.image("")
	st.want(204, "demo", "PUT", kept+"/file", "kept")
	st.want(204, "demo", "PUT", staged+"/stage", "staged")
	for at, status := range map[string]string{cut: "saving", staging: "uploading"} {
		if err := st.claim(t.Context(), &Image{ID: strings.TrimPrefix(at, "/v2/images/")}, status); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"partial/x.1", "data/" + strings.TrimPrefix(cut, "/v2/images/"), "staging/" + strings.TrimPrefix(staging, "/v2/images/")} {
		if err := os.WriteFile(filepath.Join(st.dir, "images", path), []byte("part"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	st.restart()
	for at, status := range map[string]string{kept: "active", cut: "queued", staged: "uploading", staging: "queued"} {
		if a := st.want(200, "demo", "GET", at, nil); a.text("status") != status {
			t.Errorf("%s, want %s", a.raw, status)
		}
	}
	if f := st.files(); len(f) != 2 {
		t.Errorf("left: %v", f)
	}
	// died between the move of the file and the commit
	if err := os.Rename(st.path("staging", strings.TrimPrefix(staged, "/v2/images/")), st.path("data", strings.TrimPrefix(staged, "/v2/images/"))); err != nil {
		t.Fatal(err)
	}
	st.restart()
	st.want(202, "demo", "POST", staged+"/import", `{"method":{"name":"glance-direct"}}`)
	if a := st.want(200, "demo", "GET", staged+"/file", nil); a.raw != "staged" {
		t.Errorf("%q", a.raw)
	}
}

func TestImport(t *testing.T) {
	st := newStore(t)
	at := st.image("")
	direct := `{"method":{"name":"glance-direct"}}`
	st.want(409, "demo", "POST", at+"/import", direct)
	st.want(204, "demo", "PUT", at+"/stage", "data")
	st.want(409, "demo", "PUT", at+"/stage", "data")
	if a := st.want(200, "demo", "GET", at, nil); a.text("status") != "uploading" || a.body["size"] != 4.0 {
		t.Errorf("%s", a.raw)
	}
	for body, want := range map[string]string{
		`{}`: "Import request requires a &#x27;method&#x27; field.", `{"method":{}}`: "Import request requires a &#x27;name&#x27; field.",
		`{"method":{"name":"web-download","uri":"http://127.0.0.1/"}}`: "Unknown import method name &#x27;web-download&#x27;.",
		`{"method":{"name":"glance-direct"},"all_stores":1}`:           "&#x27;all_stores&#x27; must be boolean value only",
	} {
		if a := st.want(400, "demo", "POST", at+"/import", body, "Accept", "*/*"); !strings.Contains(a.raw, want) {
			t.Errorf("%s: %s", body, a.raw)
		}
	}
	st.want(404, "other", "POST", at+"/import", direct)
	st.want(202, "demo", "POST", at+"/import", direct)
	if a := st.want(200, "demo", "GET", at, nil); a.text("status") != "active" || a.text("os_hash_value") == "" {
		t.Errorf("%s", a.raw)
	}
	if a := st.want(200, "demo", "GET", at+"/file", nil); a.raw != "data" {
		t.Errorf("%q", a.raw)
	}
	st.want(409, "demo", "POST", at+"/import", direct)
	if f := st.files(); len(f) != 1 {
		t.Errorf("%v", f)
	}
}

func TestVirtualSize(t *testing.T) {
	head := slices.Concat([]byte("QFI\xfb\x00\x00\x00\x03"), make([]byte, 16), []byte{0, 0, 0, 0, 0x40, 0, 0, 0}, make([]byte, 100))
	for _, x := range []struct {
		disk, container string
		data            []byte
		want            int64
	}{
		{"qcow2", "bare", head, 1 << 30},
		{"qcow2", "bare", head[:20], -1},
		{"qcow2", "bare", []byte(strings.Repeat("x", 99)), -1},
		{"raw", "bare", []byte("123"), 3},
		{"raw", "docker", []byte("123"), -1},
		{"vmdk", "bare", []byte("123"), -1},
	} {
		st := newStore(t)
		i, err := st.Create(t.Context(), everybody["demo"], NewImage{DiskFormat: x.disk, ContainerFormat: x.container})
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Upload(t.Context(), everybody["demo"], i.ID, strings.NewReader(string(x.data))); err != nil {
			t.Fatal(err)
		}
		i, err = st.Image(t.Context(), everybody["demo"], i.ID)
		if err != nil || (i.VirtualSize == nil) != (x.want < 0) || i.VirtualSize != nil && *i.VirtualSize != x.want {
			t.Errorf("%s in %s: %v, %v", x.disk, x.container, i.VirtualSize, err)
		}
	}
}

// Package glancetest is an image service in memory for tests: as much of the
// Image API v2 as a compute service uses, with states, hashes, ranges and
// private images that behave as Glance's, and switches for failures.
//
// Who asks is told by the token: UserToken(project) is a member of a project,
// any other token, or none, is an administrator.
package glancetest

import (
	"crypto/md5" // Glance's checksum
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"

	"github.com/google/uuid"
)

const userPrefix = "user-of-"

// UserToken returns a token of a member of project.
func UserToken(project string) string { return userPrefix + project }

// Fault says how a transfer of an image's data goes wrong.
type Fault struct {
	// Times is how many transfers go wrong; negative means all.
	Times int
	// CutAt breaks the connection after so many bytes of the answer's body.
	CutAt int
	// StallAt stops sending (or taking) after so many bytes until Hold is
	// closed, or, when sending without Hold, until the client gives up.
	StallAt int
	Hold    <-chan struct{}
	// Status answers with this status instead.
	Status int
	// Data replaces the bytes that are sent; the hashes stay.
	Data []byte
	// NoRange answers a request for a part with the whole.
	NoRange bool
}

type image struct {
	fields map[string]any
	data   []byte
	fault  Fault
}

// Server is an http.Handler. Make it with New; safe for concurrent use.
type Server struct {
	mu        sync.Mutex
	images    map[string]*image // guarded by mu
	downloads int               // guarded by mu
	requests  []string          // guarded by mu
}

// New returns an empty service.
func New() *Server { return &Server{images: map[string]*image{}} }

// Add puts an active public image with this data in; more overrides fields of
// the image (a nil value is null). It returns the id.
func (s *Server) Add(data []byte, more map[string]any) string {
	i := &image{fields: map[string]any{
		"id": uuid.NewString(), "name": "test", "visibility": "public", "protected": false, "min_ram": 0, "min_disk": 0,
		"disk_format": "raw", "container_format": "bare", "tags": []string{}, "owner": "admin", "os_hidden": false,
	}}
	i.store(data)
	maps.Copy(i.fields, more)
	s.mu.Lock()
	defer s.mu.Unlock()
	id, _ := i.fields["id"].(string)
	s.images[id] = i
	return id
}

// store completes an image.
func (i *image) store(data []byte) {
	sum, strong := md5.Sum(data), sha512.Sum512(data) // Glance's checksum
	i.data = data
	maps.Copy(i.fields, map[string]any{
		"status": "active", "size": len(data), "virtual_size": len(data), "checksum": hex.EncodeToString(sum[:]),
		"os_hash_algo": "sha512", "os_hash_value": hex.EncodeToString(strong[:]),
	})
}

// SetFault makes transfers of an image go wrong.
func (s *Server) SetFault(id string, f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.images[id].fault = f
}

// Data returns an image's data, nil if it has none or is gone.
func (s *Server) Data(id string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.images[id]; i != nil {
		return i.data
	}
	return nil
}

// Fields returns a copy of what the API shows of an image, nil if it is gone.
func (s *Server) Fields(id string) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.images[id]; i != nil {
		return maps.Clone(i.fields)
	}
	return nil
}

// Remove deletes an image, as its owner could at any time.
func (s *Server) Remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.images, id)
}

// Downloads returns how many transfers of data to a client were begun.
func (s *Server) Downloads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.downloads
}

// Requests returns method and path of all requests so far.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.requests...)
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	s.mu.Unlock()
	rest, ok := strings.CutPrefix(r.URL.Path, "/v2/images")
	if !ok {
		http.NotFound(w, r)
		return
	}
	switch {
	case rest == "" && r.Method == http.MethodGet:
		s.list(w, r)
		return
	case rest == "":
		s.create(w, r)
		return
	}
	id, file := strings.CutSuffix(strings.TrimPrefix(rest, "/"), "/file")
	s.mu.Lock()
	i := s.images[id]
	s.mu.Unlock()
	project, user := strings.CutPrefix(r.Header.Get("X-Auth-Token"), userPrefix)
	if i == nil || (user && i.fields["visibility"] == "private" && i.fields["owner"] != project) {
		refuse(w, http.StatusNotFound, "No image found with ID "+id)
		return
	}
	switch {
	case file && r.Method == http.MethodGet:
		s.download(w, r, i)
	case file && r.Method == http.MethodPut:
		s.upload(w, r, id, i)
	case r.Method == http.MethodGet:
		s.show(w, http.StatusOK, i)
	case r.Method == http.MethodPatch:
		s.patch(w, r, i)
	case r.Method == http.MethodDelete && i.fields["protected"] == true:
		refuse(w, http.StatusForbidden, "Image is protected")
	case r.Method == http.MethodDelete:
		s.Remove(id)
		w.WriteHeader(http.StatusNoContent)
	default:
		refuse(w, http.StatusMethodNotAllowed, "")
	}
}

func (s *Server) show(w http.ResponseWriter, status int, i *image) {
	s.mu.Lock()
	raw, err := json.Marshal(i.fields)
	s.mu.Unlock()
	if err != nil {
		panic(err) // a test put in what is not JSON
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(raw)
}

func (s *Server) create(w http.ResponseWriter, r *http.Request) {
	fields := map[string]any{}
	if err := json.NewDecoder(r.Body).Decode(&fields); err != nil || r.Method != http.MethodPost {
		refuse(w, http.StatusBadRequest, "malformed")
		return
	}
	more := map[string]any{
		"status": "queued", "size": nil, "virtual_size": nil, "checksum": nil, "os_hash_algo": nil, "os_hash_value": nil,
		"disk_format": nil, "container_format": nil, "visibility": "private",
	}
	if project, ok := strings.CutPrefix(r.Header.Get("X-Auth-Token"), userPrefix); ok {
		more["owner"] = project
	}
	maps.Copy(more, fields)
	id := s.Add(nil, more)
	s.mu.Lock()
	i := s.images[id]
	i.data = nil
	s.mu.Unlock()
	s.show(w, http.StatusCreated, i)
}

// patch follows the v2.1 rules: add sets or replaces a property, replace needs
// what it replaces; formats are fixed once there is data.
func (s *Server) patch(w http.ResponseWriter, r *http.Request, i *image) {
	var ops []struct {
		Op, Path string
		Value    any
	}
	if r.Header.Get("Content-Type") != "application/openstack-images-v2.1-json-patch" || json.NewDecoder(r.Body).Decode(&ops) != nil {
		refuse(w, http.StatusUnsupportedMediaType, "not a patch")
		return
	}
	s.mu.Lock()
	next := maps.Clone(i.fields)
	queued := i.fields["status"] == "queued"
	s.mu.Unlock()
	pointer := strings.NewReplacer("~1", "/", "~0", "~")
	for _, op := range ops {
		key := pointer.Replace(strings.TrimPrefix(op.Path, "/"))
		_, known := next[key]
		switch {
		case key == "status" || key == "size" || strings.HasPrefix(key, "os_glance"):
			refuse(w, http.StatusForbidden, "Attribute '"+key+"' is read-only.")
			return
		case (key == "disk_format" || key == "container_format") && !queued:
			refuse(w, http.StatusForbidden, "Attribute "+key+" can be only replaced for a queued image.")
			return
		case op.Op == "replace" && !known:
			refuse(w, http.StatusConflict, "Property "+key+" does not exist.")
			return
		}
		next[key] = op.Value
	}
	s.mu.Lock()
	i.fields = next
	s.mu.Unlock()
	s.show(w, http.StatusOK, i)
}

// refuse answers as Glance does: a page.
func refuse(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/html; charset=UTF-8")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "<html>\n <head>\n  <title>%d %s</title>\n </head>\n <body>\n  <h1>%d %s</h1>\n  %s<br /><br />\n\n\n </body>\n</html>",
		status, http.StatusText(status), status, http.StatusText(status), text)
}

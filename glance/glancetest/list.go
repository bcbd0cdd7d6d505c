package glancetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// list answers with the images that the user may see, in pages of at most three:
// a real service's are longer, and rarely have a second one.
func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	marker := query.Get("marker")
	s.mu.Lock()
	var ids []string
	for id, i := range s.images {
		if s.listed(i, query, r.Header.Get("X-Auth-Token")) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	if at := slices.Index(ids, marker); at >= 0 {
		ids = ids[at+1:]
	}
	most := 3
	if n, err := strconv.Atoi(query.Get("limit")); err == nil {
		most = min(most, n)
	}
	page := map[string]any{}
	if len(ids) > most {
		ids = ids[:most]
		query.Set("marker", ids[most-1])
		page["next"] = "/v2/images?" + query.Encode()
	}
	images := []map[string]any{}
	for _, id := range ids {
		images = append(images, s.images[id].fields)
	}
	page["images"] = images
	raw, err := json.Marshal(page)
	s.mu.Unlock()
	if err != nil {
		panic(err) // a test put in what is not JSON
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(raw)
}

// listed must be called with mu held.
func (s *Server) listed(i *image, query url.Values, token string) bool {
	project, user := strings.CutPrefix(token, userPrefix)
	if i.fields["os_hidden"] == true || user && i.fields["visibility"] == "private" && i.fields["owner"] != project {
		return false
	}
	for k := range query {
		if k != "limit" && k != "marker" && k != "sort" && fmt.Sprint(i.fields[k]) != query.Get(k) {
			return false
		}
	}
	return true
}

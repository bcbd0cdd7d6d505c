package rest

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
)

// Limit reads the query's "limit": max when it is absent or above, 400 when it
// is no number from 0 up.
func (r *Request) Limit(most int) (int, error) {
	s := r.Params().Get("limit")
	if s == "" {
		return most, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, Errorf(http.StatusBadRequest, "limit param must be an integer and not negative")
	}
	return min(n, most), nil
}

// Page cuts the part of an ordered list that follows the item with that marker
// and has at most limit items. more says that something follows. An unknown
// marker is ok == false.
func Page[T any](all []T, id func(T) string, marker string, limit int) (page []T, more, ok bool) {
	if marker != "" {
		i := slices.IndexFunc(all, func(t T) bool { return id(t) == marker })
		if i < 0 {
			return nil, false, false
		}
		all = all[i+1:]
	}
	if len(all) > limit {
		return all[:limit], true, true
	}
	return all, false, true
}

// NextQuery is the query of the page after the one that ends with marker.
func (r *Request) NextQuery(marker string) string {
	q := make(url.Values, len(r.Params())+1)
	for k, v := range r.Params() {
		q[k] = v
	}
	q.Set("marker", marker)
	return q.Encode()
}

// Base is the URL under which the caller knows this API, without a slash at its
// end.
func (r *Request) Base() string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + r.Host + mount(r.Context())
}

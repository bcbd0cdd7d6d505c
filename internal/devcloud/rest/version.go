package rest

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Version is a microversion; the zero value is none.
type Version struct{ Major, Minor int }

// ParseVersion reads "2.93".
func ParseVersion(s string) (Version, error) {
	major, minor, ok := strings.Cut(s, ".")
	a, errA := strconv.ParseUint(major, 10, 16)
	b, errB := strconv.ParseUint(minor, 10, 16)
	if !ok || errA != nil || errB != nil || major != strconv.FormatUint(a, 10) || minor != strconv.FormatUint(b, 10) {
		return Version{}, fmt.Errorf("version %q", s)
	}
	return Version{int(a), int(b)}, nil
}

// String is "2.93".
func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// AtLeast reports whether v is not before 'since', which stands as "2.93" in the
// code that asks.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

// Microversions are what a service understands (api-guide "Microversions").
type Microversions struct {
	// Service is its name in the header OpenStack-API-Version.
	Service  string
	Min, Max Version
	// Legacy is an older header that carries the bare version, or empty. A
	// service that has one tells in a refusal which version was asked for.
	Legacy string
}

// choose returns the version of a request: Min when it names none.
func (m *Microversions) choose(r *http.Request) (Version, error) {
	asked := ""
	for _, h := range r.Header.Values("OpenStack-API-Version") {
		for one := range strings.SplitSeq(h, ",") {
			service, version, _ := strings.Cut(strings.TrimSpace(one), " ")
			if strings.EqualFold(service, m.Service) {
				asked = strings.TrimSpace(version)
			}
		}
	}
	if asked == "" && m.Legacy != "" {
		asked = r.Header.Get(m.Legacy)
	}
	switch asked {
	case "":
		return m.Min, nil
	case "latest":
		return m.Max, nil
	}
	v, err := ParseVersion(asked)
	if err != nil {
		return Version{}, Errorf(http.StatusBadRequest, "API Version String %s is of invalid format. Must be of format MajorNum.MinorNum.", asked)
	}
	if !v.AtLeast(m.Min.Major, m.Min.Minor) || !m.Max.AtLeast(v.Major, v.Minor) {
		refused := Version{}
		if m.Legacy != "" {
			refused = v
		}
		return refused, Errorf(http.StatusNotAcceptable, "Version %s is not supported by the API. Minimum is %s and maximum is %s.", v, m.Min, m.Max)
	}
	return v, nil
}

// tell says in the answer which version it has.
func (m *Microversions) tell(h http.Header, v Version) {
	h.Set("OpenStack-API-Version", m.Service+" "+v.String())
	h.Add("Vary", "OpenStack-API-Version")
	if m.Legacy != "" {
		h.Set(m.Legacy, v.String())
		h.Add("Vary", m.Legacy)
	}
}

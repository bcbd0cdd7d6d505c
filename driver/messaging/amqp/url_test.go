package amqp

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestParseURL(t *testing.T) {
	guest := Host{Name: "h", User: "guest", Password: "guest", Port: 5672}
	for _, tc := range []struct {
		in   string
		want URL
	}{
		{"rabbit://h", URL{[]Host{guest}, "/"}},
		{"rabbit://h/", URL{[]Host{guest}, "/"}},
		{"rabbit://h//", URL{[]Host{guest}, "/"}},
		{"kombu+memory://h/%2Fnova", URL{[]Host{guest}, "/nova"}},
		{"rabbit://h/nova?heartbeat=5#x", URL{[]Host{guest}, "nova"}},
		{"rabbit://openstack:bench@127.0.0.1:5672/", URL{[]Host{{"127.0.0.1", "openstack", "bench", 5672}}, "/"}},
		{"rabbit://u%40d:p%2F%3A%25@h:1234/v", URL{[]Host{{"h", "u@d", "p/:%", 1234}}, "v"}},
		{"rabbit://u:p:q@h", URL{[]Host{{"h", "u", "p:q", 5672}}, "/"}},
		{"rabbit://u:p@x@h", URL{[]Host{{"h", "u", "p@x", 5672}}, "/"}},
		{"rabbit://u:@h", URL{[]Host{{"h", "u", "", 5672}}, "/"}},
		{"rabbit://u:p@[::1]:5673/", URL{[]Host{{"::1", "u", "p", 5673}}, "/"}},
		{"rabbit://u:p@a:1,x:y@b,/c", URL{[]Host{{"a", "u", "p", 1}, {"b", "x", "y", 5672}}, "c"}},
	} {
		got, err := ParseURL(tc.in)
		if err != nil {
			t.Errorf("%s: %v", tc.in, err)
		} else if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.in, diff)
		}
	}
}

func TestParseURLRefuses(t *testing.T) {
	for _, in := range []string{
		"", "h:5672", "amqp://h", "rabbit://", "rabbit:///v", "rabbit://u:secret@/v", "rabbit://u:secret@h:x/", "rabbit://u:secret@h:0/",
		"rabbit://u:secret@h:70000/", "rabbit://u:secret%zz@h/", "rabbit://u:secret@[::1/", "rabbit://u:secret@[h]/", "rabbit://u:secret@[::1]5672/",
		"rabbit://u:secret@h/%zz",
	} {
		_, err := ParseURL(in)
		if !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q: %v", in, err)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the password is in the error: %v", in, err)
		}
	}
	h := Host{Name: "h", User: "u", Password: "secret", Port: 1}
	if s := fmt.Sprintf("%v %+v %#v %s", h, h, h, h); strings.Contains(s, "secret") {
		t.Errorf("printed: %s", s)
	}
}

func FuzzParseURL(f *testing.F) {
	f.Add("rabbit://u:p@a:1,x:y@[::1]:5/c%2f?x#y")
	f.Add("kombu+x://@,@:/")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURL(s)
		if err != nil {
			return
		}
		if len(u.Hosts) == 0 || u.VHost == "" {
			t.Fatalf("%q gives %v", s, u)
		}
		for _, h := range u.Hosts {
			if h.Name == "" || h.Port < 1 || h.Port > 65535 {
				t.Fatalf("%q gives host %v", s, h)
			}
		}
	})
}

package cell_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func names(t *testing.T, s *cell.Store, q cell.InstanceQuery) []string {
	t.Helper()
	if q.Sort == nil {
		q.Sort = []cell.SortKey{{Field: "display_name"}}
	}
	l, err := s.ListInstances(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, i := range l {
		out = append(out, i.DisplayName())
	}
	return out
}

func tagged(i objects.Instance, tags ...string) objects.Instance {
	var list []*objects.Object
	for _, tag := range tags {
		o := objects.New("Tag")
		o.Set("tag", tag)
		list = append(list, o)
	}
	l := objects.New("TagList")
	l.Set("objects", list)
	i.Set("tags", l)
	return i
}

// populated has five instances: a to d of project p and x of another.
func populated(t *testing.T) *cell.Store {
	t.Helper()
	s := newStore(t)
	a := create(t, s, tagged(building("p", "a"), "red", "blue"))
	b := create(t, s, tagged(building("p", "b"), "red"))
	c := create(t, s, building("p", "c"))
	d := create(t, s, building("p", "d"))
	create(t, s, building("other", "x"))
	for id, fields := range map[string]map[string]any{
		a.UUID(): {"host": "cmp1", "vm_state": "active", "task_state": nil, "locked": true, "power_state": 1},
		b.UUID(): {"vm_state": "error", "task_state": nil, "key_name": "mine"},
		c.UUID(): {"vm_state": "soft-delete"},
		d.UUID(): {"terminated_at": time.Now()},
	} {
		if _, err := s.SetInstance(t.Context(), id, cell.Expect{}, fields); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.DestroyInstance(t.Context(), d.UUID(), cell.NoHost); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestListFilters(t *testing.T) {
	s := populated(t)
	match := func(field string, values ...any) map[string][]any { return map[string][]any{field: values} }
	past, future := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		q    cell.InstanceQuery
		want []string
	}{
		"all":             {cell.InstanceQuery{}, []string{"a", "b", "x"}},
		"with soft":       {cell.InstanceQuery{Deleted: cell.LiveAndSoft}, []string{"a", "b", "c", "x"}},
		"ended":           {cell.InstanceQuery{Deleted: cell.Ended}, []string{"c", "d"}},
		"deleted":         {cell.InstanceQuery{Deleted: cell.OnlyDeleted}, []string{"d"}},
		"everything":      {cell.InstanceQuery{Deleted: cell.Everything}, []string{"a", "b", "c", "d", "x"}},
		"project":         {cell.InstanceQuery{Match: match("project_id", "p")}, []string{"a", "b"}},
		"states":          {cell.InstanceQuery{Match: match("vm_state", "active", "building")}, []string{"a", "x"}},
		"no task":         {cell.InstanceQuery{Match: match("task_state", nil)}, []string{"a", "b"}},
		"task or none":    {cell.InstanceQuery{Match: match("task_state", nil, "scheduling")}, []string{"a", "b", "x"}},
		"no host":         {cell.InstanceQuery{Match: match("host", nil)}, []string{"b", "x"}},
		"number":          {cell.InstanceQuery{Match: match("power_state", 1)}, []string{"a"}},
		"in json":         {cell.InstanceQuery{Match: match("key_name", "mine")}, []string{"b"}},
		"bool in json":    {cell.InstanceQuery{Match: match("locked", true)}, []string{"a"}},
		"no value":        {cell.InstanceQuery{Match: match("host")}, []string{}},
		"metadata":        {cell.InstanceQuery{Metadata: map[string]string{"name": "b"}}, []string{"b"}},
		"other metadata":  {cell.InstanceQuery{Metadata: map[string]string{"name": "b", "x": "y"}}, []string{}},
		"regexp":          {cell.InstanceQuery{Regexp: map[string]string{"display_name": "^[AX]"}}, []string{"a", "x"}},
		"regexp of null":  {cell.InstanceQuery{Regexp: map[string]string{"host": ".*"}}, []string{"a"}},
		"regexp of bool":  {cell.InstanceQuery{Regexp: map[string]string{"locked": "1"}}, []string{"a"}},
		"regexp, limited": {cell.InstanceQuery{Regexp: map[string]string{"display_name": "[bx]"}, Limit: 1}, []string{"b"}},
		"all tags":        {cell.InstanceQuery{Tags: []string{"red", "blue"}}, []string{"a"}},
		"any tag":         {cell.InstanceQuery{AnyTags: []string{"blue", "red"}}, []string{"a", "b"}},
		"not all tags":    {cell.InstanceQuery{NotTags: []string{"red", "blue"}}, []string{"b", "x"}},
		"not any tag":     {cell.InstanceQuery{NotAnyTags: []string{"blue", "green"}}, []string{"b", "x"}},
		"since":           {cell.InstanceQuery{Deleted: cell.Everything, ChangedSince: past}, []string{"a", "b", "c", "d"}},
		"since later":     {cell.InstanceQuery{Deleted: cell.Everything, ChangedSince: future}, []string{}},
		"before":          {cell.InstanceQuery{Deleted: cell.Everything, ChangedBefore: past}, []string{}},
		"hidden":          {cell.InstanceQuery{Hidden: true}, []string{}},
	} {
		if diff := cmp.Diff(c.want, names(t, s, c.q)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestListRefuses(t *testing.T) {
	s := populated(t)
	for name, c := range map[string]struct {
		q    cell.InstanceQuery
		want error
	}{
		"field":   {cell.InstanceQuery{Match: map[string][]any{"id; DROP TABLE instances": {1}}}, errdefs.ErrInvalid},
		"object":  {cell.InstanceQuery{Match: map[string][]any{"flavor": {"x"}}}, errdefs.ErrInvalid},
		"map":     {cell.InstanceQuery{Sort: []cell.SortKey{{Field: "metadata"}}}, errdefs.ErrInvalid},
		"sort":    {cell.InstanceQuery{Sort: []cell.SortKey{{Field: "nothing"}}}, errdefs.ErrInvalid},
		"pattern": {cell.InstanceQuery{Regexp: map[string]string{"display_name": "("}}, errdefs.ErrInvalid},
		"column":  {cell.InstanceQuery{Regexp: map[string]string{"nothing": "x"}}, errdefs.ErrInvalid},
		"marker":  {cell.InstanceQuery{Marker: "absent"}, errdefs.ErrNotFound},
	} {
		if _, err := s.ListInstances(t.Context(), c.q); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPages reads all instances in pages of two, in several orders; each must
// come once and in the order of the whole list.
func TestPages(t *testing.T) {
	s := populated(t)
	for n := range 4 {
		create(t, s, building("p", fmt.Sprintf("n%d", n)))
	}
	for name, keys := range map[string][]cell.SortKey{
		"newest":        nil,
		"name":          {{Field: "display_name"}},
		"name down":     {{Field: "display_name", Descending: true}},
		"nulls first":   {{Field: "host"}},
		"nulls last":    {{Field: "host", Descending: true}},
		"in json":       {{Field: "locked", Descending: true}, {Field: "key_name"}},
		"two keys":      {{Field: "vm_state", Descending: true}, {Field: "project_id"}},
		"equal numbers": {{Field: "power_state"}, {Field: "id", Descending: true}},
	} {
		whole, err := s.ListInstances(t.Context(), cell.InstanceQuery{Sort: keys})
		if err != nil {
			t.Fatal(err)
		}
		var pages []string
		marker := ""
		for {
			page, err := s.ListInstances(t.Context(), cell.InstanceQuery{Sort: keys, Marker: marker, Limit: 2})
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			for _, i := range page {
				marker = i.UUID()
				pages = append(pages, marker)
			}
			if len(pages) > len(whole) {
				break
			}
		}
		var want []string
		for _, i := range whole {
			want = append(want, i.UUID())
		}
		if !slices.Equal(pages, want) {
			t.Errorf("%s: pages %v, whole %v", name, pages, want)
		}
	}
}

func TestUsageAndAdmission(t *testing.T) {
	s := populated(t)
	if u, err := s.Usage(t.Context(), "p", ""); err != nil || u != (cell.Usage{Instances: 2, VCPUs: 2, MemoryMB: 128}) {
		t.Errorf("usage: %+v %v", u, err)
	}
	if u, err := s.Usage(t.Context(), "p", "nobody"); err != nil || u != (cell.Usage{}) {
		t.Errorf("usage of nobody: %+v %v", u, err)
	}
	full := errors.New("full")
	_, err := s.CreateInstances(t.Context(), cell.Create{
		Instances: []cell.NewInstance{{Instance: building("p", "late")}}, Action: cell.Actor{ProjectID: "p", UserID: "u"},
		Admit: func(project, user cell.Usage) error {
			if project.Instances != 2 || user.Instances != 2 {
				t.Errorf("admission sees %+v %+v", project, user)
			}
			return full
		},
	})
	if !errors.Is(err, full) || slices.Contains(names(t, s, cell.InstanceQuery{}), "late") {
		t.Errorf("refused: %v", err)
	}
}

// many makes n instances with the weight of true ones.
func many(tb testing.TB, s *cell.Store, n int) {
	tb.Helper()
	var c cell.Create
	for i := range n {
		one := building("p", fmt.Sprintf("server-%d", i))
		one.Set("system_metadata", map[string]string{"image_min_ram": "0", "image_min_disk": "1", "image_disk_format": "raw", "owner_user_name": "demo"})
		one.Set("user_data", "IyEvYmluL3NoCmVjaG8gaGkK")
		c.Instances = append(c.Instances, cell.NewInstance{Instance: one})
	}
	if _, err := s.CreateInstances(tb.Context(), c); err != nil {
		tb.Fatal(err)
	}
}

func TestListOfAThousand(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cell.db")
	s, err := cell.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	many(t, s, 1000)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	for range 2 { // decoded, then remembered
		l, err := s.ListInstances(t.Context(), cell.InstanceQuery{Match: map[string][]any{"project_id": {"p"}}, Limit: 1000})
		if err != nil || len(l) != 1000 {
			t.Fatalf("%d, %v", len(l), err)
		}
		for n, i := range l {
			if i.DisplayName() != fmt.Sprintf("server-%d", 999-n) || i.Flavor().FlavorName() != "tiny" {
				t.Fatalf("at %d: %v", n, i.Object)
			}
		}
	}
}

func BenchmarkListOfAThousand(b *testing.B) {
	for _, cold := range []bool{false, true} {
		b.Run(fmt.Sprintf("cold=%v", cold), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "cell.db")
			s, err := cell.Open(b.Context(), path)
			if err != nil {
				b.Fatal(err)
			}
			many(b, s, 1000)
			for b.Loop() {
				if cold {
					b.StopTimer()
					if err := s.Close(); err != nil {
						b.Fatal(err)
					}
					if s, err = cell.Open(b.Context(), path); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
				l, err := s.ListInstances(b.Context(), cell.InstanceQuery{Match: map[string][]any{"project_id": {"p"}}, Limit: 1000})
				if err != nil || len(l) != 1000 {
					b.Fatal(len(l), err)
				}
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

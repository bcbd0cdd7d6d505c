package glance_test

import (
	"slices"
	"testing"

	"github.com/gantry-project/gantry/glance"
)

func TestList(t *testing.T) {
	w := newWorld(t, glance.Options{})
	var ids []string
	for range 7 { // more than two pages
		ids = append(ids, w.Add([]byte("x"), map[string]any{"name": "app", "of": "me"}))
	}
	other := w.Add([]byte("x"), map[string]any{"name": "other"})
	w.Add([]byte("x"), map[string]any{"name": "app", "visibility": "private", "owner": "somebody"})
	queued := w.Add(nil, map[string]any{"name": "app", "status": "queued"})
	if err := w.client.Update(t.Context(), w.user, ids[0], glance.Patch{Hide: true}); err != nil {
		t.Fatal(err)
	}
	list := func(f glance.Filter) (out []string) {
		t.Helper()
		images, err := w.client.List(t.Context(), w.user, f)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range images {
			out = append(out, i.ID)
		}
		slices.Sort(out)
		return out
	}
	shown := ids[1:]
	slices.Sort(shown)
	all := append(slices.Clone(shown), other, queued)
	slices.Sort(all)
	for _, c := range []struct {
		filter glance.Filter
		want   []string
	}{
		{glance.Filter{}, all},
		{glance.Filter{Name: "other"}, []string{other}},
		{glance.Filter{Name: "app", Status: glance.StatusActive}, shown},
		{glance.Filter{Properties: map[string]string{"of": "me"}}, shown},
		{glance.Filter{Name: "none"}, nil},
	} {
		if got := list(c.filter); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.filter, got, c.want)
		}
	}
}

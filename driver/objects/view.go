package objects

import (
	"fmt"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// A view is a struct that embeds *Object and names the fields that gantry
// uses. It adds no state: copying it copies the reference, it marshals as the
// object, and a zero view is the absent object, whose fields all read as
// empty. Decoding into a view refuses another object's primitive
// (errdefs.ErrInvalid) and another major version (*VersionError).

// read decodes a primitive of the named object; JSON's null leaves *into alone.
func read(raw []byte, name string, into **Object) error {
	if string(raw) == "null" {
		return nil
	}
	o := &Object{}
	if err := o.UnmarshalJSON(raw); err != nil {
		return err
	}
	if err := is(o, name); err != nil {
		return err
	}
	*into = o
	return nil
}

// is checks that o is a readable object of that name.
func is(o *Object, name string) error {
	if o == nil || o.Name != name {
		got := "nothing"
		if o != nil {
			got = o.Name
		}
		return fmt.Errorf("expected a %s object and got %s: %w", name, got, errdefs.ErrInvalid)
	}
	return Check(o)
}

// listOf makes a list object of the given elements, marked as Nova's
// serialiser marks it.
func listOf(name string, elements []*Object) *Object {
	o := New(name)
	o.Set("objects", elements)
	return o
}

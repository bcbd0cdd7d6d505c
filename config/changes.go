package config

import "reflect"

// Changes names the options, SECTION.KEY, whose values differ from those of
// other, in the order of the struct.
func (c *Config) Changes(other *Config) []string {
	var names []string
	theirs := fieldsOf(other)
	for i, f := range fieldsOf(c) {
		if !reflect.DeepEqual(f.value.Interface(), theirs[i].value.Interface()) {
			names = append(names, f.section+"."+f.key)
		}
	}
	return names
}

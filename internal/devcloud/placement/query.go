package placement

import (
	"slices"
	"strconv"
	"strings"

	"github.com/gantry-project/gantry/internal/devcloud/lazyregexp"
)

// group is one group of a query: what is wanted of whom.
type group struct {
	suffix    string
	resources resources
	// required: of each list, one trait; forbidden: none of them.
	required  [][]string
	forbidden []string
	// memberOf: of each list, one aggregate; notMemberOf: none of them.
	memberOf    [][]string
	notMemberOf []string
	inTree      string
}

// group reads the parameters with that suffix.
func (o operation) group(suffix string) (g group, err error) {
	q := o.Params()
	g = group{suffix: suffix, resources: resources{}}
	if q.Has("resources" + suffix) {
		if g.resources, err = o.wanted(q.Get("resources" + suffix)); err != nil {
			return g, err
		}
	}
	for _, text := range q["required"+suffix] {
		if err := g.addTraits(o, text); err != nil {
			return g, err
		}
	}
	for _, text := range q["member_of"+suffix] {
		if err := g.addAggregates(text); err != nil {
			return g, err
		}
	}
	if q.Has("in_tree" + suffix) {
		if g.inTree, err = canonical(q.Get("in_tree" + suffix)); err != nil {
			return g, badRequest("Expected 'in_tree%s' parameter to be a format of uuid. Got: %s", suffix, g.inTree)
		}
	}
	return g, nil
}

// wanted reads "VCPU:2,MEMORY_MB:64".
func (o operation) wanted(text string) (resources, error) {
	all := resources{}
	for part := range strings.SplitSeq(text, ",") {
		class, amount, _ := strings.Cut(part, ":")
		n, err := strconv.ParseInt(amount, 10, 32)
		if err != nil {
			return nil, badRequest("Badly formed resources parameter. Expected resources query string parameter in form: ?resources=VCPU:2,MEMORY_MB:1024. Got: %s.", text)
		}
		if n < 1 {
			return nil, badRequest("Requested resource %s requires a positive amount; got %d.", class, n)
		}
		all[class] = n
	}
	var names []string
	for class := range all {
		names = append(names, class)
	}
	if missing, err := o.unknownClasses(names); err != nil {
		return nil, err
	} else if len(missing) > 0 {
		return nil, badRequest("Invalid resource class in resources parameter: No such resource class %s.", missing[0])
	}
	return all, nil
}

// addTraits reads "A,!B", and from 1.39 on "in:A,B".
func (g *group) addTraits(o operation, text string) error {
	var all []string
	if list, any := strings.CutPrefix(text, "in:"); any && o.Version.AtLeast(1, 39) {
		all = strings.Split(list, ",")
		g.required = append(g.required, all)
	} else {
		for t := range strings.SplitSeq(text, ",") {
			name, not := strings.CutPrefix(t, "!")
			all = append(all, name)
			if not && o.Version.AtLeast(1, 22) {
				g.forbidden = append(g.forbidden, name)
			} else {
				g.required = append(g.required, []string{t})
			}
		}
	}
	for _, t := range all {
		if !plain(t) {
			return badRequest("Invalid query string parameters: Expected 'required%s' parameter value of the form: HW_CPU_X86_VMX,!CUSTOM_MAGIC. Got: %s", g.suffix, text)
		}
	}
	if missing, err := o.unknownTraits(all); err != nil {
		return err
	} else if len(missing) > 0 {
		return badRequest("No such trait(s): %s.", joined(missing))
	}
	return nil
}

// addAggregates reads "UUID", "in:UUID,UUID" and both with "!" before them.
func (g *group) addAggregates(text string) error {
	list, not := strings.CutPrefix(text, "!")
	list, _ = strings.CutPrefix(list, "in:")
	ids := strings.Split(list, ",")
	for i, id := range ids {
		var err error
		if ids[i], err = canonical(id); err != nil {
			return badRequest("Expected 'member_of' parameter to contain valid UUID(s). Got: %s", id)
		}
	}
	if not {
		g.notMemberOf = append(g.notMemberOf, ids...)
	} else {
		g.memberOf = append(g.memberOf, ids)
	}
	return nil
}

var suffixed = lazyregexp.New(`^(resources|required|member_of|in_tree)([a-zA-Z0-9_-]{1,64})?$`)

// groups reads those of a query, the one without a suffix first, in the order of
// their suffixes.
func (o operation) groups() ([]group, error) {
	var suffixes []string
	for k := range o.Params() {
		if m := suffixed.FindStringSubmatch(k); m != nil && !slices.Contains(suffixes, m[2]) && k != "member_of" && k != "in_tree" {
			if m[2] != "" && !o.Version.AtLeast(1, 25) {
				return nil, badRequest("Invalid query string parameters: Additional properties are not allowed ('%s' was unexpected)", k)
			}
			suffixes = append(suffixes, m[2])
		}
	}
	slices.Sort(suffixes)
	var all []group
	for _, s := range suffixes {
		g, err := o.group(s)
		if err != nil {
			return nil, err
		}
		if len(g.resources) == 0 && (s == "" || !o.Version.AtLeast(1, 36)) {
			return nil, badRequest("All traits parameters must be associated with resources. Found the following orphaned trait keys: required%s", s)
		}
		all = append(all, g)
	}
	if len(all) == 0 {
		return nil, badRequest("At least one request group (`resources` or `resources{$S}`) is required.")
	}
	return all, nil
}

func joined(list []string) string { return strings.Join(list, ", ") }

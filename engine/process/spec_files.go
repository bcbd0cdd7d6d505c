package process

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// PassedFiles says which fields of a Spec the files of TakeFiles belong to, in
// the order of its own fields. It crosses a socket as JSON beside them.
type PassedFiles struct {
	Cgroup          int     `json:",omitempty"`
	Stdio           [3]bool `json:",omitempty"`
	Preserve        int     `json:",omitempty"`
	ConsoleSocket   bool    `json:",omitempty"`
	Gate            bool    `json:",omitempty"`
	SeccompListener bool    `json:",omitempty"`
	CgroupDir       bool    `json:",omitempty"`
	Root            bool    `json:",omitempty"`
	// Namespaces are the kinds of those that are given by a file.
	Namespaces []NamespaceKind `json:",omitempty"`
	// State is the object that Hooks.State makes, without status and pid.
	State json.RawMessage `json:",omitempty"`
}

// TakeFiles moves what cannot be written as JSON out of s: it returns all open
// files, sets their fields to nil and notes in s.Passed where they were, so
// that SetFiles on the decoded Spec of another process restores them. The files
// stay the caller's to close. Hooks.State becomes data: it must make a JSON
// object whose members but "status" and "pid" are always the same
// (runtime-spec, runtime.md, State). Call it on a copy of a Spec.
func (s *Spec) TakeFiles() []*os.File {
	p := &PassedFiles{Cgroup: len(s.CgroupFiles), Preserve: len(s.Preserve)}
	files := append([]*os.File{}, s.CgroupFiles...)
	for i, f := range s.Stdio {
		if f != nil {
			p.Stdio[i], files = true, append(files, f)
		}
	}
	files = append(files, s.Preserve...)
	for _, one := range []struct {
		file *os.File
		has  *bool
	}{{s.ConsoleSocket, &p.ConsoleSocket}, {s.Gate, &p.Gate}, {s.SeccompListener, &p.SeccompListener}, {s.CgroupDir, &p.CgroupDir}, {s.Root, &p.Root}} {
		if one.file != nil {
			*one.has, files = true, append(files, one.file)
		}
	}
	s.Namespaces = slices.Clone(s.Namespaces)
	for i := range s.Namespaces {
		if n := &s.Namespaces[i]; n.File != nil {
			p.Namespaces, files = append(p.Namespaces, n.Kind), append(files, n.File)
			n.File = nil
		}
	}
	if s.Hooks.State != nil {
		p.State = s.Hooks.State("", 0)
	}
	s.CgroupFiles, s.Stdio, s.Preserve = nil, [3]*os.File{}, nil
	s.ConsoleSocket, s.Gate, s.SeccompListener, s.CgroupDir, s.Root, s.Hooks.State = nil, nil, nil, nil, nil, nil
	s.Passed = p
	return files
}

// SetFiles puts files into the fields that s.Passed names and clears it. Files
// that do not fit it are errdefs.ErrInvalid and stay untouched; without
// s.Passed there must be none.
func (s *Spec) SetFiles(files []*os.File) error {
	p := s.Passed
	if p == nil {
		p = &PassedFiles{}
	}
	count := len(p.Namespaces)
	for _, one := range []bool{p.Stdio[0], p.Stdio[1], p.Stdio[2], p.ConsoleSocket, p.Gate, p.SeccompListener, p.CgroupDir, p.Root} {
		if one {
			count++
		}
	}
	// each by itself first: a sum may overflow
	if p.Cgroup < 0 || p.Preserve < 0 || p.Cgroup > len(files) || p.Preserve > len(files) || count+p.Cgroup+p.Preserve != len(files) {
		return fmt.Errorf("process spec: %d files do not fit %+v: %w", len(files), *p, errdefs.ErrInvalid)
	}
	for i, kind := range p.Namespaces {
		if n, ok := s.namespace(kind); !ok || n.Path != "" || slices.Contains(p.Namespaces[:i], kind) {
			return fmt.Errorf("process spec: a file for %.32q, which is no namespace to be joined by one: %w", kind, errdefs.ErrInvalid)
		}
	}
	if len(p.State) > 0 {
		state, err := stateFunc(p.State)
		if err != nil {
			return err
		}
		s.Hooks.State = state
	}
	next := func(n int) (list []*os.File) {
		if n > 0 {
			list, files = files[:n:n], files[n:]
		}
		return list
	}
	one := func(has bool) *os.File {
		if !has {
			return nil
		}
		return next(1)[0]
	}
	s.CgroupFiles = next(p.Cgroup)
	for i := range s.Stdio {
		s.Stdio[i] = one(p.Stdio[i])
	}
	s.Preserve = next(p.Preserve)
	s.ConsoleSocket, s.Gate, s.SeccompListener = one(p.ConsoleSocket), one(p.Gate), one(p.SeccompListener)
	s.CgroupDir, s.Root = one(p.CgroupDir), one(p.Root)
	for _, kind := range p.Namespaces {
		i := slices.IndexFunc(s.Namespaces, func(n Namespace) bool { return n.Kind == kind })
		s.Namespaces[i].File = next(1)[0]
	}
	s.Passed = nil
	return nil
}

// stateFunc is Hooks.State of an object without status and pid.
func stateFunc(object json.RawMessage) (func(status string, pid int) []byte, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(object, &members); err != nil || members == nil {
		return nil, fmt.Errorf("process spec: state of hooks is no JSON object: %w", errdefs.ErrInvalid)
	}
	return func(status string, pid int) []byte {
		return withMembers(members, map[string]json.RawMessage{
			"status": json.RawMessage(strconv.Quote(status)), "pid": json.RawMessage(strconv.Itoa(pid)),
		})
	}, nil
}

// withMembers writes an object with some members replaced.
func withMembers(object, changes map[string]json.RawMessage) []byte {
	all := make(map[string]json.RawMessage, len(object)+len(changes))
	for _, members := range []map[string]json.RawMessage{object, changes} {
		for name, value := range members {
			all[name] = value
		}
	}
	text, err := json.Marshal(all)
	if err != nil { // members were valid JSON when they were decoded
		return nil
	}
	return text
}

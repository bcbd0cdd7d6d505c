//go:build linux

package cgroup

import (
	"errors"
	"path/filepath"
)

// RemoveTree removes all of a tree of a test; groups with processes fail.
func RemoveTree(t Tree) error {
	var errs []error
	for _, n := range t.(*tree).nodes {
		errs = append(errs, removeTree(n.dir))
	}
	return errors.Join(errs...)
}

// Directories of a group in the hierarchies in which it exists.
func Directories(t Tree, name string) []string {
	var out []string
	for _, n := range t.(*tree).nodes {
		if exists(n.dir, name) {
			out = append(out, filepath.Join(n.dir, name))
		}
	}
	return out
}

// File reads a file of a group wherever it is.
func File(t Tree, name, file string) (string, bool) {
	for _, n := range t.(*tree).nodes {
		if s, err := readFile(filepath.Join(n.dir, name), file); err == nil {
			return s, true
		}
	}
	return "", false
}

// RemoveBelow removes a directory, and all groups below, from each hierarchy.
func RemoveBelow(t Tree, path string) error {
	var errs []error
	for _, n := range t.(*tree).nodes {
		errs = append(errs, removeTree(filepath.Join(n.Path, path)))
	}
	return errors.Join(errs...)
}

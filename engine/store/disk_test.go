package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/engine/store/storetest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// small is a file system of the size (tmpfs(5), size=).
func small(t *testing.T, size string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "disk")
	check(t, os.Mkdir(dir, 0o700))
	check(t, unix.Mount("none", dir, "tmpfs", 0, "size="+size))
	t.Cleanup(func() { check(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// fill takes all room that is left and returns what gives it back.
func fill(t *testing.T, dir string) func() {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
	check(t, err)
	block := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	check(t, f.Close())
	return func() { check(t, os.Remove(name)) }
}

// TestAFullDiskLosesNothing writes until the disk is full, at each of many
// fillings: what was acknowledged is there, and it goes on when there is room.
func TestAFullDiskLosesNothing(t *testing.T) {
	dir := small(t, "1m")
	file := filepath.Join(dir, "store.db")
	s := open(t, file)
	there := 0
	wants := func() {
		t.Helper()
		list, err := s.Containers(t.Context())
		if err != nil || len(list) != there {
			t.Fatalf("%d containers, want %d: %v", len(list), there, err)
		}
		if bad, err := s.Damaged(t.Context()); err != nil || len(bad) != 0 {
			t.Fatal(bad, err)
		}
	}
	for round := range 10 {
		room := fill(t, dir)
		var err error
		for err == nil {
			if err = s.PutContainer(t.Context(), storetest.Container(fmt.Sprintf("c%06d", there))); err == nil {
				there++
			}
		}
		if !errors.Is(err, errdefs.ErrExhausted) {
			t.Fatal(err)
		}
		wants()
		if round%2 == 0 { // as after a crash with the disk still full
			check(t, s.Close())
			s = open(t, file)
			wants()
		}
		room()
		check(t, s.PutContainer(t.Context(), storetest.Container(fmt.Sprintf("c%06d", there))))
		there++
	}
	if there < 15 {
		t.Errorf("only %d records fitted", there)
	}
	wants()
}

func TestAFullDiskAtTheFirstOpening(t *testing.T) {
	dir := small(t, "64k")
	defer fill(t, dir)()
	for _, name := range []string{"store.db", "deeper/store.db"} {
		if _, err := store.Open(filepath.Join(dir, name)); !errors.Is(err, errdefs.ErrExhausted) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := store.OpenLog(filepath.Join(dir, "journal"), "boot"); !errors.Is(err, errdefs.ErrExhausted) {
		t.Errorf("journal: %v", err)
	}
}

func TestAReadOnlyFileSystem(t *testing.T) {
	dir := small(t, "1m")
	file := filepath.Join(dir, "store.db")
	s := open(t, file)
	check(t, errors.Join(s.PutContainer(t.Context(), storetest.Container("c")), s.Close()))
	check(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	if _, err := store.Open(file); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("open: %v", err)
	}
	if _, err := store.Open(filepath.Join(dir, "new", "store.db")); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("make: %v", err)
	}
	r, err := store.OpenReadOnly(file)
	check(t, err)
	if list, err := r.Containers(t.Context()); err != nil || len(list) != 1 {
		t.Error(list, err)
	}
	check(t, r.Close())
}

// TestTornDatabases cuts the file off at, and zeroes, each of its pages: it is
// in order or refused, never a crash, and never changed by a refusal.
func TestTornDatabases(t *testing.T) {
	whole := filepath.Join(t.TempDir(), "store.db")
	s := open(t, whole)
	for i := range 40 {
		check(t, s.PutContainer(t.Context(), storetest.Container(fmt.Sprint("c", i))))
	}
	check(t, s.Close())
	good, err := os.ReadFile(whole)
	check(t, err)
	page := os.Getpagesize()
	refused := 0
	try := func(what string, data []byte) {
		t.Helper()
		name := filepath.Join(t.TempDir(), "store.db")
		check(t, os.WriteFile(name, data, 0o600))
		s, err := store.Open(name)
		if err == nil {
			list, err := s.Containers(t.Context())
			check(t, s.Close())
			if err != nil || len(list) != 40 && len(list) != 39 {
				t.Errorf("%s: opened with %d containers, %v", what, len(list), err)
			}
			return
		}
		refused++
		if !errors.Is(err, errdefs.ErrCorrupt) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", what, err)
		}
		if after, err := os.ReadFile(name); err != nil || !bytes.Equal(data, after) {
			t.Errorf("%s: the file was changed %v", what, err)
		}
	}
	for at := page; at < len(good); at += page {
		try(fmt.Sprintf("cut at %d", at), good[:at])
		try(fmt.Sprintf("cut after %d", at), good[:at+100])
		torn := bytes.Clone(good)
		clear(torn[at : at+page])
		try(fmt.Sprintf("zeroes at %d", at), torn)
	}
	if refused == 0 {
		t.Error("nothing was refused")
	}
}

package engine_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/snapshot/copydir"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// confined says what a container must find, whatever its image or a neighbour
// made of the places that are mounted. What it prints is confinedSays.
const (
	confined = `/bin/grep ^Seccomp: /proc/self/status; /bin/stat -f -c %T /proc; /bin/stat -c %t:%T /dev/null; ` +
		`for f in kcore keys timer_list; do n=$(/bin/stat -c %t:%T /proc/$f 2>/dev/null); case $n in 1:3|'') ;; *) echo bare $f $n; esac; done; ` +
		`test -e /proc/self/attr/secret && echo decoy; test -e /sys/kernel || echo no sysfs; echo told`
	confinedSays = "Seccomp:\t2\nproc\n1:3\ntold\n"
)

// TestSecurityMountPointsOfTheImage: RT-3, RT-4, RT-5. An image has something
// else where the engine mounts. The start fails with a typed error, or what it
// mounts is what the container sees.
func TestSecurityMountPointsOfTheImage(t *testing.T) {
	canary := hostCanary(t)
	up := strings.Repeat("../", 20) + canary[1:]
	_, e, done := hostile(t)
	defer done()
	base := hostileBase(t)
	layers := map[string][]entry{
		"nothing there":     nil,
		"dev to proc":       {link("dev", "/proc")},
		"dev to the host":   {link("dev", up)},
		"dev upwards":       {link("dev", "../../..")},
		"dev a file":        {file("dev", "")},
		"pts to etc":        {dir("dev"), link("dev/pts", "/etc")},
		"console to host":   {dir("dev"), link("dev/console", canary+"/secret")},
		"console a file":    {dir("dev"), file("dev/console", "")},
		"console a pipe":    {dir("dev"), {tarFifo("dev/console"), ""}},
		"null to a setting": {dir("dev"), link("dev/null", "/proc/sys/kernel/core_pattern"), link("dev/ptmx", up+"/secret")},
		"proc to the host":  {link("proc", canary)},
		"proc inside":       {dir("tmp/proc"), file("tmp/proc/decoy", ""), link("proc", "tmp/proc")},
		"proc a loop":       {link("proc", "proc")},
		"decoy in proc":     {dir("proc"), dir("proc/self"), dir("proc/self/attr"), file("proc/self/attr/secret", ""), link("proc/kcore", canary+"/secret")},
		"proc self is etc":  {dir("proc"), link("proc/self", "/etc")},
		"sys to the host":   {link("sys", up)},
		"sys to proc":       {link("sys", "/proc/self/cwd")},
		"sys a pipe":        {{tarFifo("sys"), ""}},
		"cgroup to host":    {dir("sys"), dir("sys/fs"), link("sys/fs/cgroup", canary)},
		"etc to the host":   {link("tmp/x", canary), link("etc2", canary)},
	}
	started := 0
	for name, layer := range layers {
		check(t, importOCI(t, e, "image", archive(t, base, tarball(t, append(layer, file("marker", name))...))))
		check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "image", Limits: limits}))
		err := e.Start(t.Context(), "c", engine.StartRequest{Args: sh(confined + "; " + forever), Env: []string{"PATH=/bin"}, ConsoleBytes: 1 << 16})
		switch {
		case err == nil:
			started++
			if out := console(t, e, "c", "told\n"); out != confinedSays {
				t.Errorf("%s: started and found\n%s", name, out)
			}
		case !errors.Is(err, errdefs.ErrInvalid) || errdefs.PublicText(err, "") == "" || strings.Contains(errdefs.PublicText(err, ""), canary):
			t.Errorf("%s: %v (%q)", name, err, errdefs.PublicText(err, ""))
		}
		check(t, errors.Join(e.Delete(t.Context(), "c"), e.RemoveImage(t.Context(), "image")))
	}
	if started == 0 || started == len(layers) {
		t.Errorf("%d of %d started", started, len(layers))
	}
}

// TestSecuritySwappedMountPoints: RT-3, RT-5, RT-6, CVE-2021-30465. While a
// container starts, the places that are mounted and the parent of a file that is
// written are exchanged for links to the host.
func TestSecuritySwappedMountPoints(t *testing.T) {
	canary := hostCanary(t)
	// whose disks have a path and let directories of the image be renamed
	h, e, done := hostileOn(t, func(ctx context.Context, root string) (snapshot.Snapshotter, error) {
		return copydir.Open(ctx, root, copydir.Options{})
	})
	defer done()
	script(t, e, forever, limits) // makes the places
	root := filepath.Join(h.Root, "snapshots/active/c/fs")
	places := []string{"proc", "sys", "dev", "inject"}
	if out, _ := execOutput(t, e, engine.ExecRequest{Args: sh("/bin/mkdir /inject && for n in proc sys dev inject; do /bin/ln -s " + canary + " /link-$n; done")}); out != "" {
		t.Fatal(out)
	}
	check(t, e.Stop(t.Context(), "c", engine.StopRequest{}))
	started, failed := 0, 0
	for _, name := range places {
		stop := exchange(filepath.Join(root, name), filepath.Join(root, "link-"+name))
		for range 15 {
			err := e.Start(t.Context(), "c", engine.StartRequest{
				Args: sh(confined), Env: []string{"PATH=/bin"}, ConsoleBytes: 1 << 16,
				Files: []process.File{{Path: "/inject/new", Data: []byte("x"), Mode: 0o666}},
			})
			if err != nil {
				failed++
				if !errors.Is(err, errdefs.ErrInvalid) {
					t.Errorf("start: %v", err)
				}
				continue
			}
			started++
			_, err = e.Wait(t.Context(), "c")
			check(t, errors.Join(err, e.Stop(t.Context(), "c", engine.StopRequest{})))
		}
		if stop() == 0 {
			t.Errorf("%s was never exchanged", name)
		}
	}
	out, err := e.Console(t.Context(), "c", -1)
	check(t, err)
	// the exchange goes on: a place may be a link by now that leads nowhere
	for line := range strings.Lines(string(out)) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		if word == "decoy" || strings.HasPrefix(word, "bare ") || word == "Seccomp" && rest != "\t2" || word == "1" && rest != "3" {
			t.Errorf("somebody found %q", line)
		}
	}
	if n := strings.Count(string(out), "told\n"); n != started {
		t.Errorf("%d of %d starts told, %d were refused", n, started, failed)
	}
	t.Logf("%d starts, %d refusals", started, failed)
}

// exchange swaps two names until stop is called, which tells how often; they need
// not be there always.
func exchange(a, b string) (stop func() int) {
	end, n := make(chan struct{}), 0
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(100 * time.Microsecond) // a start is some milliseconds
		defer tick.Stop()
		for {
			select {
			case <-end:
				return
			case <-tick.C:
				if unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE) == nil {
					n++
				}
			}
		}
	})
	return func() int {
		close(end)
		wg.Wait()
		return n
	}
}

// TestSecurityCopiesDuringASwap: RT-12, CVE-2018-15664. A process of the
// container exchanges a directory for a link to "/" while files are copied.
func TestSecurityCopiesDuringASwap(t *testing.T) {
	canary := hostCanary(t)
	_, e, done := hostile(t)
	defer done()
	name := filepath.Base(canary)
	script(t, e, "cd /tmp; /bin/mkdir d; echo inside >d/secret; /bin/ln -s "+filepath.Dir(canary)+"/"+name+" l; echo ready; /bin/probe swap /tmp/d /tmp/l /tmp/stop; "+forever, limits)
	console(t, e, "c", "ready")
	secret, err := os.ReadFile(filepath.Join(canary, "secret"))
	check(t, err)
	for range 200 {
		for _, path := range []string{"/tmp/d/secret", "/tmp/d", "/tmp"} {
			r, err := e.CopyOut(t.Context(), "c", engine.CopyRequest{Path: path})
			check(t, err)
			var b bytes.Buffer
			_, _ = b.ReadFrom(r) // fails, or has what is inside
			check(t, r.Close())
			if bytes.Contains(b.Bytes(), secret) {
				t.Fatalf("%s: the host's file was read", path)
			}
		}
		_, _ = e.CopyIn(t.Context(), "c", engine.CopyRequest{Path: "/tmp/d"}, tarOf(t, map[string]string{"new": "x", "secret": "inside"})) // fails or lands inside
	}
}

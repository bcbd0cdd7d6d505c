package coredump

import (
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// sleeper is a stopped process with the text in its environment.
func sleeper(t *testing.T, text string) int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sleep", "1000")
	cmd.Env = []string{"SECRET=" + text}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if err := cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

func core(t *testing.T, pid int, limit int64) (Result, string) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "core"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	res, err := Write(t.Context(), f, pid, limit)
	if err != nil {
		t.Fatal(err)
	}
	return res, f.Name()
}

// A core is an ELF file with a status of each thread and the memory of the
// process; the process lives on.
func TestWrite(t *testing.T) {
	const text = "what only this process knows"
	pid := sleeper(t, text)
	res, name := core(t, pid, 1<<30)
	f, err := elf.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Type != elf.ET_CORE || res.Bytes == 0 || res.Missing != 0 {
		t.Errorf("type %s, %+v", f.Type, res)
	}
	found, loads := false, 0
	for _, p := range f.Progs {
		data, err := io.ReadAll(p.Open())
		if err != nil || uint64(len(data)) != p.Filesz {
			t.Errorf("%s at %#x: %d of %d bytes, %v", p.Type, p.Vaddr, len(data), p.Filesz, err)
		}
		switch p.Type {
		case elf.PT_LOAD:
			loads++
			found = found || bytes.Contains(data, []byte(text))
		case elf.PT_NOTE:
			if !bytes.Contains(data, []byte("CORE\x00")) || !bytes.Contains(data, []byte("/bin/sleep 1000")) || !bytes.Contains(data, []byte("bin/sleep\x00")) {
				t.Errorf("notes %q", data)
			}
		}
	}
	if !found || loads < 5 {
		t.Errorf("%d mappings, the text is in them: %t", loads, found)
	}
	if err := unix.Kill(pid, 0); err != nil {
		t.Errorf("the process: %v", err)
	}
}

// The limit bounds what is on the disk, and what is left out is told.
func TestLimit(t *testing.T) {
	pid := sleeper(t, "x")
	const limit = 8 << 10
	res, name := core(t, pid, limit)
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	if st.Blocks*512 > limit+8*page || res.Missing == 0 {
		t.Errorf("%d bytes on the disk, %+v", st.Blocks*512, res)
	}
	if f, err := elf.Open(name); err != nil {
		t.Error(err)
	} else {
		f.Close()
	}
}

func TestAbsent(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "core"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Write(t.Context(), f, 1<<22+1, 1<<20); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

func FuzzMaps(f *testing.F) {
	own, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(own))
	f.Add("1-0 r--p 0 0:0 0\n")
	f.Add("0-1000 rw-p 0 0:0 0 /a b c\n")
	f.Fuzz(func(t *testing.T, text string) {
		maps, err := parseMaps(text)
		if err != nil && !errors.Is(err, errdefs.ErrInvalid) && !errors.Is(err, errdefs.ErrUnsupported) {
			t.Errorf("%v", err)
		}
		p := process{maps: maps, threads: []thread{{}}}
		p.notes()
		for _, m := range maps {
			m.dumped(strings.NewReader(""))
		}
	})
}

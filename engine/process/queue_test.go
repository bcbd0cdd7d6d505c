package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/internal/errdefs"
	"golang.org/x/sys/unix"
)

func testQueue(t *testing.T) *queue {
	t.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeFds(ends[:]...) })
	return newQueue(ends[0], ends[1])
}

// again is the queue as the next process sees it.
func (q *queue) again() *queue { return newQueue(q.in, q.out) }

func drain(t *testing.T, q *queue) (map[string]*found, []error) {
	t.Helper()
	var damaged []error
	all, err := q.drain(func(err error) { damaged = append(damaged, err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, f := range all {
			closeFds(f.fds...)
		}
	})
	return all, damaged
}

// openBelow counts the open files below dir.
func openBelow(t *testing.T, dir string) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range list {
		if name, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(name, dir+"/") {
			n++
		}
	}
	return n
}

func TestQueueKeepsManyWithTheirFiles(t *testing.T) {
	q := testQueue(t)
	const n = 500
	dir := t.TempDir()
	for i := range n {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		if err := q.put(&parked{ID: fmt.Sprint(i), Slot: i}, int(f.Fd()), int(f.Fd())); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	if left := openBelow(t, dir); left != 0 {
		t.Errorf("%d open files", left)
	}
	for range 3 { // nobody takes anything out
		all, damaged := drain(t, q.again())
		if len(all) != n || len(damaged) != 0 {
			t.Fatalf("%d records, %v", len(all), damaged)
		}
		for id, f := range all {
			name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.fds[1]))
			if err != nil || filepath.Base(name) != id || fmt.Sprint(f.Slot) != id || len(f.fds) != 2 {
				t.Fatalf("%s: %+v is %s, %v", id, f, name, err)
			}
			closeFds(f.fds...)
			f.fds = nil
		}
	}
}

func TestNewestRecordCounts(t *testing.T) {
	q := testQueue(t)
	put := func(id string, slot int) {
		t.Helper()
		if err := q.put(&parked{ID: id, Slot: slot}); err != nil {
			t.Fatal(err)
		}
	}
	put("a", 1)
	put("b", 1)
	put("a", 2)
	q = q.again()
	if all, _ := drain(t, q); len(all) != 2 || all["a"].Slot != 2 || all["b"].Slot != 1 {
		t.Errorf("%v", all)
	}
	put("b", 2) // numbered behind the records of before
	q = q.again()
	if all, _ := drain(t, q); len(all) != 2 || all["b"].Slot != 2 {
		t.Errorf("%v", all)
	}
}

// A process that is killed while it drains or compacts leaves copies, in any
// order, and marks.
func TestQueueAfterACutOffRound(t *testing.T) {
	q := testQueue(t)
	for i := range 5 {
		if err := q.put(&parked{ID: fmt.Sprint(i), Slot: i}); err != nil {
			t.Fatal(err)
		}
	}
	// what drain does up to a kill, by hand
	if err := q.send([]byte(`{"version":1,"end":true,"seq":77}`), nil); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, maxParked)
	for range 3 {
		n, _, err := q.peek(buf)
		if err == nil {
			err = q.send(buf[:n], nil)
		}
		if err == nil {
			err = q.pop()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	n, _, err := q.peek(buf)
	if err != nil || q.send(buf[:n], nil) != nil { // the copy is in, the first not out
		t.Fatal(err)
	}
	q = q.again()
	if all, damaged := drain(t, q); len(all) != 5 || len(damaged) != 0 || all["3"].Slot != 3 {
		t.Errorf("%v, %v", all, damaged)
	}
	if q.count != 5 {
		t.Errorf("%d messages", q.count)
	}
}

func TestDamagedRecordsAreDropped(t *testing.T) {
	q := testQueue(t)
	dir := t.TempDir()
	file, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if err := q.put(&parked{ID: "good"}, int(file.Fd())); err != nil {
		t.Fatal(err)
	}
	bad := []string{"", "{", "null", `{"version":1}`, `{"version":99,"id":"x"}`, `[1,2]`, string(make([]byte, maxParked))}
	for _, body := range bad[1:] {
		if err := q.send([]byte(body), []int{int(file.Fd()), int(file.Fd())}); err != nil {
			t.Fatal(err)
		}
	}
	q = q.again()
	all, damaged := drain(t, q)
	if len(all) != 1 || len(all["good"].fds) != 1 || len(damaged) != len(bad)-1 || q.count != 1 {
		t.Errorf("%v, %v, %d left", all, damaged, q.count)
	}
	for _, err := range damaged {
		if !errors.Is(err, errdefs.ErrCorrupt) && !errors.Is(err, errdefs.ErrUnsupported) {
			t.Errorf("%v", err)
		}
	}
	if n := openBelow(t, dir); n != 2 { // the test's own, and that of the good one
		t.Errorf("%d open files", n)
	}
}

func TestCompact(t *testing.T) {
	q := testQueue(t)
	live := &parked{ID: "live"}
	for range 200 {
		if err := q.put(live); err != nil {
			t.Fatal(err)
		}
	}
	if !q.crowded(1) {
		t.Error("not crowded")
	}
	if err := q.compact(func() error { return q.put(live) }); err != nil || q.count != 1 || q.crowded(1) {
		t.Errorf("%d left, %v", q.count, err)
	}
	broken := errors.New("broken")
	if err := q.compact(func() error { return broken }); !errors.Is(err, broken) || q.count != 1 {
		t.Errorf("%d left, %v", q.count, err)
	}
	if err := q.put(&parked{ID: string(make([]byte, maxParked))}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("too long: %v", err)
	}
}

func FuzzParkedRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"seq":3,"id":"x","process":{"pid":1},"slot":-5,"exit":{}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		q := &queue{}
		all := map[string]*found{}
		keep, err := q.read(all, body, nil)
		if keep != (len(all) == 1) || keep && err != nil {
			t.Errorf("kept %t, %v, %v", keep, all, err)
		}
	})
}

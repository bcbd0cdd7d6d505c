package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// longLog is the length in bytes at which a Log is written anew with what is
// still open; it holds the beginnings and ends of some thousand operations.
const longLog = 256 << 10

// Log is a Journal in a file of lines that are only appended. It belongs to the
// owner of the store beside it.
type Log struct {
	name, boot string

	mu   sync.Mutex
	file *os.File          // guarded by mu; nil when closed
	size int64             // guarded by mu; of what is whole
	open map[string]Intent // guarded by mu
	// at is where the line that began an intent is; guarded by mu.
	at map[string]span
}

// span is a part of a file, in bytes.
type span struct{ from, length int64 }

var _ Journal = (*Log)(nil)

// line is one line of a Log, stored as a record is (record.go). The first says
// of which boot of the kernel the others are.
type line struct {
	Boot  string  `json:"boot,omitempty"`
	Begin *Intent `json:"begin,omitempty"`
	// End is the key of the intent that has ended.
	End string `json:"end,omitempty"`
}

// OpenLog opens or makes the journal at name; boot is the kernel's boot id.
// Intents of another boot are dropped. A last line that was cut off was never
// begun; a line that cannot be read ends the reading, and what follows is
// dropped: the records say what exists. errdefs.ErrUnsupported says that another
// version of gantry wrote it; then nothing has been changed.
func OpenLog(name, boot string) (*Log, error) {
	l := &Log{name: name, boot: boot}
	was, open, err := readLog(name)
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", name, err)
	}
	if was == boot {
		l.open = open
	} else {
		l.open = map[string]Intent{}
	}
	if err := l.rewrite(); err != nil {
		return nil, fmt.Errorf("open journal %s: %w", name, diskError(err))
	}
	return l, nil
}

// ReadLog returns the intents at name and the boot they are of, without a lock:
// of a journal whose owner is at work it is a moment's view. An absent file has
// none.
func ReadLog(name string) (boot string, open []Intent, err error) {
	boot, m, err := readLog(name)
	if err != nil {
		return "", nil, fmt.Errorf("read journal %s: %w", name, err)
	}
	return boot, slices.SortedFunc(maps.Values(m), byAge), nil
}

func readLog(name string) (string, map[string]Intent, error) {
	data, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", nil, diskError(err)
	}
	return parseLog(data)
}

func parseLog(data []byte) (boot string, open map[string]Intent, err error) {
	open = map[string]Intent{}
	for first := true; ; first = false {
		stored, rest, whole := bytes.Cut(data, []byte("\n"))
		data = rest
		if whole && len(bytes.TrimSpace(stored)) == 0 && !first {
			continue // blanked, see End
		}
		var l line
		if v := versionOf(stored); whole && v > recordVersion {
			return "", nil, fmt.Errorf("version %d, want %d: %w", v, recordVersion, errdefs.ErrUnsupported)
		}
		if !whole || decode(stored, &l) != nil || first != (l.Boot != "") {
			return boot, open, nil //nolint:nilerr // torn: the end of what counts
		}
		switch {
		case first:
			boot = l.Boot
		case l.Begin != nil:
			key, err := intentKey(l.Begin.Op, l.Begin.ID)
			if err != nil {
				return boot, open, nil //nolint:nilerr // not a line of ours: the end of what counts
			}
			open[key] = *l.Begin
		default:
			delete(open, l.End)
		}
	}
}

// rewrite replaces the file by one with what is open. The caller holds mu, or
// nobody else has l.
func (l *Log) rewrite() (err error) {
	text, err := encodeLine(line{Boot: l.boot})
	if err != nil {
		return err
	}
	at := map[string]span{}
	for key, in := range l.open {
		more, err := encodeLine(line{Begin: &in})
		if err != nil {
			return err
		}
		at[key] = span{int64(len(text)), int64(len(more))}
		text = append(text, more...)
	}
	tmp := l.name + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(text); err == nil {
		err = os.Rename(tmp, l.name)
	}
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(tmp))
	}
	old := l.file
	l.file, l.size, l.at = f, int64(len(text)), at
	return closed(old)
}

func encodeLine(v line) ([]byte, error) {
	text, err := encode(v)
	return append(text, '\n'), err
}

// write appends a line and returns its length, or leaves the file as it was.
// The caller holds mu.
func (l *Log) write(v line) (int64, error) {
	if l.file == nil {
		return 0, fmt.Errorf("the journal is closed: %w", errdefs.ErrConflict)
	}
	text, err := encodeLine(v)
	if err != nil {
		return 0, err
	}
	if l.size+int64(len(text)) > longLog {
		if err := l.rewrite(); err != nil {
			return 0, diskError(err)
		}
	}
	if _, err := l.file.WriteAt(text, l.size); err != nil {
		return 0, diskError(errors.Join(err, l.file.Truncate(l.size)))
	}
	l.size += int64(len(text))
	return int64(len(text)), nil
}

// Begin implements Journal.
func (l *Log) Begin(_ context.Context, in Intent) error {
	key, err := intentKey(in.Op, in.ID)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	length, err := l.write(line{Begin: &in})
	if err != nil {
		return fmt.Errorf("begin %s of %s: %w", in.Op, in.ID, err)
	}
	l.open[key], l.at[key] = in, span{l.size - length, length}
	return nil
}

// End implements Journal. When the disk has no room for another line, the one
// that began the intent is overwritten by spaces, which needs none.
func (l *Log) End(_ context.Context, op, id string) error {
	key, err := intentKey(op, id)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.open[key]; !ok {
		return nil
	}
	_, err = l.write(line{End: key})
	if at := l.at[key]; errors.Is(err, errdefs.ErrExhausted) {
		_, err = l.file.WriteAt(bytes.Repeat([]byte(" "), int(at.length-1)), at.from)
		err = diskError(err)
	}
	if err != nil {
		return fmt.Errorf("end %s of %s: %w", op, id, err)
	}
	delete(l.open, key)
	delete(l.at, key)
	return nil
}

// Intents implements Journal.
func (l *Log) Intents(context.Context) ([]Intent, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.SortedFunc(maps.Values(l.open), byAge), nil
}

// Close lets the file go. What is open stays for the next OpenLog.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.file
	l.file = nil
	return closed(f)
}

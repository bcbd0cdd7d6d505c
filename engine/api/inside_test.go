package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestFailuresKeepClassAndTexts(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range classes() {
		if seen[c.code] {
			t.Errorf("code %s twice", c.code)
		}
		seen[c.code] = true
		whole := fmt.Errorf("do x to y: %w", c.err)
		f, status := failureOf(whole)
		back := parseFailure(status, marshal(t, f))
		if status < 400 || !errors.Is(back, c.err) || back.Error() != whole.Error() {
			t.Errorf("%s: %d %v", c.code, status, back)
		}
		f, _ = failureOf(errdefs.WithPublic(whole, "for the tenant"))
		if back := f.err(); errdefs.PublicText(back, "") != "for the tenant" || !errors.Is(back, c.err) {
			t.Errorf("%s: %v", c.code, back)
		}
	}
	f, status := failureOf(errors.New("something"))
	if back := f.err(); status != 500 || back.Error() != "something" || errors.Is(back, errdefs.ErrInvalid) {
		t.Errorf("no class: %d %v", status, back)
	}
	if err := parseFailure(502, []byte("<html>")); !errors.Is(err, errdefs.ErrCorrupt) {
		t.Errorf("no document: %v", err)
	}
}

func TestAdmit(t *testing.T) {
	for uid, ok := range map[int]bool{0: true, os.Geteuid(): true, 65534: false, 1000: false} {
		err := admit(context.WithValue(t.Context(), peerKey{}, &unix.Ucred{Uid: uint32(uid)}))
		if (err == nil) != ok || !ok && !errors.Is(err, errdefs.ErrForbidden) {
			t.Errorf("user %d: %v", uid, err)
		}
	}
	if err := admit(t.Context()); !errors.Is(err, errdefs.ErrForbidden) {
		t.Errorf("unknown peer: %v", err)
	}
}

func FuzzDocuments(f *testing.F) {
	f.Add([]byte(`{"id":"c","image":"i","limits":{"pids":5},"start":{"args":["a"]}}`))
	f.Add([]byte(`{"signal":9}` + "\n" + `{"detach":true}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c Create
		if err := decode(data, &c); err != nil && !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("request: %v", err)
		}
		ch := &channel{in: bufio.NewReaderSize(bytes.NewReader(data), 16)}
		for {
			var cmd command
			if err := ch.hear(&cmd); err != nil {
				break
			}
		}
		_ = parseFailure(500, data)
	})
}

func marshal(t *testing.T, f *Failure) []byte {
	t.Helper()
	data, err := json.Marshal(failed{f})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

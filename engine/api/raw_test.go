package api_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/api"
)

// TestRawRequests sends what no client of ours would.
func TestRawRequests(t *testing.T) {
	backend := newFake(t.TempDir())
	backend.images["busybox"] = engine.ImageInfo{Ref: "busybox"}
	f := serve(t, backend, nil)
	f.run(t, "c")
	upgrade := "Connection: Upgrade\r\nUpgrade: gantry-files\r\n"
	for name, tc := range map[string]struct {
		line, header, body string
		status             int
		code               string
	}{
		"no such path":          {"GET /v1/nothing", "", "", 404, "not-found"},
		"no version":            {"GET /containers", "", "", 404, "not-found"},
		"wrong method":          {"PATCH /v1/containers/c", "", "", 404, "not-found"},
		"slash in the id":       {"GET /v1/containers/..%2F..%2Fetc", "", "", 400, "invalid"},
		"dot":                   {"GET /v1/containers/%2E%2E", "", "", 400, "invalid"},
		"NUL in the id":         {"GET /v1/containers/a%00b", "", "", 400, "invalid"},
		"not JSON":              {"POST /v1/containers", "", "{", 400, "invalid"},
		"a list":                {"POST /v1/containers", "", "[]", 400, "invalid"},
		"misspelled limit":      {"POST /v1/containers/c/update", "", `{"pid":5}`, 400, "invalid"},
		"two documents":         {"POST /v1/containers/c/update", "", `{"pids":5}{"pids":6}`, 400, "invalid"},
		"wrong type":            {"POST /v1/containers/c/kill", "", `{"signal":"TERM"}`, 400, "invalid"},
		"number too large":      {"POST /v1/containers/c/kill", "", `{"signal":1e99}`, 400, "invalid"},
		"over 1 MiB":            {"POST /v1/containers", "", `{"id":"` + strings.Repeat("a", 1<<20) + `"}`, 400, "invalid"},
		"deep":                  {"POST /v1/containers", "", strings.Repeat(`{"labels":`, 20000), 400, "invalid"},
		"bad flag":              {"DELETE /v1/containers/c?kill=maybe", "", "", 400, "invalid"},
		"bad time":              {"GET /v1/containers/c/logs?since=yesterday", "", "", 400, "invalid"},
		"bad lines":             {"GET /v1/containers/c/logs?lines=x", "", "", 400, "invalid"},
		"bad interval":          {"GET /v1/containers/c/stats?interval=NaN", "", "", 400, "invalid"},
		"exec without files":    {"POST /v1/containers/c/exec", "", `{"args":["true"]}`, 400, "invalid"},
		"exec with a bad body":  {"POST /v1/containers/c/exec", upgrade, `{"argv":["true"]}`, 400, "invalid"},
		"exec in nothing":       {"POST /v1/containers/nothing/exec", upgrade, `{"args":["true"]}`, 404, "not-found"},
		"import without a name": {"POST /v1/images", upgrade, `{}`, 400, "invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, in := dial(t, f)
			// the server may answer before it has read all
			_, _ = fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s", tc.line, tc.header, len(tc.body), tc.body)
			res, err := http.ReadResponse(in, nil)
			check(t, err)
			defer res.Body.Close()
			var doc struct{ Error api.Failure }
			if err := json.NewDecoder(res.Body).Decode(&doc); err != nil || res.StatusCode != tc.status || doc.Error.Code != tc.code || doc.Error.Message == "" {
				t.Errorf("%d %+v %v", res.StatusCode, doc, err)
			}
		})
	}
	t.Run("chunked over 1 MiB", func(t *testing.T) {
		conn, in := dial(t, f)
		_, _ = fmt.Fprint(conn, "POST /v1/containers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
		chunk := strings.Repeat("a", 1<<16)
		for range 17 {
			_, _ = fmt.Fprintf(conn, "%x\r\n%s\r\n", len(chunk), chunk)
		}
		_, _ = fmt.Fprint(conn, "0\r\n\r\n")
		if res, err := http.ReadResponse(in, nil); err != nil || res.StatusCode != 400 { //nolint:bodyclose // the connection is closed
			t.Errorf("%+v %v", res, err)
		}
	})
	t.Run("no files after the change of protocol", func(t *testing.T) {
		conn, in := dial(t, f)
		body := `{"args":["true"]}`
		_, _ = fmt.Fprintf(conn, "POST /v1/containers/c/exec HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s", upgrade, len(body), body)
		if res, err := http.ReadResponse(in, nil); err != nil || res.StatusCode != 101 { //nolint:bodyclose // the connection is closed
			t.Fatalf("%+v %v", res, err)
		}
		check(t, second(conn.Write([]byte{0})))
		if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, `"invalid"`) {
			t.Errorf("%q %v", line, err)
		}
		if _, err := in.ReadByte(); err != io.EOF {
			t.Errorf("not closed: %v", err)
		}
	})
	// all of that has changed nothing, and it still answers
	if list, err := f.Containers(t.Context()); err != nil || len(list) != 1 || list[0].Status != engine.StatusRunning {
		t.Errorf("afterwards: %+v %v", list, err)
	}
	check(t, f.Remove(t.Context(), "c", true, api.Change{}))
}

func dial(t *testing.T, f *fixture) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("unix", f.socket)
	check(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn, bufio.NewReader(conn)
}

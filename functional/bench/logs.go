package main

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// stamp is how oslo.log writes the time, in the local zone.
const stamp = "2006-01-02 15:04:05.999"

// requestLine is neutron-server's line for an answered request (neutron.wsgi).
const requestLine = `^(\S+ \S+) .*"((?:GET|POST|PUT|DELETE) [^? ]+)\S* HTTP[^"]*" status: \d+ +len: \d+ time: ([0-9.]+)`

// neutronRequests reads when neutron-server was answering requests.
func neutronRequests(file string) ([]span, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	line := regexp.MustCompile(requestLine)
	var out []span
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if s, ok := requestSpan(line, lines.Text()); ok {
			out = append(out, s)
		}
	}
	return out, lines.Err()
}

func requestSpan(line *regexp.Regexp, text string) (span, bool) {
	m := line.FindStringSubmatch(text)
	if m == nil {
		return span{}, false
	}
	end, err := time.ParseInLocation(stamp, m[1], time.Local)
	if err != nil {
		return span{}, false
	}
	took, err := strconv.ParseFloat(m[3], 64)
	if err != nil {
		return span{}, false
	}
	return span{end.Add(-time.Duration(took * float64(time.Second))), end, m[2]}, true
}

// steps are the milliseconds of gantry's own log for each instance: the steps
// of the spawn, since its beginning, and of the whole build.
type steps map[string]float64

func gantrySteps(file string) (map[string]steps, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]steps{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var l struct {
			Instance, Step, Message string
			Took                    float64
		}
		if json.Unmarshal(lines.Bytes(), &l) != nil || l.Instance == "" {
			continue
		}
		if out[l.Instance] == nil {
			out[l.Instance] = steps{}
		}
		switch l.Message {
		case "spawn step":
			out[l.Instance][l.Step] = l.Took
		case "build ended":
			out[l.Instance]["build"] = l.Took
		}
	}
	return out, lines.Err()
}

// taps notes when each tap device first carried traffic, that is when both of
// its ends were up: the last thing of plugging that the host can see.
type taps struct {
	mu  sync.Mutex
	up  map[string]time.Time // guarded by mu; by device
	cmd *exec.Cmd
}

func watchTaps(ctx context.Context) (*taps, error) {
	t := &taps{up: map[string]time.Time{}, cmd: exec.CommandContext(ctx, "ip", "-o", "monitor", "link")}
	out, err := t.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := t.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			t.note(time.Now(), lines.Text())
		}
	}()
	return t, nil
}

// note reads a line like "7: tap1a2b3c4d-5e@if2: <BROADCAST,UP,LOWER_UP> mtu ...".
func (t *taps) note(at time.Time, line string) {
	f := strings.Fields(line)
	if len(f) < 3 || !strings.Contains(f[2], "LOWER_UP") {
		return
	}
	name, _, _ := strings.Cut(strings.TrimSuffix(f[1], ":"), "@")
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, seen := t.up[name]; !seen && strings.HasPrefix(name, "tap") {
		t.up[name] = at
	}
}

// upAt is when the port's device came up; ok is false when it did not.
func (t *taps) upAt(port string) (time.Time, bool) {
	if len(port) < 11 {
		return time.Time{}, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	at, ok := t.up["tap"+port[:11]]
	return at, ok
}

func (t *taps) close() {
	_ = t.cmd.Process.Kill()
	_ = t.cmd.Wait()
}

package local

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/image"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestSplitCommand(t *testing.T) {
	for line, want := range map[string][]string{
		"/bin/app":                   {"/bin/app"},
		"  a\tb \n c ":               {"a", "b", "c"},
		`sh -c "echo 'a  b'"`:        {"sh", "-c", "echo 'a  b'"},
		`a 'b "c" \d'`:               {"a", `b "c" \d`},
		`a b\ c \"d`:                 {"a", "b c", `"d`},
		`a "" ''`:                    {"a", "", ""},
		`a"b"'c'd`:                   {"abcd"},
		`a $HOME * ; b`:              {"a", "$HOME", "*", ";", "b"},
		"":                           nil,
		" \t ":                       nil,
		`a "b`:                       nil,
		`a 'b`:                       nil,
		`a \`:                        nil,
		"a\x00b":                     nil,
		`/usr/bin/é "ü" 日本`:          {"/usr/bin/é", "ü", "日本"},
		`nginx -g "daemon \"off\";"`: {"nginx", "-g", `daemon "off";`},
	} {
		got, err := splitCommand(line)
		if want == nil {
			if !errors.Is(err, errdefs.ErrInvalid) {
				t.Errorf("%q: %q, %v", line, got, err)
			}
			continue
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v, want %q", line, got, err, want)
		}
	}
}

func FuzzSplitCommand(f *testing.F) {
	for _, seed := range []string{"a b", `a "b c" 'd'`, `\`, "\x00", `"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args, err := splitCommand(line)
		if err != nil {
			if !errors.Is(err, errdefs.ErrInvalid) || args != nil {
				t.Fatalf("%q: %q, %v", line, args, err)
			}
			return
		}
		if len(args) == 0 {
			t.Fatalf("%q: no word and no error", line)
		}
		// quoting every word gives the same words again
		var quoted []string
		for _, a := range args {
			if strings.ContainsRune(a, 0) {
				t.Fatalf("%q: a zero byte in %q", line, a)
			}
			quoted = append(quoted, "'"+strings.ReplaceAll(a, "'", `'\''`)+"'")
		}
		again, err := splitCommand(strings.Join(quoted, " "))
		if err != nil || utf8.ValidString(line) && !slices.Equal(again, args) {
			t.Fatalf("%q: %q, again %q, %v", line, args, again, err)
		}
	})
}

func TestHostname(t *testing.T) {
	long := strings.Repeat("a", 62)
	for name, want := range map[string]string{
		"web":                  "web",
		"Web-1.example.org":    "Web-1.example.org",
		"":                     "fallback",
		"---":                  "fallback",
		"../../etc/passwd":     "etcpasswd",
		"a b\nc":               "abc",
		"-a.":                  "a",
		"日本":                   "fallback",
		"a\x00b":               "ab",
		long + "--" + "b":      long,
		long + "abc":           long + "a",
		"$(reboot)":            "reboot",
		strings.Repeat(".", 9): "fallback",
	} {
		if got := hostname(name, "fallback"); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func TestGuestFor(t *testing.T) {
	app := image.Config{Entrypoint: []string{"/entry"}, Cmd: []string{"arg one", "two"}, Env: []string{"A=1"}, User: "web", WorkingDir: "/srv"}
	for name, tc := range map[string]struct {
		img    engine.ImageInfo
		props  map[string]string
		want   guest
		public string // of the error
	}{
		"entrypoint and command":         {engine.ImageInfo{Config: app}, nil, guest{Args: []string{"/entry", "arg one", "two"}, Cwd: "/srv", User: "web"}, ""},
		"command only":                   {engine.ImageInfo{Config: image.Config{Cmd: []string{"/c"}}}, nil, guest{Args: []string{"/c"}}, ""},
		"the property overrides":         {engine.ImageInfo{Config: app}, map[string]string{commandProperty: `sh -c "a b"`}, guest{Args: []string{"sh", "-c", "a b"}, Cwd: "/srv", User: "web"}, ""},
		"the property of a root fs":      {engine.ImageInfo{RootFS: true}, map[string]string{commandProperty: "/x"}, guest{Args: []string{"/x"}}, ""},
		"a root fs looks for an init":    {engine.ImageInfo{RootFS: true}, nil, guest{Candidates: inits}, ""},
		"no command":                     {engine.ImageInfo{}, nil, guest{}, commandProperty},
		"malformed property":             {engine.ImageInfo{Config: app}, map[string]string{commandProperty: `"`}, guest{}, "malformed"},
		"blank property":                 {engine.ImageInfo{Config: app}, map[string]string{commandProperty: " "}, guest{}, "malformed"},
		"empty property is none":         {engine.ImageInfo{Config: app}, map[string]string{commandProperty: ""}, guest{Args: []string{"/entry", "arg one", "two"}, Cwd: "/srv", User: "web"}, ""},
		"stop signal":                    {engine.ImageInfo{Config: image.Config{Cmd: []string{"/c"}, StopSignal: "SIGQUIT"}}, nil, guest{Args: []string{"/c"}, StopSignal: 3}, ""},
		"a stop signal that is not real": {engine.ImageInfo{Config: image.Config{Cmd: []string{"/c"}, StopSignal: "SIGWHAT"}}, nil, guest{}, "SIGWHAT"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := guestFor(driver.SpawnRequest{
				UUID: "u", Hostname: "web", Flavor: driver.Flavor{VCPUs: 2, MemoryMB: 3},
				Image: driver.Image{ID: "i", HashValue: "h", Properties: tc.props},
			}, tc.img)
			if tc.public != "" {
				if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(errdefs.PublicText(err, ""), tc.public) {
					t.Errorf("%+v, error %v", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.Hostname != "web" || got.VCPUs != 2 || got.MemoryMB != 3 || got.Image != "i:h" || len(got.Env) < 3 {
				t.Errorf("guest %+v", got)
			}
			labels, err := got.labels()
			if err != nil {
				t.Fatal(err)
			}
			back, err := guestOf(engine.State{Labels: labels})
			if d := cmp.Diff(got, back); d != "" || err != nil {
				t.Error(d, err)
			}
			got.Env, got.Hostname, got.VCPUs, got.MemoryMB, got.Image = nil, "", 0, 0, ""
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	for name, tc := range map[string]struct{ img, want []string }{
		"defaults":                {nil, []string{"container=gantry", "TERM=linux", "PATH=" + defaultPath}},
		"the image's PATH":        {[]string{"PATH=/x", "A=b=c"}, []string{"container=gantry", "TERM=linux", "PATH=/x", "A=b=c"}},
		"a name stands once":      {[]string{"A=1", "TERM=dumb", "A=2"}, []string{"container=gantry", "TERM=dumb", "PATH=" + defaultPath, "A=2"}},
		"what is no name is left": {[]string{"A", "=b", "B=\x00"}, []string{"container=gantry", "TERM=linux", "PATH=" + defaultPath}},
	} {
		got, err := environment(engine.ImageInfo{Config: image.Config{Env: tc.img}}, nil)
		if d := cmp.Diff(tc.want, got); err != nil || d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestFirstFiles(t *testing.T) {
	req := driver.SpawnRequest{PublicKey: " ssh-ed25519 AAAA me \n", Files: []driver.File{{Path: "/etc/a", Content: []byte("x")}, {Path: "srv//./b"}}}
	got, err := firstFiles(req, guest{Hostname: "web"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []process.File{
		{Path: "/etc/hostname", Data: []byte("web\n"), Mode: 0o644},
		{Path: "/etc/hosts", Data: hostsFile("web", nil), Mode: 0o644},
		{Path: "/root/.ssh/authorized_keys", Data: []byte("ssh-ed25519 AAAA me\n"), Mode: 0o600},
		{Path: "/etc/a", Data: []byte("x"), Mode: 0o644},
		{Path: "/srv/b", Mode: 0o644},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, name := range []string{"", "/", ".", "..", "../etc/shadow", "/a/../../b", "a/..", "/a/", "/a\x00b", "//"} {
		_, err := firstFiles(driver.SpawnRequest{Files: []driver.File{{Path: name}}}, guest{}, nil)
		if !errors.Is(err, errdefs.ErrInvalid) || errdefs.PublicText(err, "") == "" {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestDiskFor(t *testing.T) {
	for name, c := range map[string]struct {
		rootGB, image int64
		want          snapshot.Limit
	}{
		"no size":            {0, 1 << 40, snapshot.Limit{}},
		"with its image":     {2, 1 << 30, snapshot.Limit{Bytes: 1 << 30, Inodes: 1 << 16}},
		"an image that fits": {1, 1 << 30, snapshot.Limit{Bytes: 64 << 20, Inodes: 4096}},
	} {
		if got := diskFor(driver.Flavor{RootGB: c.rootGB}, engine.ImageInfo{SizeBytes: c.image}); got != c.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestFits(t *testing.T) {
	for name, tc := range map[string]struct {
		flavor driver.Flavor
		bytes  int64
		ok     bool
	}{
		"no limit":        {driver.Flavor{}, 1 << 40, true},
		"just so":         {driver.Flavor{RootGB: 1}, 1 << 30, true},
		"too large":       {driver.Flavor{RootGB: 1}, 1<<30 + 1, false},
		"much too large":  {driver.Flavor{RootGB: 2}, 1 << 40, false},
		"an ephemeral":    {driver.Flavor{EphemeralGB: 1}, 1, false},
		"a swap disk":     {driver.Flavor{SwapMB: 1}, 1, false},
		"an empty image":  {driver.Flavor{RootGB: 1}, 0, true},
		"a huge disk too": {driver.Flavor{RootGB: 1 << 20}, 1 << 40, true},
	} {
		err := errors.Join(possible(tc.flavor), fits(tc.flavor, engine.ImageInfo{SizeBytes: tc.bytes}))
		if tc.ok != (err == nil) || err != nil && (!errors.Is(err, errdefs.ErrInvalid) || errdefs.PublicText(err, "") == "") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDescribeExit(t *testing.T) {
	for want, exit := range map[string]engine.ExitState{
		"ended unseen":          {},
		"exited with status 0":  {Known: true},
		"exited with status 3":  {Known: true, Exit: process.Exit{Code: 3}},
		"killed by signal 11":   {Known: true, Exit: process.Exit{Code: 139, Signal: 11}},
		"killed: out of memory": {Known: true, OOM: true, Exit: process.Exit{Code: 137, Signal: 9}},
	} {
		if got := describeExit(exit); got != want {
			t.Errorf("%+v: %q, want %q", exit, got, want)
		}
	}
}

// TestProfile: the flavor chooses, and nothing else does.
func TestProfile(t *testing.T) {
	for wish, ok := range map[string]bool{"": true, "instance": true, "system": true, "privileged": false, "System": false} {
		req := driver.SpawnRequest{Flavor: driver.Flavor{Name: "f", ExtraSpecs: map[string]string{profileProperty: wish}}}
		req.Image.Properties = map[string]string{profileProperty: "system"}
		g, err := guestFor(req, engine.ImageInfo{RootFS: true})
		if ok != (err == nil) || ok && string(g.Profile) != wish || !ok && !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q: profile %q, %v", wish, g.Profile, err)
		}
	}
}

// TestNesting: the flavor chooses, and nothing else does.
func TestNesting(t *testing.T) {
	for name, tc := range map[string]struct {
		nesting, profile string
		want, ok         bool
	}{
		"nothing":          {"", "", false, true},
		"not":              {"false", "instance", false, true},
		"nesting":          {"true", "", true, true},
		"as Python has it": {"True", "system", true, true},
		"in an instance":   {"true", "instance", false, false},
		"a number":         {"1", "", false, false},
		"no profile":       {"true", "privileged", false, false},
	} {
		req := driver.SpawnRequest{Flavor: driver.Flavor{Name: "f", ExtraSpecs: map[string]string{}}}
		for key, value := range map[string]string{nestingProperty: tc.nesting, profileProperty: tc.profile} {
			if value != "" {
				req.Flavor.ExtraSpecs[key] = value
			}
		}
		req.Image.Properties = map[string]string{nestingProperty: "true"}
		g, err := guestFor(req, engine.ImageInfo{RootFS: true})
		if !tc.ok {
			if !errors.Is(err, errdefs.ErrInvalid) || errdefs.PublicText(err, "") == "" {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		start, serr := (&Driver{}).startRequest("", g, nil)
		if err != nil || serr != nil || start.Nesting != tc.want {
			t.Errorf("%s: %+v, %v, %v", name, start, err, serr)
		}
	}
}

package runtimecmd

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// logger writes where --log and --log-format say, in the form of runc: engines
// read the last error from there. done closes the file.
func (f *runtimeFlags) logger() (log zerolog.Logger, done func(), err error) {
	if f.logFormat != "text" && f.logFormat != "json" {
		return log, nil, fmt.Errorf("--log-format %q: %w", f.logFormat, errdefs.ErrInvalid)
	}
	w := &runcLog{out: os.Stderr, json: f.logFormat == "json"}
	done = func() {}
	if f.log != "" {
		file, err := os.OpenFile(f.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return log, nil, fmt.Errorf("--log: %w", err)
		}
		w.out, done = file, func() { _ = file.Close() }
	}
	level := zerolog.WarnLevel
	if f.debug {
		level = zerolog.DebugLevel
	}
	return zerolog.New(w).Level(level), done, nil
}

// runcLog turns zerolog's lines into logrus', which runc writes: the keys
// level, msg and time, and others as they are.
type runcLog struct {
	out  io.Writer
	json bool
}

// Write takes one line.
func (l *runcLog) Write(line []byte) (int, error) {
	var fields map[string]any
	if err := json.Unmarshal(line, &fields); err != nil {
		return l.out.Write(line)
	}
	if fields["level"] == "warn" {
		fields["level"] = "warning"
	}
	message, at := fields["message"], time.Now().UTC().Format(time.RFC3339Nano)
	delete(fields, "message")
	if l.json {
		fields["msg"], fields["time"] = message, at
		out, err := json.Marshal(fields)
		if err == nil {
			_, err = l.out.Write(append(out, '\n'))
		}
		return len(line), err
	}
	level := fields["level"]
	delete(fields, "level")
	text := fmt.Sprintf("time=%q level=%v msg=%q", at, level, message)
	if len(fields) > 0 {
		rest, err := json.Marshal(fields)
		if err != nil {
			return 0, err
		}
		text += " fields=" + string(rest)
	}
	_, err := fmt.Fprintln(l.out, text)
	return len(line), err
}

package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// failureTrailer is the trailer that says, as a Failure, why a stream of bytes
// has ended before its end.
const failureTrailer = "Gantry-Failure"

// stream copies r to the response, each piece at once, and ends it with an
// error's trailer if it must.
func stream(w http.ResponseWriter, kind string, r io.Reader) error {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Trailer", failureTrailer)
	flush := http.NewResponseController(w)
	if err := flush.Flush(); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			if err := flush.Flush(); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			f, _ := failureOf(err)
			text, merr := json.Marshal(f)
			h.Set(failureTrailer, string(text))
			return merr
		}
	}
}

// lines sends documents, one a line, each at once.
type lines struct {
	w     http.ResponseWriter
	enc   *json.Encoder
	flush *http.ResponseController
}

// newLines begins the response, so that the client knows that it is heard.
func newLines(w http.ResponseWriter) (*lines, error) {
	w.Header().Set("Content-Type", "application/jsonl")
	l := &lines{w: w, enc: json.NewEncoder(w), flush: http.NewResponseController(w)}
	return l, l.flush.Flush()
}

func (l *lines) send(v any) error {
	if err := l.enc.Encode(v); err != nil {
		return err
	}
	return l.flush.Flush()
}

func (s *Server) logs(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	follow, err := flag(r, "follow")
	if err != nil {
		return err
	}
	req := engine.LogsRequest{Follow: follow}
	if text := q.Get("lines"); text != "" {
		if req.Lines, err = strconv.Atoi(text); err != nil {
			return fmt.Errorf("lines=%.32q: %w", text, errdefs.ErrInvalid)
		}
		if req.Lines == 0 {
			req.Lines = -1 // none of what is there
		}
	}
	if text := q.Get("since"); text != "" {
		if req.Since, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return fmt.Errorf("since=%.64q is not a time of RFC 3339: %w", text, errdefs.ErrInvalid)
		}
	}
	out, err := s.opts.Backend.Logs(r.Context(), id(r), req)
	if err != nil {
		return err
	}
	defer out.Close()
	return stream(w, "application/octet-stream", out)
}

func (s *Server) stats(w http.ResponseWriter, r *http.Request) error {
	interval := time.Duration(0)
	if text := r.URL.Query().Get("interval"); text != "" {
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil || !(seconds > 0 && seconds <= 3600) {
			return fmt.Errorf("interval=%.32q is not within 0 and 3600 seconds: %w", text, errdefs.ErrInvalid)
		}
		interval = time.Duration(seconds * float64(time.Second))
	}
	if interval == 0 {
		use, err := s.opts.Backend.Stats(r.Context(), id(r))
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(statsOf(engine.Sample{Time: time.Now(), Stats: use}))
	}
	// the first reading decides whether there is a response at all
	var l *lines
	return s.opts.Backend.WatchStats(r.Context(), id(r), interval, func(sample engine.Sample) (err error) {
		if l == nil {
			if l, err = newLines(w); err != nil {
				return err
			}
		}
		return l.send(statsOf(sample))
	})
}

func statsOf(s engine.Sample) Stats {
	return Stats{Time: s.Time, CPU: s.CPUTime.Seconds(), Memory: s.MemoryBytes, Pids: s.Pids}
}

// events sends what happens from the request on, of one container or all.
func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	only := r.URL.Query().Get("container")
	sub := s.opts.Backend.Subscribe()
	defer sub.Close()
	l, err := newLines(w)
	if err != nil {
		return err
	}
	for {
		ev, err := sub.Next(r.Context())
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if only != "" && string(ev.ID) != only && ev.Kind != engine.EventMissed {
			continue
		}
		doc := Event{Kind: ev.Kind, Time: ev.Time, Container: string(ev.ID), Exec: ev.Exec, Asked: ev.Asked, Missed: ev.Missed}
		if ev.Kind == engine.EventExit || ev.Kind == engine.EventExecExit {
			doc.Exit = exitOf(ev.Exit)
		}
		if err := l.send(doc); err != nil {
			return err
		}
	}
}

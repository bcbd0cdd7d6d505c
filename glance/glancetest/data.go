package glancetest

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// next returns the fault of the coming transfer, the zero one if it is to work.
func (s *Server) next(i *image) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := i.fault
	if f.Times == 0 {
		return Fault{}
	}
	if i.fault.Times > 0 {
		i.fault.Times--
	}
	return f
}

func (s *Server) download(w http.ResponseWriter, r *http.Request, i *image) {
	fault := s.next(i)
	s.mu.Lock()
	s.downloads++
	data, status := i.data, i.fields["status"]
	s.mu.Unlock()
	switch {
	case fault.Status != 0:
		refuse(w, fault.Status, "told to fail")
		return
	case status != "active":
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if fault.Data != nil {
		data = fault.Data
	}
	from, code := 0, http.StatusOK
	if spec, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok && !fault.NoRange {
		first, _, _ := strings.Cut(spec, "-")
		n, err := strconv.Atoi(first)
		if err != nil || n >= len(data) {
			refuse(w, http.StatusRequestedRangeNotSatisfiable, "")
			return
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", n, len(data)-1, len(data)))
		from, code = n, http.StatusPartialContent
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)-from))
	w.WriteHeader(code)
	out := data[from:]
	if limit := max(fault.CutAt, fault.StallAt); limit > 0 && limit < len(out) {
		_, _ = w.Write(out[:limit])
		_ = http.NewResponseController(w).Flush()
		if fault.StallAt > 0 {
			select {
			case <-fault.Hold:
			case <-r.Context().Done():
			}
		}
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(out)
}

func (s *Server) upload(w http.ResponseWriter, r *http.Request, id string, i *image) {
	fault := s.next(i)
	s.mu.Lock()
	status, disk := i.fields["status"], i.fields["disk_format"]
	s.mu.Unlock()
	switch {
	case fault.Status != 0:
		refuse(w, fault.Status, "told to fail")
		return
	case status != "queued":
		refuse(w, http.StatusConflict, "Image status transition from "+fmt.Sprint(status)+" to saving is not allowed")
		return
	case disk == nil:
		refuse(w, http.StatusBadRequest, "Properties disk_format, container_format must be set prior to saving data.")
		return
	}
	if limit := max(fault.CutAt, fault.StallAt); limit > 0 {
		_, _ = io.CopyN(io.Discard, r.Body, int64(limit))
		if fault.StallAt > 0 {
			select {
			case <-fault.Hold:
			case <-r.Context().Done():
			}
		}
		panic(http.ErrAbortHandler)
	}
	data, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the client broke off: the image stays queued
	}
	if fault.Data != nil {
		data = fault.Data
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.images[id] != i {
		refuse(w, http.StatusNotFound, "Image "+id+" could not be found after upload.")
		return
	}
	i.store(data)
	w.WriteHeader(http.StatusNoContent)
}
